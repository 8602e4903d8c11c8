//! The contract of larder in Rust: the types generated from `proto/`, the
//! catalogue of errors, and the limits of the wire.
//!
//! Nothing here decides anything: the server speaks this contract, the client
//! understands it, and the stores know nothing of it.

pub mod errors;
pub mod wire;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated; the comments of the .proto files are its documentation"
)]
mod generated {
    connectrpc::include_generated!();
}

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated; the comments of the .proto files are its documentation"
)]
mod operations {
    include!(concat!(env!("OUT_DIR"), "/_operations.rs"));
}

pub use operations::grpc::channelz::v1 as channelz_v1;
/// OTLP: how traces leave a server (OpenTelemetry protocol, version 1).
pub mod otlp {
    pub use super::operations::opentelemetry::proto::collector::trace::v1 as collector;
    pub use super::operations::opentelemetry::proto::common::v1 as common;
    pub use super::operations::opentelemetry::proto::resource::v1 as resource;
    pub use super::operations::opentelemetry::proto::trace::v1 as trace;
}

pub use generated::google::rpc as google_rpc;
pub use generated::larder::accounts::v1 as accounts_v1;
pub use generated::larder::cache::v1 as cache_v1;
pub use generated::rpc as talk;

/// Well-known types as they stand in the messages.
pub use buffa_types::google::protobuf;

/// Has the details of an error inside a message — of one item of a batch — written
/// in JSON as protobuf says, by their fields. Without it they stand there as
/// base64, which clients that keep to the mapping cannot read. Does so once.
pub fn register_details() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mut registry = buffa::type_registry::TypeRegistry::new();
        google_rpc::__buffa::register_types(&mut registry);
        buffa::type_registry::set_type_registry(registry);
    });
}

/// The compiled contract, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/larder.binpb"));
