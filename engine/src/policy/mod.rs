//! Which entry goes when room is needed.
//!
//! A policy sees entries as slot numbers with a weight, keeps its order in
//! their `queue` links and what it knows of one in their `mark`, and is told
//! of five things: an entry came, was used, changed its weight, goes, or a
//! victim is wanted. It neither frees nor counts; that is the shard's.

mod ghost;
mod s3fifo;

pub(crate) use s3fifo::{GHOST_BYTES, S3Fifo};

/// What room is wanted of, and so what a queue's share is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scarce {
    /// Keys: every entry takes one, whatever its size.
    Keys,
    /// Bytes, of a byte quota or of the store's memory.
    Bytes,
}
