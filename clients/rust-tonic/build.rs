//! Compiles the contracts without a `protoc`: `protox` parses them,
//! `tonic-prost-build` writes the Rust.

use std::error::Error;
use std::path::PathBuf;

const CONTRACT: [&str; 2] = ["rpc.proto", "larder/cache/v1/cache_service.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    let descriptors = protox::compile(CONTRACT, [proto])?;
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("contract.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
