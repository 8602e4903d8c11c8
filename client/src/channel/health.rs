//! Client-side health checking, gRFC A17 and gRPC's `health-checking.md`: one
//! `grpc.health.v1.Health/Watch` for each subchannel.

use larder_transport::client::{Code, Connection, Failed, NotSent, RequestHead};
use rand::TryRngCore as _;

use super::backoff::Backoff;
use super::subchannel::Health;

/// The path of the call.
pub(crate) const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Tells of `service`'s health for as long as the connection takes calls.
pub(crate) async fn watch<F: Future<Output = ()> + Send>(
    connection: Connection,
    head: RequestHead,
    service: String,
    tell: impl Fn(Health) -> F + Send + Sync,
) {
    let mut backoff = Backoff::default();
    loop {
        let end = once(&connection, &head, &service, &mut backoff, &tell).await;
        match end {
            // A17: a server without the service is taken as healthy, for good.
            End::Unimplemented => return tell(Health::Unwatched).await,
            End::Gone => return,
            // A server that has no room for one more who watches may well serve: larder bounds
            // their number.
            End::Full => tell(Health::Unwatched).await,
            End::Failed => tell(Health::NotServing).await,
        }
        tokio::time::sleep(backoff.next(draw())).await;
    }
}

enum End {
    Unimplemented,
    /// The connection takes no more calls.
    Gone,
    Full,
    Failed,
}

async fn once<F: Future<Output = ()> + Send>(
    connection: &Connection,
    head: &RequestHead,
    service: &str,
    backoff: &mut Backoff,
    tell: &(impl Fn(Health) -> F + Send + Sync),
) -> End {
    let (mut sending, mut receiving) = match connection.stream(head, None) {
        Ok(halves) => halves,
        // As many calls wait for a stream as may: it is asked again later.
        Err(Failed::NotSent(NotSent::Full { .. })) => return End::Full,
        Err(Failed::NotSent(_)) => return End::Gone,
        Err(_) => return End::Failed,
    };
    if sending
        .send(|out| write_request(out, service))
        .await
        .is_ok()
    {
        sending.finish();
    }
    loop {
        match receiving.message().await {
            Ok(Some(message)) => {
                backoff.reset();
                let health = match status(&message) {
                    SERVING => Health::Serving,
                    _ => Health::NotServing,
                };
                tell(health).await;
            }
            Ok(None) => {
                let code = receiving.trailers().map(|trailers| trailers.code);
                return match code {
                    Some(Code::UNIMPLEMENTED) => End::Unimplemented,
                    Some(Code::RESOURCE_EXHAUSTED) => End::Full,
                    _ => End::Failed,
                };
            }
            Err(Failed::NotSent(_) | Failed::Lost(_)) => return End::Gone,
            Err(_) => return End::Failed,
        }
    }
}

/// `HealthCheckRequest`: the service is field 1, a string.
fn write_request(out: &mut Vec<u8>, service: &str) {
    out.push(1 << 3 | 2);
    let mut length = service.len();
    while length > 0x7f {
        out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    out.extend_from_slice(service.as_bytes());
}

/// `HealthCheckResponse.status`, field 1, an enum. What cannot be read is UNKNOWN, 0.
fn status(mut message: &[u8]) -> u64 {
    let mut status = 0;
    while let Some(tag) = varint(&mut message) {
        match tag & 7 {
            0 => match (tag >> 3, varint(&mut message)) {
                (1, Some(value)) => status = value,
                (_, Some(_)) => {}
                (_, None) => return 0,
            },
            2 => {
                let length = varint(&mut message).and_then(|it| usize::try_from(it).ok());
                let Some(rest) = length.and_then(|length| message.get(length..)) else {
                    return 0;
                };
                message = rest;
            }
            _ => return 0,
        }
    }
    status
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// From 0 to 1. Without randomness the jitter is left out.
pub(super) fn draw() -> f64 {
    let draw = rand::rngs::OsRng.try_next_u32();
    draw.map_or(0.5, |draw| f64::from(draw) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_as_protobuf_has_them() {
        let mut out = Vec::new();
        write_request(&mut out, "a.B");
        assert_eq!(out, b"\x0a\x03a.B");
        out.clear();
        write_request(&mut out, &"x".repeat(300));
        assert_eq!(&out[..3], b"\x0a\xac\x02");
        assert_eq!(out.len(), 303);
        for (message, wanted) in [
            (&b""[..], 0),
            (b"\x08\x01", 1),
            (b"\x08\x02", 2),
            (b"\x12\x01x\x08\x01\x18\x05", 1),
            (b"\x08", 0),
            (b"\x08\x01\x12\x7f", 0),
            (b"\x08\x01\x0d", 0),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 0),
        ] {
            assert_eq!(status(message), wanted, "{message:?}");
        }
    }
}
