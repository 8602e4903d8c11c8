//! The catalogue of errors and its page say the same.

use larder_api::errors::{Code, Reason, markdown};

#[test]
fn docs_errors_md_is_generated_from_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
    let page = std::fs::read_to_string(path).expect("docs/errors.md can be read");
    assert!(
        page == markdown(),
        "docs/errors.md is out of date: run `cargo xtask gen`"
    );
}

#[test]
fn reasons_are_unique_and_upper_snake_case() {
    let mut seen = std::collections::HashSet::new();
    for reason in Reason::ALL {
        let name = reason.name();
        assert!(seen.insert(name), "{name} appears twice");
        assert!(
            name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'),
            "{name}"
        );
        assert_eq!(Reason::from_name(name), Some(*reason));
        assert_ne!(reason.spec().code, Code::Ok, "{name}");
    }
}

#[test]
fn codes_keep_their_numbers() {
    for (number, code) in Code::ALL.iter().enumerate() {
        assert_eq!(usize::from(code.number()), number);
    }
    for beyond in [17, 100, u32::MAX] {
        assert_eq!(Code::from_number(beyond), Code::Unknown);
    }
}
