//! Calls over a channel: to which server, how often, and how long they wait for one.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use larder_transport::client::{
    Failed, NotSent, Readiness, Receiving, RequestHead, Response, Sending,
};
use rand::{Rng as _, RngCore as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::attempt::{Head, Running};
use super::driver::{Ask, Asks, Published};
use super::ends::end_of;
use super::hedge::{Hedges, HedgingPolicy, Verdict};
use super::homes::Homes;
use super::lane::Lane;
use super::pick::{Lane as _, Pick, Picker, Ring, To};
use super::retry::{AttemptEnd, Attempts, MAX_ATTEMPTS, Next, RetryPolicy, Safety};
use super::service_config::Tries;
use super::throttle::Throttle;
use crate::interceptor::{AttemptWatch, Told};

/// Calls that wait for a connection at a time; one more fails.
const MAX_WAITING_CALLS: usize = 10_000;

/// Longest pause between transparent retries, of which there may be any number: a server that takes
/// connections and no calls is not asked in a loop.
const MAX_TRANSPARENT_PAUSE: Duration = Duration::from_millis(500);

/// Servers, and what calls to them have in common.
pub(crate) struct Balanced {
    picker: watch::Receiver<Published>,
    asks: Arc<Asks>,
    throttle: Option<Throttle>,
    waiting: AtomicUsize,
    hashes_keys: bool,
}

/// One call.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) heads: &'a dyn Heads,
    /// What this call has beside its head, as the metadata of another.
    pub(crate) metadata: Option<&'a RequestHead>,
    pub(crate) tries: &'a Tries,
    pub(crate) safety: Safety,
    /// Only then may it be hedged.
    pub(crate) reads: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) wait: Wait,
    pub(crate) to: To<'a>,
    /// Who is told of each attempt, if anybody is.
    pub(crate) told: Option<&'a Told>,
}

/// The heads of a method's calls.
pub(crate) trait Heads: Sync {
    /// The one for calls to this target, by its number.
    fn head(&self, target: usize) -> &RequestHead;
}

/// What a call does while no server can be reached (gRPC's `wait-for-ready.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It fails once all have failed; it waits for the first attempts.
    FailFast,
    /// It waits until its deadline.
    ForReady,
}

/// A stream that was opened.
pub(crate) struct Opened {
    pub(crate) sending: Sending,
    pub(crate) receiving: Receiving,
    /// Told of its end, if anybody is.
    pub(crate) attempt: Option<AttemptWatch>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// As its last attempt did.
    Ended(Result<Response, Failed>),
    /// Without one more attempt: there was nowhere to go.
    Unreached(Unreached),
}

/// Why a call found no server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreached {
    /// None could be reached, and why.
    NoServer(Arc<str>),
    /// Its time was up while it waited for one; why there was none, if that is known.
    TimedOut(Option<Arc<str>>),
    /// As many calls wait as may.
    TooMany,
    /// The server that it was for is none of the channel's any more.
    Unknown,
}

impl From<Unreached> for Outcome {
    fn from(unreached: Unreached) -> Self {
        Self::Unreached(unreached)
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer(why) => f.write_str(why),
            Self::TimedOut(None) => {
                f.write_str("the deadline passed before there was a connection")
            }
            Self::TimedOut(Some(why)) => {
                write!(
                    f,
                    "the deadline passed before there was a connection: {why}"
                )
            }
            Self::Unknown => f.write_str("the server is no longer one of the client's"),
            Self::TooMany => write!(f, "{MAX_WAITING_CALLS} calls wait for a connection already"),
        }
    }
}

impl std::error::Error for Unreached {}

/// A call that has ended, and what was done for it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    /// Attempts before the last that a server may have seen, and how they ended.
    pub(crate) earlier: Vec<Result<Response, Failed>>,
    /// Attempts that counted for nothing.
    pub(crate) transparent: u32,
    /// Attempts beside the first of a call that is hedged.
    pub(crate) hedges: u32,
    /// How long no attempt was under way after the first.
    pub(crate) delay: Duration,
}

/// Holds a place among the calls that wait.
struct Place<'a>(&'a AtomicUsize);

