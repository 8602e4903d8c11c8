//! gRPC over HTTP/2, "Requests": what a head must say for the typed lane.

use std::time::Duration;

use crate::message::Head;

/// The lane of a call, as its head says.
#[derive(Debug, Clone)]
pub enum Route<M> {
    /// gRPC of a method that the handler knows.
    Typed {
        /// It.
        method: M,
        /// `grpc-timeout`.
        timeout: Option<Duration>,
    },
    /// All else.
    General,
}

/// `grpc-timeout`, if the call is gRPC that the typed lane can take: a `POST` of
/// `application/grpc` or `application/grpc+proto`, without compression, and no
/// field of them twice. `None` leaves it, and whatever is wrong with it, to the
/// general lane.
pub(super) fn of_typed_lane(head: &Head) -> Option<Option<Duration>> {
    if head.method() != b"POST" {
        return None;
    }
    let (mut is_grpc, mut timeout) = (false, None);
    for (name, value) in head.metadata() {
        match name {
            b"content-type" => {
                let is_kind = matches!(value, b"application/grpc" | b"application/grpc+proto");
                if is_grpc || !is_kind {
                    return None;
                }
                is_grpc = true;
            }
            b"grpc-encoding" if value != b"identity" => return None,
            b"grpc-timeout" if timeout.is_some() => return None,
            b"grpc-timeout" => timeout = Some(grpc_timeout(value)?),
            _ => {}
        }
    }
    is_grpc.then_some(timeout)
}

/// "Timeout": one to eight digits and a unit, as `grpc-timeout` has it. `None` if it
/// is anything else.
#[must_use]
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_parsed_as_the_specification_says() {
        let check = |text: &str, expected: Option<Duration>| {
            assert_eq!(grpc_timeout(text.as_bytes()), expected, "{text:?}");
        };
        check("1H", Some(Duration::from_secs(3600)));
        check("2M", Some(Duration::from_secs(120)));
        check("3S", Some(Duration::from_secs(3)));
        check("4m", Some(Duration::from_millis(4)));
        check("5u", Some(Duration::from_micros(5)));
        check("6n", Some(Duration::from_nanos(6)));
        check("0n", Some(Duration::ZERO));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in [
            "",
            "S",
            "1",
            "1s",
            "123456789S",
            "-1S",
            "+1S",
            " 1S",
            "1 S",
            "1.5S",
            "1SS",
            "\u{663}S",
        ] {
            check(bad, None);
        }
    }
}
