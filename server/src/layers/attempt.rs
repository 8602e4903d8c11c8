//! Whether a client has sent a call before.

use larder_api::errors::Reason;
use larder_api::wire::PREVIOUS_ATTEMPTS;

use super::admit::Fields;
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

/// Reads `grpc-previous-rpc-attempts`.
pub(super) fn attempt(fields: &impl Fields) -> Result<Attempt, Failure> {
    let mut attempt = Attempt::First;
    for value in fields.values(PREVIOUS_ATTEMPTS) {
        if value.is_empty() || value.len() > 10 || !value.iter().all(u8::is_ascii_digit) {
            let (reason, description) = (Reason::MetadataInvalid, "must be 1 to 10 digits");
            return Err(Failure::field(reason, PREVIOUS_ATTEMPTS, description));
        }
        if value.iter().any(|digit| *digit != b'0') {
            attempt = Attempt::Repeat;
        }
    }
    Ok(attempt)
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
            assert_eq!(attempt(&head).ok(), expected, "{values:?}");
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
