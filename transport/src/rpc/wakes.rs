//! Which of the waiting calls of a connection can go on.
//!
//! Calls that are answered at once never come here. One that waits has a waker
//! of its own, so that a thousand that wait cost nothing when one is woken.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use crate::connection::StreamKey;

#[derive(Default)]
struct Woken {
    /// Each once, however often it was woken.
    keys: HashSet<StreamKey>,
    /// The connection's own waker.
    task: Option<Waker>,
}

/// The calls of one connection that were woken.
#[derive(Default)]
pub(crate) struct Wakes {
    woken: Mutex<Woken>,
    any: AtomicBool,
}

impl Wakes {
    /// Has `task` woken with the next call.
    pub(crate) fn register(&self, task: &Waker) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if !woken
            .task
            .as_ref()
            .is_some_and(|known| known.will_wake(task))
        {
            woken.task = Some(task.clone());
        }
    }

    /// Moves the woken calls to `keys`.
    #[inline]
    pub(crate) fn take(&self, keys: &mut Vec<StreamKey>) {
        if self.any.swap(false, Ordering::Acquire) {
            let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            keys.extend(woken.keys.drain());
        }
    }

    /// The waker of one call.
    pub(crate) fn waker(self: &Arc<Self>, key: StreamKey) -> Waker {
        Waker::from(Arc::new(CallWaker {
            wakes: Arc::clone(self),
            key,
        }))
    }
}

struct CallWaker {
    wakes: Arc<Wakes>,
    key: StreamKey,
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let lock = self.wakes.woken.lock();
        let mut woken = lock.unwrap_or_else(PoisonError::into_inner);
        woken.keys.insert(self.key);
        self.wakes.any.store(true, Ordering::Release);
        let task = woken.task.clone();
        drop(woken);
        if let Some(task) = task {
            task.wake();
        }
    }
}
