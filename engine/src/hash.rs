//! SipHash-1-3 (Aumasson and Bernstein, INDOCRYPT 2012, with the rounds that
//! Rust's own tables use), under a secret of each account: one tenant can
//! neither crowd a table of another nor learn about its keys.

use std::hash::Hasher;

use larder_model::EntryKey;
use siphasher::sip::SipHasher13;

use crate::shard::record::space_bytes;

/// Hashes the keys of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher(SipHasher13);

impl KeyHasher {
    /// The hasher for the account `name` of an engine with the secret `seed`.
    pub(crate) fn derive(seed: &[u8; 16], name: &str) -> Self {
        let root = SipHasher13::new_with_key(seed);
        let half = |which: u8| {
            let mut hasher = root;
            hasher.write(name.as_bytes());
            hasher.write(&[0xff, which]);
            hasher.finish()
        };
        Self(SipHasher13::new_with_keys(half(0), half(1)))
    }

    pub(crate) fn at(&self, at: EntryKey<'_>) -> u64 {
        self.parts(space_bytes(at.namespace), at.key.as_bytes())
    }

    /// `space` is empty for the default namespace.
    pub(crate) fn parts(&self, space: &[u8], key: &[u8]) -> u64 {
        if space.is_empty() {
            return self.0.hash(key);
        }
        let mut hasher = self.0;
        hasher.write(space);
        hasher.write(&[0xff]);
        hasher.write(key);
        hasher.finish()
    }

    /// A number that nobody without the secret can guess.
    pub(crate) fn number(&self, salts: [u64; 2]) -> u64 {
        let mut hasher = self.0;
        hasher.write(b"number");
        hasher.write(&salts[0].to_le_bytes());
        hasher.write(&salts[1].to_le_bytes());
        hasher.finish()
    }
}
