//! Every first input of every target holds.

#![allow(clippy::unwrap_used, reason = "in a test, a surprise is a failure")]

use std::path::Path;

use larder_fuzz::{TARGETS, check_corpus};

#[test]
fn every_corpus_holds() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let count = check_corpus(target, &corpora).unwrap();
        assert!(count > 0, "{} has no corpus", target.name);
    }
}
