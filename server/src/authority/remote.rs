//! Asking another server about tokens: one flight for each token, answers kept
//! for their `max_age`, a stale answer rather than an outage.
//!
//! How the three agree: a flight lasts as long as its first caller can wait
//! (at most [`ACCOUNTS_TIMEOUT`]); each caller waits only its own time left; a
//! flight nobody waits for any more is dropped, which cancels the call; a
//! caller with time left starts a flight again that ended for want of another
//! caller's time. A revoked token is useless within `max_age`, or, while the
//! Accounts server is away, within `max_age` + [`MAX_STALE`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use larder_api::errors::Reason;
use larder_api::wire::ACCOUNTS_TIMEOUT;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{Grant, Vouched, accounts_unavailable, token_invalid};
use crate::clock;
use crate::failure::Failure;
use crate::telemetry::trace_context::TraceContext;

/// How long an answer may serve after its `max_age` while the Accounts server
/// cannot be asked.
const MAX_STALE: Duration = Duration::from_secs(300);
/// Longest `max_age` that is believed.
const MAX_MAX_AGE: Duration = Duration::from_secs(3600);
/// How long a caller waits who could have a stale answer: a slow Accounts server
/// must not make every call slow.
const STALE_PATIENCE: Duration = Duration::from_millis(100);
/// How long "unknown token" is remembered.
const NEGATIVE_AGE: Duration = Duration::from_secs(1);
/// Most answers kept, about 300 bytes each; one more pushes any other out.
const MAX_ANSWERS: usize = 100_000;
/// Most refusals kept; apart from the answers, so that guessing tokens pushes
/// out nobody else's.
const MAX_REFUSALS: usize = 10_000;
/// Most that [`margin`] takes off.
const MAX_MARGIN: Duration = Duration::from_millis(20);
/// Most flights that one call starts or joins.
const MAX_FLIGHTS_PER_CALL: usize = 3;

/// An answer to "what does this token stand for?".
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Granted {
        grant: Arc<Grant>,
        max_age: Duration,
    },
    Unknown,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskError {
    /// The time given was up.
    TimedOut,
    /// The server is away or talks nonsense.
    Unavailable(String),
}

/// By how much the Accounts server is given less than the `limit` of a call, so
/// that its refusal can still travel.
pub(super) fn margin(limit: Duration) -> Duration {
    (limit / 10).min(MAX_MARGIN)
}

/// Asks once. `limit` bounds the call, and goes with it less a [`margin`]: a
/// callee may say that the time is up by so much before it is.
pub(crate) trait Ask: Send + Sync + 'static {
    ///
    /// `trace` is that of the call for which it is asked; of several that wait, the first.
    fn ask(
        &self,
        secret: String,
        limit: Duration,
        trace: Option<&TraceContext>,
    ) -> BoxFuture<'static, Result<Verdict, AskError>>;
}

type TokenDigest = [u8; 32];
type Flight = BoxFuture<'static, Result<Verdict, AskError>>;

struct Answer {
    grant: Arc<Grant>,
    fresh_until: Instant,
    stale_until: Instant,
}

impl Answer {
    fn vouched(&self) -> Vouched {
        Vouched {
            grant: Arc::clone(&self.grant),
            until: Some(self.fresh_until),
        }
    }
}

#[derive(Default)]
struct Known {
    answers: HashMap<TokenDigest, Answer>,
    refusals: HashMap<TokenDigest, Instant>,
    flights: HashMap<TokenDigest, (u64, WeakShared<Flight>)>,
    /// Number of the next flight.
    next_flight: u64,
}

impl Known {
    /// An answer that is still good.
    fn fresh(&self, digest: TokenDigest, now: Instant) -> Option<Result<Vouched, Failure>> {
        if let Some(answer) = self.answers.get(&digest)
            && now < answer.fresh_until
        {
            return Some(Ok(answer.vouched()));
        }
        let until = self.refusals.get(&digest)?;
        (now < *until).then(|| Err(token_invalid()))
    }

    fn wait_for(&self, flight: Shared<Flight>, digest: TokenDigest, now: Instant) -> Lookup {
        match self.answers.get(&digest) {
            Some(answer) if now < answer.stale_until => Lookup::WaitOr(flight, answer.vouched()),
            _ => Lookup::Wait(flight),
        }
    }
}

fn vouched(grant: Arc<Grant>, max_age: Duration) -> Vouched {
    Vouched {
        grant,
        until: Some(clock::instant() + max_age.min(MAX_MAX_AGE)),
    }
}

/// The flight's answer if it comes soon, else the stale one; the flight then
/// goes on without its caller, for those who come later.
async fn fresh_or(
    flight: Shared<Flight>,
    stale: Vouched,
    give_up: Instant,
) -> Result<Vouched, Failure> {
    let patience = give_up.min(clock::instant() + STALE_PATIENCE);
    match tokio::time::timeout_at(patience.into(), flight.clone()).await {
        Ok(Ok(Verdict::Granted { grant, max_age })) => Ok(vouched(grant, max_age)),
        Ok(Ok(Verdict::Unknown)) => Err(token_invalid()),
        Ok(Err(_)) => Ok(stale),
        Err(_) => {
            tokio::spawn(flight);
            Ok(stale)
        }
    }
}

/// Another Accounts server, with what it said lately.
pub(crate) struct Remote {
    ask: Box<dyn Ask>,
    known: Arc<Mutex<Known>>,
}

