//! The Rust types read and write what stock protobuf does, byte for byte and field for
//! field: `proto/golden.jsonl` was written by protobuf for Python.

#![allow(clippy::unwrap_used, reason = "in a test, a surprise is a failure")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use buffa::type_registry::TypeRegistry;
use serde_json::Value;

/// The files of the contracts, as they import each other.
const FILES: [&str; 4] = [
    "rpc.proto",
    "larder/accounts/v1/account_service.proto",
    "larder/cache/v1/cache_service.proto",
    "larder/cache/v1/entry.proto",
];

fn proto() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto")
}

fn lines() -> Vec<Value> {
    let text = std::fs::read_to_string(proto().join("golden.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn registry() -> TypeRegistry {
    // Details inside messages are written by their fields.
    larder_api::register_details();
    let mut registry = TypeRegistry::new();
    larder_api::talk::__buffa::register_types(&mut registry);
    larder_api::cache_v1::__buffa::register_types(&mut registry);
    larder_api::accounts_v1::__buffa::register_types(&mut registry);
    registry
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What is wrong with a line: bytes must become its JSON, and its JSON its bytes.
fn check(registry: &TypeRegistry, line: &Value) -> Result<(), String> {
    let name = line["message"].as_str().unwrap();
    let url = format!("type.googleapis.com/{name}");
    let message = registry
        .json_any_by_url(&url)
        .ok_or("the Rust types have no such message")?;
    let golden = line["hex"].as_str().unwrap();
    let read = (message.to_json)(&bytes(golden))?;
    if read != line["json"] {
        return Err(format!("read as\n{read}\nnot\n{}", line["json"]));
    }
    let written = hex(&(message.from_json)(line["json"].clone())?);
    if written != golden {
        return Err(format!("written as\n{written}\nnot\n{golden}"));
    }
    Ok(())
}

#[test]
fn every_line_is_read_and_written_as_stock_protobuf_does() {
    let registry = registry();
    let wrong: Vec<_> = lines()
        .iter()
        .filter_map(|line| {
            let error = check(&registry, line).err()?;
            Some(format!("{} {}: {error}", line["message"], line["case"]))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_message_of_the_contracts_is_missing() {
    let compiled = protox::compile(FILES, [proto()]).unwrap();
    let mut messages = BTreeSet::new();
    for file in &compiled.file {
        if FILES.contains(&file.name()) {
            let mut open: Vec<_> = file
                .message_type
                .iter()
                .map(|message| (file.package().to_owned(), message))
                .collect();
            while let Some((path, message)) = open.pop() {
                if let Some(options) = &message.options
                    && options.map_entry()
                {
                    continue;
                }
                let name = format!("{path}.{}", message.name());
                open.extend(message.nested_type.iter().map(|it| (name.clone(), it)));
                messages.insert(name);
            }
        }
    }
    assert!(messages.len() > 60, "{messages:?}");
    let golden = lines();
    let golden = golden.iter().map(|line| line["message"].as_str().unwrap());
    let golden: BTreeSet<_> = golden.map(str::to_owned).collect();
    assert_eq!(
        golden, messages,
        "cd clients/python && python golden.py > ../../proto/golden.jsonl"
    );
}

#[test]
fn a_line_that_is_wrong_is_noticed() {
    let registry = registry();
    let lines = lines();
    let full = lines
        .iter()
        .find(|line| line["message"] == "larder.cache.v1.GetRequest" && line["case"] == "full 0")
        .unwrap();
    assert_eq!(check(&registry, full), Ok(()));
    let mut renumbered = full.clone();
    let hex = renumbered["hex"].as_str().unwrap().to_owned();
    // The namespace's tag: another field of the same type.
    assert!(hex.starts_with("0a"), "{hex}");
    renumbered["hex"] = format!("7a{}", &hex[2..]).into();
    assert!(check(&registry, &renumbered).is_err());
    let mut renamed = full.clone();
    renamed["message"] = "larder.cache.v1.GottenRequest".into();
    assert!(check(&registry, &renamed).is_err());
}
