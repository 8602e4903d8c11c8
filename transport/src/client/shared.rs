//! What the callers of a connection and its driver have in common.

use std::sync::{Mutex, MutexGuard};

use super::core::Core;
use crate::error_codes::ErrorCode;

/// A connection, under a lock that nobody holds for longer than it takes to encode a
/// message, or to read what one read brought.
pub(super) struct Shared(Mutex<Core>);

impl Shared {
    pub(super) const fn new(core: Core) -> Self {
        Self(Mutex::new(core))
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(|poisoned| {
            // A panic while a message was written left half a frame behind.
            self.0.clear_poison();
            let mut core = poisoned.into_inner();
            core.out.clear();
            core.fail(
                ErrorCode::INTERNAL_ERROR,
                "a caller panicked while it wrote",
            );
            core
        })
    }

    /// Acts on the connection, and then wakes those whom that concerns: the driver
    /// once for all that it finds to do.
    #[inline]
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let done = act(&mut core);
        let driver = match core.calls_driver {
            true => core.driver.take(),
            false => None,
        };
        let wake = std::mem::take(&mut core.wake);
        drop(core);
        for waker in wake {
            waker.wake();
        }
        if let Some(driver) = driver {
            driver.wake();
        }
        done
    }
}
