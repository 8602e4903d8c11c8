//! The suite that every [`Store`] must pass.
//!
//! - [`cases`]: a table of short stories, each of which shows one promise.
//! - [`Naive`]: an account as a sorted map and arithmetic, and
//!   [`drive`]: a seeded driver that does the same to a store and to the model,
//!   and compares every answer, and every counter after every operation.
//! - [`drive_once`]: the same for writes with a request id, whose stories
//!   [`check_cases`] plays too.
//!
//! Nothing here sleeps, asks a clock or draws a random number: a difference is
//! reported with its seed and step, and happens again.

mod cases;
mod driver;
mod life;
mod naive;
mod once;
mod operation;
mod random;
mod side;
mod stories;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::limits::Limits;
use crate::name::{AccountId, AccountName, AccountUid, EntryKey, Key, Namespace};
use crate::store::Store;

pub use cases::{Case, Step, cases};
pub use driver::{Difference, Drive, Driven, drive};
pub use naive::{Kept, Naive, Place};
pub use once::{OnceDriven, drive_once};
pub use random::Random;

/// Runs a future to its end on this thread, polling it as fast as it can.
///
/// Enough for a store in memory; one that waits for others needs them to make
/// progress by themselves.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

/// An account's id, from texts that are names.
///
/// # Panics
/// If `name` is none.
pub fn account(name: &str, uid: &str) -> AccountId {
    AccountId {
        name: AccountName::parse(name).expect("the suite's names are names"),
        uid: AccountUid::new(uid),
    }
}

/// A key of a namespace, from texts that are both.
///
/// # Panics
/// If they are not.
pub fn entry_key<'a>(namespace: &'a str, key: &'a [u8]) -> EntryKey<'a> {
    EntryKey {
        namespace: Namespace::parse(namespace).expect("the suite's namespaces are namespaces"),
        key: Key::parse(key, &Limits::default()).expect("the suite's keys are keys"),
    }
}

/// Runs every case, each on a store of its own.
///
/// # Panics
/// If a store does not do as a case says; the message names the case and step.
pub fn check_cases<S: Store>(mut make: impl FnMut() -> S) {
    for case in cases() {
        case.check(&make());
    }
    once::check_stories(&mut make);
}
