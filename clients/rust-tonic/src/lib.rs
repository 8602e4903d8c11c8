//! The talk's contract as stock gRPC for Rust generates it.

/// `package rpc`.
pub mod rpc {
    tonic::include_proto!("rpc");
}
