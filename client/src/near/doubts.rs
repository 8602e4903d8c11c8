//! Keys whose writes ended without an answer, and may yet be carried out.

use std::collections::HashMap;

use bytes::Bytes;

use super::core::Nanos;

/// Most keys that are remembered by themselves, at most 1 KiB each by the server's default limit.
/// When there are more, all keys are in doubt.
const MAX_KEYS: usize = 1024;

/// Until when the write of a key may be carried out. What is read before that is not kept, for it
/// would hide the write for as long as entries may be stale.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    keys: HashMap<Bytes, Nanos>,
    all: Nanos,
}

impl Doubts {
    pub(super) fn add(&mut self, key: &[u8], until: Nanos, now: Nanos) {
        if let Some(known) = self.keys.get_mut(key) {
            *known = until.max(*known);
            return;
        }
        if self.keys.len() >= MAX_KEYS {
            self.keys.retain(|_, until| *until > now);
        }
        if self.keys.len() < MAX_KEYS {
            self.keys.insert(Bytes::copy_from_slice(key), until);
        } else {
            self.add_all(until);
        }
    }

    pub(super) fn add_all(&mut self, until: Nanos) {
        self.all = self.all.max(until);
    }

    /// Whether what was asked for then may have been read before the write.
    pub(super) fn has(&mut self, key: &[u8], sent: Nanos) -> bool {
        let until = self.keys.get(key).copied();
        if until.is_some_and(|until| until <= sent) {
            self.keys.remove(key);
        }
        sent < self.all.max(until.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_ends_by_itself_and_there_are_not_too_many() {
        let mut doubts = Doubts::default();
        doubts.add(b"k", 10, 0);
        doubts.add(b"k", 5, 0);
        assert!(doubts.has(b"k", 9) && !doubts.has(b"other", 9));
        assert!(doubts.has(b"k", 0) && doubts.has(b"k", 9));
        assert!(!doubts.has(b"k", 10) && doubts.keys.is_empty());

        for key in 0..MAX_KEYS {
            doubts.add(&key.to_be_bytes(), 100, 20);
        }
        assert!(!doubts.has(b"other", 20));
        doubts.add(b"one more", 100, 20);
        assert_eq!(doubts.keys.len(), MAX_KEYS);
        assert!(doubts.has(b"other", 99) && doubts.has(b"one more", 99));
        assert!(!doubts.has(b"other", 100));

        // Those that are over make room.
        doubts.add(b"k", 300, 200);
        assert_eq!(doubts.keys.len(), 1);
    }
}
