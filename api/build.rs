//! Compiles `proto/` without a `protoc`: `protox` parses it, `connectrpc-build`
//! writes the Rust.

use std::path::PathBuf;

const FILES: [&str; 6] = [
    "rpc.proto",
    "larder/cache/v1/entry.proto",
    "larder/cache/v1/cache_service.proto",
    "larder/accounts/v1/account_service.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
];

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    println!("cargo:rerun-if-changed={}", root.display());

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("larder.binpb");
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())?;

    connectrpc_build::Config::new()
        .descriptor_set(&descriptors)
        .files(&FILES)
        .gate_client_feature(true)
        .include_file("_connectrpc.rs")
        .emit_rerun_directives(false)
        .compile()
}
