//! Whether a client has sent a call before.

use larder_api::errors::Reason;
use larder_api::wire::PREVIOUS_ATTEMPTS;

use super::admit::{Fields, digits};
use crate::failure::Failure;

/// What a client's library says of a call (gRFC A6, "Exposed retry metadata").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Attempt {
    /// The first, or one that says nothing.
    #[default]
    First,
    /// Another one went before, and may have had its effect.
    Repeat,
}

impl Attempt {
    /// What `grpc-previous-rpc-attempts` says.
    pub(super) fn of(fields: &impl Fields) -> Result<Self, Failure> {
        previous_attempts(fields).map(|before| match before {
            0 => Self::First,
            _ => Self::Repeat,
        })
    }
}

/// Reads `grpc-previous-rpc-attempts`: how many tries went before, at the most that any
/// of its values says.
pub(crate) fn previous_attempts(fields: &impl Fields) -> Result<u32, Failure> {
    fields.values(PREVIOUS_ATTEMPTS).try_fold(0, |most, value| {
        let number = digits(value).ok_or_else(|| {
            let (reason, description) = (Reason::MetadataInvalid, "must be 1 to 10 digits");
            Failure::field(reason, PREVIOUS_ATTEMPTS, description)
        })?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX).max(most))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_but_none_is_a_repeat() {
        let check = |values: &[&str], expected: Option<Attempt>| {
            let mut head = http::HeaderMap::new();
            for value in values {
                head.append(PREVIOUS_ATTEMPTS, value.parse().expect("a header value"));
            }
            assert_eq!(Attempt::of(&head).ok(), expected, "{values:?}");
        };
        check(&[], Some(Attempt::First));
        check(&["0"], Some(Attempt::First));
        check(&["1"], Some(Attempt::Repeat));
        check(&["04"], Some(Attempt::Repeat));
        check(&["0", "2"], Some(Attempt::Repeat));
        for bad in [&[""][..], &["-1"], &["one"], &["12345678901"], &["1", "x"]] {
            check(bad, None);
        }
    }
}
