//! Settings that every call reads and that may change while the server runs.

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Different values that one process can take on, one after the other.
const VALUES: usize = 64;

/// A value that is read by every call, without a lock, a count, or a write to what
/// threads share: two loads of lines that nobody writes. Each value it ever had is
/// kept, so that readers may hold on to one; there are 64 at the most.
pub(crate) struct Live<T> {
    values: [OnceLock<T>; VALUES],
    current: AtomicUsize,
}

/// There were 64 different values already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worn;

impl<T: PartialEq> Live<T> {
    pub(crate) fn new(value: T) -> Self {
        let values = [const { OnceLock::new() }; VALUES];
        // It is empty.
        let _ = values[0].set(value);
        Self {
            values,
            current: AtomicUsize::new(0),
        }
    }

    /// True if it can become `value`.
    pub(crate) fn has_room(&self, value: &T) -> bool {
        let free = |slot: &OnceLock<T>| slot.get().is_none_or(|it| it == value);
        self.values.iter().any(free)
    }

    /// From now on it is `value`. For one thread at a time.
    pub(crate) fn set(&self, value: T) -> Result<(), Worn> {
        let known = self.values.iter().position(|it| it.get() == Some(&value));
        let free = || self.values.iter().position(|it| it.get().is_none());
        let place = known.or_else(free).ok_or(Worn)?;
        if known.is_none() {
            // It was empty a moment ago, and nobody else fills it.
            let _ = self.values[place].set(value);
        }
        self.current.store(place, Ordering::Release);
        Ok(())
    }
}

impl<T> Deref for Live<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        let current = self.current.load(Ordering::Acquire);
        self.values[current]
            .get()
            .expect("a value is there before it is the current one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_to_what_was_before_for_ever_and_to_new_values_64_times() {
        let live = Live::new(0);
        for value in 1..64 {
            assert!(live.has_room(&value));
            assert_eq!(live.set(value), Ok(()));
            assert_eq!(*live, value);
        }
        assert!(!live.has_room(&64));
        assert_eq!(live.set(64), Err(Worn));
        assert_eq!(*live, 63);
        assert_eq!(live.set(5), Ok(()));
        assert_eq!(*live, 5);
    }
}
