//! The suite's messages and service in Rust, generated from `proto/`, and the
//! form in which the suite and its servers exchange them.

use std::io::{self, Read, Write};

use buffa::type_registry::{TypeRegistry, set_type_registry};
use buffa::{Message, MessageName};
use buffa_types::google::protobuf::Any;

#[allow(
    dead_code,
    missing_docs,
    unexpected_cfgs,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated; the comments of the .proto files are its documentation"
)]
mod generated {
    ::connectrpc::include_generated!();
}

pub(crate) use generated::connectrpc::conformance::v1::*;
pub(crate) use generated::google::rpc::Status as StatusDetails;

/// Longest message of the suite, bytes: it holds certificates.
const MAX_BYTES: u32 = 1024 * 1024;

/// Lets an [`Any`] be written as JSON by the fields of what it holds.
pub(crate) fn register_types() {
    let mut registry = TypeRegistry::new();
    __buffa::register_types(&mut registry);
    set_type_registry(registry);
}

/// A message of type `M` that is encoded already.
pub(crate) fn any<M: MessageName>(encoded: impl Into<bytes::Bytes>) -> Any {
    Any {
        type_url: M::TYPE_URL.to_owned(),
        value: encoded.into(),
        ..Any::default()
    }
}

/// Reads a message with four bytes of length before it.
///
/// # Errors
/// Those of `from`, and a message that is too long or cannot be decoded.
pub(crate) fn read<M: Message + Default>(from: &mut impl Read) -> anyhow::Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    anyhow::ensure!(length <= MAX_BYTES, "a message of {length} bytes");
    let mut content = vec![0; length as usize];
    from.read_exact(&mut content)?;
    Ok(M::decode_from_slice(&content)?)
}

/// Writes a message with four bytes of length before it.
///
/// # Errors
/// Those of `to`.
pub(crate) fn write(to: &mut impl Write, message: &impl Message) -> io::Result<()> {
    to.write_all(&message.encoded_len().to_be_bytes())?;
    to.write_all(&message.encode_to_vec())?;
    to.flush()
}
