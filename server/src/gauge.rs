//! Bytes that peers make the server hold, of all calls together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A sum with a limit.
#[derive(Debug)]
pub(crate) struct Gauge {
    bytes: AtomicUsize,
    limit: usize,
}

/// A part of the sum; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    gauge: Arc<Gauge>,
    bytes: usize,
}

/// The limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Gauge {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            limit,
        })
    }

    /// Nothing yet, to be added to.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held {
            gauge: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl Held {
    /// Adds to this part. Above the limit, what was added still counts until
    /// the part is dropped: its owner is about to give up.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), Full> {
        self.bytes += bytes;
        let before = self.gauge.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.gauge.limit {
            Err(Full)
        } else {
            Ok(())
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_until_they_are_dropped() {
        let gauge = Gauge::new(10);
        let (mut one, mut two) = (gauge.hold(), gauge.hold());
        assert_eq!(one.add(6), Ok(()));
        assert_eq!(two.add(4), Ok(()));
        assert_eq!(two.add(1), Err(Full));
        drop(two);
        assert_eq!(one.add(4), Ok(()));
        drop(one);
        assert_eq!(gauge.bytes.load(Ordering::Relaxed), 0);
    }
}
