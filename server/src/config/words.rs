//! What is wrong with a value, in words of the file's and not of the program's.

/// What the types of the program are called in a file.
const WORDS: [(&str, &str); 8] = [
    ("expected usize", "expected a whole number"),
    ("expected u64", "expected a whole number"),
    ("expected u32", "expected a whole number"),
    ("expected f64", "expected a number"),
    ("expected a boolean", "expected true or false"),
    ("expected a sequence", "expected a list, as [\"…\", \"…\"]"),
    ("expected path string", "expected a path, as \"…\""),
    ("expected a string", "expected a text, as \"…\""),
];

/// A message of the deserializer, on one line and without the names of types.
pub(super) fn plain(message: &str) -> String {
    let mut text = message.replace('\n', ", ");
    for (theirs, ours) in WORDS {
        text = text.replace(theirs, ours);
    }
    match text.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected a table"),
        None => text,
    }
}
