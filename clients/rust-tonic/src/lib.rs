//! The contracts as stock gRPC for Rust generates them, in modules named after
//! their packages: `rpc` is the talk's, `larder::cache::v1` is larder's own.

include!(concat!(env!("OUT_DIR"), "/contract.rs"));
