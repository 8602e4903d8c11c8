//! Compiles the protos of the conformance suite without a `protoc`: `protox`
//! parses them, `connectrpc-build` writes the Rust.

use std::path::PathBuf;

const FILES: [&str; 4] = [
    "connectrpc/conformance/v1/config.proto",
    "connectrpc/conformance/v1/server_compat.proto",
    "connectrpc/conformance/v1/service.proto",
    // What `grpc-status-details-bin` holds.
    "google/rpc/status.proto",
];

fn main() -> anyhow::Result<()> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let suite = here.join("proto");
    let ours = here.join("../proto");
    println!("cargo:rerun-if-changed={}", suite.display());
    println!("cargo:rerun-if-changed={}", ours.display());

    let mut compiler = protox::Compiler::new([&suite, &ours])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("conformance.binpb");
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())?;

    connectrpc_build::Config::new()
        .descriptor_set(&descriptors)
        .files(&FILES)
        .gate_client_feature(true)
        .include_file("_connectrpc.rs")
        .emit_rerun_directives(false)
        .compile()
}
