//! Stubs of `rpc.Cache`, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../../proto";
    println!("cargo::rerun-if-changed={proto}/rpc.proto");
    let files = protox::compile(["rpc.proto"], [proto])?;
    tonic_prost_build::configure()
        // Values are shared, not copied.
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
