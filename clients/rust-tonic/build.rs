//! Compiles the talk's contract without a `protoc`: `protox` parses it,
//! `tonic-prost-build` writes the Rust.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!(
        "cargo:rerun-if-changed={}",
        proto.join("rpc.proto").display()
    );
    let descriptors = protox::compile(["rpc.proto"], [proto])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
