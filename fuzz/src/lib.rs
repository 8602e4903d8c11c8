//! What arbitrary bytes do to the transport.
//!
//! A target is a function of bytes that panics when a promise of the transport
//! is broken. The same functions run under libFuzzer (`fuzz/libfuzzer`, where a
//! nightly toolchain is installed) and in a loop of this crate's own on a stable
//! one (`cargo xtask fuzz`).
//!
//! | target | what it takes apart |
//! |---|---|
//! | `frames` | frames: read, written and read again, they are the same |
//! | `hpack_decode` | the HPACK decoder, against a model; its memory |
//! | `hpack_encode` | the HPACK encoder, read back by the decoder; games with the table's size |
//! | `sniff` | HTTP/2 or HTTP/1.1, however the first bytes are cut |
//! | `grpc_messages` | length-prefixed messages, however they are cut, on both lanes |
//! | `grpc_heads` | heads of requests: what is malformed, `grpc-timeout`, metadata |
//! | `connection_bytes` | a connection that gets any bytes, in any pieces, at any time |
//! | `connection_calls` | a connection whose client keeps to the protocol, most of the time |
//! | `client_bytes` | the client's role: a connection whose server sends any bytes |
//! | `client_answers` | the client's role: a server that keeps to the protocol, most of the time |

pub mod features;
pub mod harness;
mod input;
pub mod mutate;
mod random;
mod run;
mod targets;

pub use input::Input;
pub use random::Random;
pub use run::{Options, check_corpus, check_file, run};

/// A function of bytes, with what it starts from.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Takes the bytes apart. Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// The folder of its first inputs, in `fuzz/corpus`.
    pub corpus: &'static str,
    /// The longest input, bytes.
    pub max_bytes: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frames",
        run: targets::frames::run,
        corpus: "conversations",
        max_bytes: 4096,
    },
    Target {
        name: "hpack_decode",
        run: targets::hpack_decode::run,
        corpus: "hpack_decode",
        max_bytes: 2048,
    },
    Target {
        name: "hpack_encode",
        run: targets::hpack_encode::run,
        corpus: "hpack_encode",
        max_bytes: 1024,
    },
    Target {
        name: "sniff",
        run: targets::sniff::run,
        corpus: "sniff",
        max_bytes: 128,
    },
    Target {
        name: "grpc_messages",
        run: targets::grpc_messages::run,
        corpus: "grpc_messages",
        max_bytes: 2048,
    },
    Target {
        name: "grpc_heads",
        run: targets::grpc_heads::run,
        corpus: "grpc_heads",
        max_bytes: 1024,
    },
    Target {
        name: "connection_bytes",
        run: targets::connection_bytes::run,
        corpus: "conversations",
        max_bytes: 16_384,
    },
    Target {
        name: "connection_calls",
        run: targets::connection_calls::run,
        corpus: "connection_calls",
        max_bytes: 4096,
    },
    Target {
        name: "client_bytes",
        run: targets::client_bytes::run,
        corpus: "client_bytes",
        max_bytes: 16_384,
    },
    Target {
        name: "client_answers",
        run: targets::client_answers::run,
        corpus: "client_answers",
        max_bytes: 4096,
    },
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
