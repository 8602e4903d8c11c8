//! How many calls an account has in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder_api::errors::Reason;
use larder_model::AccountName;

use crate::config::Admission;
use crate::failure::Failure;
use crate::methods::Method;

/// Which of its limits a call counts towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary,
    /// A dump or a load. It is a call, too.
    Stream,
}

impl Kind {
    pub(crate) fn of(method: &Method) -> Self {
        match method.is_stream() {
            true => Self::Stream,
            false => Self::Unary,
        }
    }
}

/// The calls of one account that wait, and its streams. Calls that are answered where
/// they were read are never in flight beside another of their thread, and not counted.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    calls: AtomicU32,
    streams: AtomicU32,
}

/// A call's place, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place {
    of: Arc<InFlight>,
    kind: Kind,
}

/// There is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    kind: Kind,
    most: u32,
}

/// How long to stay away: most calls end far sooner, and most streams far later.
const CALLS_DELAY: Duration = Duration::from_millis(100);
const STREAMS_DELAY: Duration = Duration::from_secs(1);

impl Full {
    pub(crate) fn failure(self, account: &AccountName) -> Failure {
        let most = self.most;
        let (what, delay) = match self.kind {
            Kind::Unary => ("calls", CALLS_DELAY),
            Kind::Stream => ("streams", STREAMS_DELAY),
        };
        let message = format!("account {account} is limited to {most} {what} at a time");
        Failure::new(Reason::ConcurrencyLimited, message).retry_after(delay)
    }
}

impl InFlight {
    /// Takes a place.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn take(self: &Arc<Self>, kind: Kind, limits: &Admission) -> Result<Place, Full> {
        let most = limits.max_calls_per_account;
        take_one(&self.calls, most).ok_or(Full {
            kind: Kind::Unary,
            most,
        })?;
        let most = limits.max_streams_per_account;
        if kind == Kind::Stream && take_one(&self.streams, most).is_none() {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(Full { kind, most });
        }
        Ok(Place {
            of: Arc::clone(self),
            kind,
        })
    }
}

fn take_one(taken: &AtomicU32, most: u32) -> Option<u32> {
    let one_more = |taken: u32| (taken < most).then_some(taken + 1);
    taken
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
        .ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.calls.fetch_sub(1, Ordering::Relaxed);
        if self.kind == Kind::Stream {
            self.of.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_and_given_back() {
        let limits = Admission {
            max_calls_per_account: 3,
            max_streams_per_account: 1,
            ..Admission::default()
        };
        let account = Arc::new(InFlight::default());
        let check = |kind: Kind, expected: Result<(), (Kind, u32)>| {
            let taken = account.take(kind, &limits);
            let told = taken
                .as_ref()
                .map(|_| ())
                .map_err(|full| (full.kind, full.most));
            assert_eq!(told, expected);
            taken.ok()
        };
        let stream = check(Kind::Stream, Ok(()));
        let _second = check(Kind::Stream, Err((Kind::Stream, 1)));
        let call = check(Kind::Unary, Ok(()));
        let _third = check(Kind::Unary, Ok(()));
        check(Kind::Unary, Err((Kind::Unary, 3)));
        drop(call);
        check(Kind::Stream, Err((Kind::Stream, 1)));
        drop(stream);
        let _stream = check(Kind::Stream, Ok(()));
        check(Kind::Unary, Ok(()));
    }
}