impl Balanced {
    pub(crate) fn new(
        picker: watch::Receiver<Published>,
        asks: Arc<Asks>,
        throttle: Option<Throttle>,
        hashes_keys: bool,
    ) -> Self {
        Self {
            picker,
            asks,
            throttle,
            waiting: AtomicUsize::new(0),
            hashes_keys,
        }
    }

    /// Whether a key belongs to one of the servers.
    pub(crate) const fn hashes_keys(&self) -> bool {
        self.hashes_keys
    }

    /// Where a call with this key goes.
    pub(crate) fn to_key(&self, key: Option<&[u8]>) -> To<'static> {
        let key = key.filter(|_| self.hashes_keys);
        key.map_or(To::Any, |key| To::Key(Ring::hash(key)))
    }

    /// The servers that keys belong to, once they are known; `None` where keys belong to none.
    /// Connects to none of them.
    pub(crate) async fn homes(&self, call: Call<'_>) -> Result<Option<Homes>, Unreached> {
        if !self.hashes_keys {
            return Ok(None);
        }
        let mut picker = self.picker.clone();
        let mut place = None;
        loop {
            let why = match &*picker.borrow_and_update() {
                Picker::RingHash(ring) => {
                    return Ok(Some(Homes::new(
                        Arc::clone(ring.ring()),
                        ring.keeps_places(),
                    )));
                }
                Picker::Failing(why) if call.wait == Wait::FailFast => {
                    return Err(Unreached::NoServer(Arc::clone(why)));
                }
                Picker::Failing(why) => Some(Arc::clone(why)),
                _ => None,
            };
            if place.is_none() {
                place = Some(self.place()?);
            }
            self.asks.put(Ask::Connect(None));
            changed(&mut picker, call.deadline, why).await?;
        }
    }

    /// Makes a unary call. `message` appends the request to the bytes that it is given; it runs
    /// once for each attempt.
    pub(crate) async fn unary(
        &self,
        call: Call<'_>,
        message: &mut (impl FnMut(&mut Vec<u8>) + Send),
    ) -> Done {
        match call.tries {
            Tries::Hedge(policy) if call.reads => {
                // It holds several attempts, for which other calls need no place.
                Box::pin(self.hedged(call, policy, message)).await
            }
            Tries::Retry(policy) => self.retried(call, Some(policy), message).await,
            Tries::Once | Tries::Hedge(_) => self.retried(call, None, message).await,
        }
    }

    /// Opens a stream in either direction, or in both. It is tried again only where it did not
    /// leave.
    pub(crate) async fn stream(&self, call: Call<'_>) -> Result<Opened, Outcome> {
        let mut transparent = 0;
        loop {
            let lane = self.lane(&call).await?;
            let mut head = Head::new(&call, lane.target(), 0);
            let mut attempt = head.told(&call, &lane, 0);
            let deadline = call.deadline.map(Instant::into_std);
            let failed = match lane.connection().stream(head.get(), deadline) {
                Ok((sending, receiving)) => {
                    return Ok(Opened {
                        sending,
                        receiving,
                        attempt,
                    });
                }
                Err(failed) => failed,
            };
            if let Some(attempt) = &mut attempt {
                attempt.failed(&failed);
            }
            match failed {
                Failed::NotSent(NotSent::Closed(_) | NotSent::Closing) => {
                    transparent += 1;
                    pause(transparent, call.deadline).await;
                }
                failed => return Err(Outcome::Ended(Err(failed))),
            }
        }
    }

    /// Waits until a call would find a server, or none can be reached.
    pub(crate) async fn ready(&self, call: Call<'_>) -> Result<(), Unreached> {
        self.lane(&call).await.map(drop)
    }

    async fn retried(
        &self,
        call: Call<'_>,
        policy: Option<&RetryPolicy>,
        message: &mut (impl FnMut(&mut Vec<u8>) + Send),
    ) -> Done {
        let mut attempts = Attempts::new(call.safety);
        let mut done = Done::default();
        let mut idle_since: Option<Instant> = None;
        loop {
            let lane = self.lane(&call).await;
            done.transparent = attempts.transparent();
            if let Some(since) = idle_since {
                done.delay += since.elapsed();
            }
            let lane = match lane {
                Ok(lane) => lane,
                Err(unreached) => return done.with(unreached.into()),
            };
            let result = Running::start(&call, lane, attempts.previous(), message).await;
            let end = end_of(&result);
            if end == AttemptEnd::Ok {
                if let Some(throttle) = &self.throttle {
                    throttle.succeeded();
                }
                return done.with(Outcome::Ended(result));
            }
            idle_since = Some(Instant::now());
            // As many wait for a stream as may: asking again would only add to them.
            let is_full = matches!(result, Err(Failed::NotSent(NotSent::Full { .. })));
            let draw = rand::rng().random();
            let next = attempts.after(end, policy, self.throttle.as_ref(), draw);
            let ends = |at: Instant| call.deadline.is_some_and(|deadline| deadline <= at);
            match next {
                Next::Again(delay) if !ends(Instant::now() + delay) => {
                    done.earlier.push(result);
                    tokio::time::sleep(delay).await;
                }
                Next::Transparent if !is_full && !ends(Instant::now()) => {
                    pause(attempts.transparent(), call.deadline).await;
                }
                // What is known now says more than a deadline that passes during a pause.
                _ => return done.with(Outcome::Ended(result)),
            }
        }
    }

    async fn hedged(
        &self,
        call: Call<'_>,
        policy: &HedgingPolicy,
        message: &mut (impl FnMut(&mut Vec<u8>) + Send),
    ) -> Done {
        let began = Instant::now();
        let throttle = self.throttle.as_ref();
        let mut hedges = Hedges::new(policy, Duration::ZERO);
        let mut running: Vec<Running> = Vec::new();
        let mut done = Done::default();
        loop {
            let now = began.elapsed();
            if hedges.due().is_some_and(|due| due <= now) {
                // While others are under way nothing is waited for but them.
                let lane = match running.is_empty() {
                    true => match self.lane(&call).await {
                        Ok(lane) => Some(lane),
                        Err(unreached) => return done.with(unreached.into()),
                    },
                    false => self.lane_now(&call),
                };
                match lane {
                    None => hedges.put_off(now),
                    Some(lane) if hedges.start(began.elapsed(), throttle) => {
                        done.hedges = hedges.started() - 1;
                        running.push(Running::start(&call, lane, done.hedges, message));
                    }
                    Some(_) => {}
                }
            }
            // A server may ask for a pause that is longer than the call.
            let in_time = |due| call.deadline.is_none_or(|deadline| began + due < deadline);
            if running.is_empty() && !hedges.due().is_some_and(in_time) {
                // Nothing is left that could end better than the last did.
                let last = done.earlier.pop();
                let outcome = last.map_or(Unreached::TimedOut(None).into(), Outcome::Ended);
                return done.with(outcome);
            }
            let Some((previous, result)) = first(&mut running, began, hedges.due()).await else {
                continue;
            };
            let is_full = matches!(result, Err(Failed::NotSent(NotSent::Full { .. })));
            match hedges.ended(end_of(&result), began.elapsed(), throttle) {
                Verdict::Wait => done.earlier.push(result),
                Verdict::Transparent if !is_full => {
                    done.transparent += 1;
                    let lane = match running.is_empty() {
                        true => {
                            pause(done.transparent, call.deadline).await;
                            match self.lane(&call).await {
                                Ok(lane) => Some(lane),
                                Err(unreached) => return done.with(unreached.into()),
                            }
                        }
                        // Once at the most for each that was under way.
                        false => self
                            .lane_now(&call)
                            .filter(|_| done.transparent < MAX_ATTEMPTS),
                    };
                    match lane {
                        Some(lane) => running.push(Running::start(&call, lane, previous, message)),
                        None => hedges.give_up(),
                    }
                }
                _ => return done.with(Outcome::Ended(result)),
            }
        }
    }

    /// Where a call goes, if that is somewhere now.
    fn lane_now(&self, call: &Call<'_>) -> Option<Arc<Lane>> {
        match pick(&self.picker.borrow(), call.to) {
            Pick::To(lane) => Some(Arc::clone(lane)),
            _ => None,
        }
    }

    /// Where a call goes; waits for it if need be.
    async fn lane(&self, call: &Call<'_>) -> Result<Arc<Lane>, Unreached> {
        match self.lane_now(call) {
            Some(lane) => Ok(lane),
            None => self.wait(call).await,
        }
    }

    async fn wait(&self, call: &Call<'_>) -> Result<Arc<Lane>, Unreached> {
        let _place = self.place()?;
        let mut picker = self.picker.clone();
        let mut why = None;
        loop {
            let full = {
                let seen = picker.borrow_and_update();
                match pick(&seen, call.to) {
                    Pick::To(lane) => return Ok(Arc::clone(lane)),
                    Pick::Wait { connect } => {
                        self.asks.put(Ask::Connect(connect));
                        None
                    }
                    Pick::Full(lane) => {
                        if lane.asks_for_more() {
                            self.asks.put(Ask::More(lane.id()));
                        }
                        if !lane.may_grow() {
                            // Its turn comes with a stream that ends.
                            return Ok(Arc::clone(lane));
                        }
                        Some(lane.connection().clone())
                    }
                    Pick::Fail(failure) if call.wait == Wait::FailFast => {
                        return Err(Unreached::NoServer(Arc::clone(failure)));
                    }
                    Pick::Fail(failure) => {
                        why = Some(Arc::clone(failure));
                        None
                    }
                    Pick::Unknown => return Err(Unreached::Unknown),
                }
            };
            let room = async {
                match &full {
                    Some(connection) => drop(connection.changed(Readiness::Full).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = changed(&mut picker, call.deadline, why.clone()) => ended?,
                () = room => {}
            }
        }
    }

    fn place(&self) -> Result<Place<'_>, Unreached> {
        let place = Place(&self.waiting);
        match self.waiting.fetch_add(1, Ordering::Relaxed) {
            waiting if waiting < MAX_WAITING_CALLS => Ok(place),
            _ => Err(Unreached::TooMany),
        }
    }
}

