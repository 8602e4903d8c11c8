//! The targets, a file each.

pub(crate) mod client_answers;
pub(crate) mod client_bytes;
pub(crate) mod connection_bytes;
pub(crate) mod connection_calls;
pub(crate) mod frames;
pub(crate) mod grpc_heads;
pub(crate) mod grpc_messages;
pub(crate) mod hpack_decode;
pub(crate) mod hpack_encode;
pub(crate) mod sniff;
