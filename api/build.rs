//! Compiles `proto/` without a `protoc`: `protox` parses it, `connectrpc-build`
//! writes the Rust.

use std::path::{Path, PathBuf};

const FILES: [&str; 6] = [
    "rpc.proto",
    "larder/cache/v1/entry.proto",
    "larder/cache/v1/cache_service.proto",
    "larder/accounts/v1/account_service.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
];

/// What those who run a server speak: not part of the contract, nor of its reflection.
const OPERATIONS: [&str; 5] = [
    "grpc/channelz/v1/channelz.proto",
    "opentelemetry/proto/common/v1/common.proto",
    "opentelemetry/proto/resource/v1/resource.proto",
    "opentelemetry/proto/trace/v1/trace.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
];

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    generate(&root, &FILES, "larder.binpb", "_connectrpc.rs")?;
    generate(&root, &OPERATIONS, "operations.binpb", "_operations.rs")
}

/// Writes the descriptors of some files, and their types.
fn generate(root: &Path, files: &[&str], descriptors: &str, include: &str) -> anyhow::Result<()> {
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(files)?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join(descriptors);
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())?;

    connectrpc_build::Config::new()
        .descriptor_set(&descriptors)
        .files(files)
        .gate_client_feature(true)
        .include_file(include)
        .emit_rerun_directives(false)
        .compile()
}