impl Default for Done {
    /// Nothing was done yet.
    fn default() -> Self {
        Self {
            outcome: Outcome::Unreached(Unreached::TimedOut(None)),
            earlier: Vec::new(),
            transparent: 0,
            hedges: 0,
            delay: Duration::ZERO,
        }
    }
}

impl Done {
    fn with(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for another picker, until the deadline. `why` there is nothing to go to, if that is known.
async fn changed(
    picker: &mut watch::Receiver<Published>,
    deadline: Option<Instant>,
    why: Option<Arc<str>>,
) -> Result<(), Unreached> {
    let late = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        changed = picker.changed() => match changed {
            Ok(()) => Ok(()),
            Err(_) => Err(Unreached::NoServer("the client's runtime has ended".into())),
        },
        () = late => Err(Unreached::TimedOut(why)),
    }
}

fn pick<'p>(picker: &'p Published, to: To<'_>) -> Pick<'p, Arc<Lane>> {
    let draw = match picker {
        Picker::LeastRequest(_) | Picker::RingHash(_) => rand::rng().next_u64(),
        _ => 0,
    };
    picker.pick(draw, to)
}

/// The first attempt to end, which is taken out; `None` when the next is due before.
async fn first(
    running: &mut Vec<Running>,
    began: Instant,
    due: Option<Duration>,
) -> Option<(u32, Result<Response, Failed>)> {
    let next = async {
        match due {
            Some(due) => tokio::time::sleep_until(began + due).await,
            None => std::future::pending().await,
        }
    };
    let ended = poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(result) = Pin::new(&mut running[at]).poll(cx) {
                return Poll::Ready((running.swap_remove(at).previous, result));
            }
        }
        Poll::Pending
    });
    tokio::select! {
        biased;
        ended = ended => Some(ended),
        () = next => None,
    }
}

/// Before a transparent retry: none before the first, which nearly always finds another connection.
/// Over at the call's deadline, which then ends it.
async fn pause(transparent: u32, deadline: Option<Instant>) {
    if transparent > 1 {
        let pause = Duration::from_millis(1 << transparent.min(12));
        let until = Instant::now() + pause.min(MAX_TRANSPARENT_PAUSE);
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        tokio::time::sleep_until(until).await;
    }
}