enum Lookup {
    Known(Result<Vouched, Failure>),
    Wait(Shared<Flight>),
    /// There is a stale answer that may serve.
    WaitOr(Shared<Flight>, Vouched),
}

impl Remote {
    pub(crate) fn new(ask: impl Ask) -> Self {
        Self {
            ask: Box::new(ask),
            known: Arc::default(),
        }
    }

    /// What a token stands for.
    pub(crate) async fn verify(
        &self,
        secret: &str,
        deadline: Option<Instant>,
        trace: Option<&TraceContext>,
    ) -> Result<Vouched, Failure> {
        let digest: TokenDigest = Sha256::digest(secret.as_bytes()).into();
        let now = clock::instant();
        let patience = now + ACCOUNTS_TIMEOUT;
        let give_up = deadline.map_or(patience, |at| at.min(patience));
        let too_late = give_up - margin(give_up.saturating_duration_since(now));
        if let Some(answer) = self.known.lock().fresh(digest, now) {
            return answer;
        }
        // Whoever only looks whether the answer is there at once, and would not wait
        // for it, asks nobody.
        tokio::task::yield_now().await;
        for _ in 0..MAX_FLIGHTS_PER_CALL {
            let flight = match self.lookup(digest, secret, give_up, trace) {
                Lookup::Known(answer) => return answer,
                Lookup::Wait(flight) => flight,
                Lookup::WaitOr(flight, stale) => {
                    return fresh_or(flight, stale, give_up).await;
                }
            };
            match tokio::time::timeout_at(give_up.into(), flight).await {
                Ok(Ok(Verdict::Granted { grant, max_age })) => return Ok(vouched(grant, max_age)),
                Ok(Ok(Verdict::Unknown)) => return Err(token_invalid()),
                Ok(Err(AskError::Unavailable(why))) => return self.stale(digest, &why),
                // The flight ended with the time of the caller that began it.
                Ok(Err(AskError::TimedOut)) if clock::instant() < too_late => {}
                Ok(Err(AskError::TimedOut)) | Err(_) => break,
            }
        }
        if deadline.is_some_and(|at| at <= patience) && clock::instant() >= too_late {
            let message = "the deadline passed while the Accounts server was asked";
            return Err(Failure::new(Reason::NotStarted, message));
        }
        self.stale(digest, "it did not answer in time")
    }

    fn lookup(
        &self,
        digest: TokenDigest,
        secret: &str,
        give_up: Instant,
        trace: Option<&TraceContext>,
    ) -> Lookup {
        let now = clock::instant();
        let mut known = self.known.lock();
        if let Some(answer) = known.fresh(digest, now) {
            return Lookup::Known(answer);
        }
        if let Some(flight) = known
            .flights
            .get(&digest)
            .and_then(|(_, weak)| weak.upgrade())
            && flight.peek().is_none()
        {
            return known.wait_for(flight, digest, now);
        }
        let limit = match known.answers.get(&digest) {
            Some(answer) if now < answer.stale_until => ACCOUNTS_TIMEOUT,
            _ => give_up.saturating_duration_since(now),
        };
        let asked = self.ask.ask(secret.to_owned(), limit, trace);
        let number = known.next_flight;
        known.next_flight += 1;
        let landing = Landing {
            known: Arc::clone(&self.known),
            digest,
            number,
        };
        let flight: Flight = Box::pin(async move {
            let result = asked.await;
            landing.record(&result);
            result
        });
        let flight = flight.shared();
        if let Some(weak) = flight.downgrade() {
            known.flights.insert(digest, (number, weak));
        }
        known.wait_for(flight, digest, now)
    }

    /// An answer past its age, while it may still serve.
    fn stale(&self, digest: TokenDigest, why: &str) -> Result<Vouched, Failure> {
        let known = self.known.lock();
        match known.answers.get(&digest) {
            Some(answer) if clock::instant() < answer.stale_until => Ok(answer.vouched()),
            _ => Err(accounts_unavailable(why)),
        }
    }
}

/// Records what a flight brought, and takes it off the list when it is dropped:
/// also when nobody waits for it any more.
struct Landing {
    known: Arc<Mutex<Known>>,
    digest: TokenDigest,
    number: u64,
}

impl Landing {
    fn record(&self, result: &Result<Verdict, AskError>) {
        let now = clock::instant();
        let mut known = self.known.lock();
        match result {
            Ok(Verdict::Granted { grant, max_age }) => {
                known.refusals.remove(&self.digest);
                if known.answers.len() >= MAX_ANSWERS
                    && !known.answers.contains_key(&self.digest)
                    && let Some(any) = known.answers.keys().next().copied()
                {
                    known.answers.remove(&any);
                }
                let fresh_until = now + (*max_age).min(MAX_MAX_AGE);
                let answer = Answer {
                    grant: Arc::clone(grant),
                    fresh_until,
                    stale_until: fresh_until + MAX_STALE,
                };
                known.answers.insert(self.digest, answer);
            }
            Ok(Verdict::Unknown) => {
                known.answers.remove(&self.digest);
                if known.refusals.len() >= MAX_REFUSALS {
                    known.refusals.clear();
                }
                known.refusals.insert(self.digest, now + NEGATIVE_AGE);
            }
            Err(_) => {}
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut known = self.known.lock();
        // A newer flight for the same token may be under way. Nothing may be
        // upgraded here: to drop the last of a flight takes this lock.
        if known
            .flights
            .get(&self.digest)
            .is_some_and(|(number, _)| *number == self.number)
        {
            known.flights.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests;
