//! Compression on the general lane: connectrpc's, with what it makes of requests
//! counted among the bytes that the server receives.

use std::sync::Arc;

use bytes::Bytes;
use connectrpc::CompressionPolicy;
use connectrpc::ConnectError;
use connectrpc::compression::{
    CompressionProvider, CompressionRegistry, GzipProvider, ZstdProvider,
};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use crate::config::Compression;
use crate::gauge::{Gauge, Held};
use crate::layers::strict::RECEIVING_FULL;

/// What requests may be compressed by. Each message is bounded by the largest that is
/// taken, and all of them together, as long as they are kept, by `receiving`.
pub(super) fn registry(receiving: &Arc<Gauge>) -> CompressionRegistry {
    CompressionRegistry::new()
        .register(Counted::new(GzipProvider::new(), receiving))
        .register(Counted::new(ZstdProvider::new(), receiving))
}

/// The names in [`registry`].
const TAKEN: &str = "gzip, zstd";

/// What a request that is compressed in another way is told: gRPC's `compression.md`, and
/// Connect's "Unary-Response" and "Streaming-Response".
pub(super) fn taken(kind: &HeaderMap) -> (&'static str, HeaderValue) {
    let kind = kind
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |kind| kind.as_bytes());
    let name = if kind.starts_with(b"application/grpc") {
        "grpc-accept-encoding"
    } else if kind.starts_with(b"application/connect+") {
        "connect-accept-encoding"
    } else {
        "accept-encoding"
    };
    (name, HeaderValue::from_static(TAKEN))
}

/// Which answers are compressed, for callers who offer to read them.
pub(super) fn policy(compression: Compression) -> CompressionPolicy {
    match compression.answers_above {
        Some(bytes) => CompressionPolicy::default().with_min_size(bytes),
        // Values may be compressed already, and the client knows better.
        None => CompressionPolicy::disabled(),
    }
}

/// A way to compress, whose messages count once they are whole.
struct Counted<P> {
    way: P,
    receiving: Arc<Gauge>,
}

impl<P> Counted<P> {
    fn new(way: P, receiving: &Arc<Gauge>) -> Self {
        Self {
            way,
            receiving: Arc::clone(receiving),
        }
    }
}

/// A message that was made whole. It counts until nobody has a part of it.
struct Whole {
    message: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl<P: CompressionProvider> CompressionProvider for Counted<P> {
    fn name(&self) -> &'static str {
        self.way.name()
    }

    fn compress(&self, message: &[u8]) -> Result<Bytes, ConnectError> {
        self.way.compress(message)
    }

    fn decompressor<'a>(
        &self,
        message: &'a [u8],
    ) -> Result<Box<dyn std::io::Read + 'a>, ConnectError> {
        self.way.decompressor(message)
    }

    fn decompress_with_limit(&self, message: &[u8], max: usize) -> Result<Bytes, ConnectError> {
        let message = self.way.decompress_with_limit(message, max)?;
        let mut held = self.receiving.hold();
        held.add(message.len())
            .map_err(|_| ConnectError::unavailable(RECEIVING_FULL))?;
        Ok(Bytes::from_owner(Whole {
            message,
            _held: held,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_whole_counts_until_it_is_dropped() {
        let receiving = Gauge::new(2500);
        let registry = registry(&receiving);
        assert_eq!(registry.accept_encoding_header(), TAKEN);
        for encoding in ["gzip", "zstd"] {
            let packed = registry.compress(encoding, &[7; 1000]).expect("a message");
            assert!(packed.len() < 100);
            let whole = || registry.decompress_with_limit(encoding, packed.clone(), 1000);
            let (one, two) = (whole().expect("room"), whole().expect("room"));
            assert_eq!((&one[..], one.len()), (&two[..], 1000));
            let part = one.slice(..1);
            drop(one);
            let full = whole().expect_err("no room");
            assert_eq!(full.message.as_deref(), Some(RECEIVING_FULL));
            drop(part);
            drop(whole().expect("room"));
            drop(two);
            let small = registry.decompress_with_limit(encoding, packed.clone(), 999);
            assert!(small.is_err(), "larger than it may be");
        }
    }
}
