//! What an input was seen to do, in place of the coverage that a stable toolchain
//! does not give: a target notes the answers it gets (error codes, kinds of
//! frames, orders of magnitude), and an input that showed something new is mutated
//! further.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};

thread_local! {
    static SEEN: RefCell<HashSet<u64>> = RefCell::default();
}

/// Takes note of something that the current input did.
pub fn note(what: impl Hash) {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(what);
    SEEN.with_borrow_mut(|seen| seen.insert(hash));
}

/// Takes note of a number by its order of magnitude.
pub fn note_size(what: &'static str, size: usize) {
    note((what, usize::BITS - size.leading_zeros()));
}

/// What the inputs since the last time did.
pub(crate) fn take() -> HashSet<u64> {
    SEEN.take()
}
