//! One call, from its head to its last frame: what `admit` finds out, what the
//! handler leaves, and what `finish` logs.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use larder_accounts::Action;
use larder_api::errors::{Code, Reason};
use larder_api::wire::SMALL_REPLY_BYTES;
use larder_model::{EntryKey, Mode, Namespace, Set, Store, StoreError, Time, Written};
use tokio::sync::OwnedSemaphorePermit;

use crate::clock;
use crate::connection::{Connection, Identity};
use crate::core::Core;
use crate::failure::{Contract, Failure, store_failure};
use crate::gauge::{Gauge, Held};
use crate::in_flight::{Kind, Place};
use crate::layers::admit::{Fields, overloaded};
use crate::layers::attempt::Attempt;
use crate::methods::Method;
use crate::telemetry::context::CallContext;
use crate::telemetry::histogram::Tally;
use crate::telemetry::trace_context::TraceContext;

/// Items of a long call between two looks at the clock.
const ITEMS_PER_LOOK: usize = 16;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Code,
    pub(crate) reason: Option<Reason>,
}

impl Outcome {
    pub(crate) const OK: Self = Self {
        code: Code::Ok,
        reason: None,
    };
}

/// A point in time, for the server and for the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    pub(crate) time: Time,
    /// The access log takes no line of a call that went well.
    pub(crate) log_is_full: bool,
}

/// One call.
pub(crate) struct Call<S: Store> {
    /// What is called.
    pub(crate) method: &'static Method,
    /// Where it came from, and what it shares with all other calls.
    pub(crate) connection: Arc<Connection<S>>,
    /// When its head was read.
    pub(crate) started: Instant,
    /// When the caller gives up.
    pub(crate) deadline: Option<Instant>,
    /// The moment of all that a call does that is answered where it was read. Its
    /// parts are too short to ask the machine for the time in between.
    pub(crate) moment: Option<Moment>,
    /// Metadata `dry-run`; may only switch it on.
    pub(crate) dry_run: Mode,
    /// Whether it was sent before.
    pub(crate) attempt: Attempt,
    /// True for gRPC and gRPC-Web.
    pub(crate) is_grpc: bool,
    /// What its head says of traces and of tries before.
    pub(crate) context: Option<Box<CallContext>>,
    /// Bytes of its messages, without framing.
    pub(crate) request_bytes: Tally,
    pub(crate) response_bytes: Tally,
    /// The caller, if it was known from the beginning.
    known_caller: Option<Arc<Identity<S>>>,
    /// The caller, once it was found out.
    found_caller: OnceLock<Arc<Identity<S>>>,
    outcome: OnceLock<Outcome>,
    /// A handler took the call over: errors before that are the protocol
    /// layer's.
    handled: AtomicBool,
    /// A mutation began: a deadline after that may have had an effect.
    mutating: AtomicBool,
    accounts_wait_ns: AtomicU64,
    skipped: AtomicU64,
    rare: OnceLock<Box<Rare>>,
    /// The call's place among those in flight; given back when it is dropped.
    place: OnceLock<OwnedSemaphorePermit>,
    /// The same among those of its account.
    account_place: OnceLock<Place>,
}

/// What few calls have.
#[derive(Default)]
struct Rare {
    /// The credential of a stream, which is asked about again while it lasts.
    secret: OnceLock<Box<str>>,
    /// Why its body was refused while it was read.
    refused: OnceLock<Failure>,
    /// What its reply holds.
    reply: OnceLock<Held>,
    /// What it is about, for the audit log.
    concerns: OnceLock<String>,
    /// Its request said that nothing is to be changed.
    dry: OnceLock<()>,
    /// The trace that it is part of.
    trace_id: OnceLock<Box<str>>,
}

impl<S: Store> Call<S> {
    /// A call whose caller may be known already.
    pub(crate) fn new(
        method: &'static Method,
        connection: Arc<Connection<S>>,
        started: Instant,
        identity: Option<Arc<Identity<S>>>,
    ) -> Self {
        Self {
            method,
            connection,
            started,
            deadline: None,
            moment: None,
            dry_run: Mode::Apply,
            attempt: Attempt::First,
            is_grpc: true,
            context: None,
            request_bytes: Tally::new(),
            response_bytes: Tally::new(),
            known_caller: identity,
            found_caller: OnceLock::new(),
            outcome: OnceLock::new(),
            handled: AtomicBool::new(false),
            mutating: AtomicBool::new(false),
            accounts_wait_ns: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            rare: OnceLock::new(),
            place: OnceLock::new(),
            account_place: OnceLock::new(),
        }
    }

    /// Reads what the head says for who watches calls.
    pub(crate) fn read_context(&mut self, head: &impl Fields) {
        let tracer = self.connection.core.telemetry.tracer.as_deref();
        self.context = CallContext::read(head, tracer, &self.connection.meter.random);
    }

    /// Tries before this one, as its caller says.
    pub(crate) fn previous_attempts(&self) -> u32 {
        self.context.as_ref().map_or(0, |it| it.previous_attempts)
    }

    /// True if it began and ends in one turn of its connection: its end is then that of the turn.
    #[inline]
    pub(crate) fn ends_with_turn(&self) -> bool {
        self.moment
            .is_some_and(|moment| moment.instant == self.started)
    }

    /// The trace that calls made for this one are part of.
    pub(crate) fn trace_out(&self) -> Option<&TraceContext> {
        self.context.as_ref()?.outgoing()
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// What outlives it, for the next call.
    pub(crate) fn into_parts(self) -> (Arc<Connection<S>>, Option<Arc<Identity<S>>>) {
        let caller = match self.known_caller {
            None => self.found_caller.into_inner(),
            known => known,
        };
        (self.connection, caller)
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        self.moment
            .map_or_else(clock::instant, |moment| moment.instant)
    }

    /// What all calls share.
    pub(crate) fn core(&self) -> &Core<S> {
        &self.connection.core
    }

    /// Holds a place among the calls in flight.
    pub(crate) fn hold(&self, place: OwnedSemaphorePermit) {
        // Taken once, by `admit`.
        let _ = self.place.set(place);
    }

    /// Takes a place among its account's calls in flight. A call that is answered
    /// where it was read needs none.
    ///
    /// # Errors
    /// The account has as many as it may.
    pub(crate) fn hold_of_account(&self, identity: &Identity<S>) -> Result<(), Failure> {
        if self.moment.is_some() || self.account_place.get().is_some() {
            return Ok(());
        }
        let in_flight = &identity.tenant.in_flight;
        let kind = Kind::of(self.method);
        let place = in_flight.take(kind, &self.core().admission);
        let place = place.map_err(|full| full.failure(identity.tenant.name()))?;
        // Looked at above, and nobody else takes it.
        let _ = self.account_place.set(place);
        Ok(())
    }

    /// What the store is told of this call. `validate_only` is the request's
    /// field, where it has one.
    pub(crate) fn store_call(&self, validate_only: bool) -> larder_model::Call {
        let clock = &self.core().clock;
        let (now, deadline) = match self.moment {
            // It does not wait, so there is nothing to give up.
            Some(moment) => (moment.time, None),
            None => (clock.now(), self.deadline.map(|at| clock.time_of(at))),
        };
        larder_model::Call {
            now,
            deadline,
            mode: self.mode(validate_only),
        }
    }

    /// Writes an entry. A call that is answered where it was read is given up where
    /// it would have to wait: there, nothing may have been begun.
    pub(crate) async fn set(
        &self,
        account: &S::Account,
        store_call: larder_model::Call,
        set: Set<'_>,
    ) -> Result<Written, StoreError> {
        let store = &self.core().store;
        let written = match self.moment {
            None => store.set(account, store_call, set).await,
            Some(_) => match store.set_now(account, store_call, set) {
                Some(written) => written,
                None => std::future::pending().await,
            },
        };
        if let Ok(written) = &written {
            self.count_set(written, store_call.mode);
        }
        written
    }

    pub(crate) fn count_set(&self, written: &Written, mode: Mode) {
        if let (Written::Applied(_), Mode::Apply, Some(identity)) = (written, mode, self.identity())
        {
            identity.meter.sets.add(1);
        }
    }

    /// Whether the call takes effect.
    pub(crate) fn mode(&self, validate_only: bool) -> Mode {
        if validate_only {
            Mode::DryRun
        } else {
            self.dry_run
        }
    }

    /// Time left; `None` without a deadline.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.deadline
            .map(|at| at.saturating_duration_since(self.now()))
    }

    /// The caller, once known.
    pub(crate) fn identity(&self) -> Option<&Identity<S>> {
        self.caller().map(|identity| &**identity)
    }

    /// The same, to be kept.
    pub(crate) fn shared_identity(&self) -> Option<Arc<Identity<S>>> {
        self.caller().cloned()
    }

    #[inline]
    fn caller(&self) -> Option<&Arc<Identity<S>>> {
        match &self.known_caller {
            None => self.found_caller.get(),
            known => known.as_ref(),
        }
    }

    /// The caller, for handlers of methods that need one.
    pub(crate) fn known(&self) -> Result<&Identity<S>, Failure> {
        self.identity()
            .ok_or_else(|| Failure::new(Reason::TokenMissing, "the call carries no credential"))
    }

    pub(crate) fn set_identity(&self, identity: Arc<Identity<S>>) {
        // Set once: by `admit`, or by the talk's handlers, never by both.
        let _ = self.found_caller.set(identity);
    }

    /// Marks that the handler took over.
    pub(crate) fn begin_handling(&self) {
        self.handled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn was_handled(&self) -> bool {
        self.handled.load(Ordering::Relaxed)
    }

    /// Refuses a mutation whose caller has given up, and marks that one begins.
    pub(crate) fn begin_mutation(&self) -> Result<(), Failure> {
        if self.deadline.is_some_and(|at| at <= self.now()) {
            return Err(self.deadline_failure());
        }
        self.mutating.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Looks every few items of a long call whether its caller still waits.
    ///
    /// # Errors
    /// The deadline has passed.
    pub(crate) fn goes_on(&self, item: usize) -> Result<(), Failure> {
        let is_over = |at: Instant| at <= self.now();
        if item % ITEMS_PER_LOOK == ITEMS_PER_LOOK - 1 && self.deadline.is_some_and(is_over) {
            return Err(self.deadline_failure());
        }
        Ok(())
    }

    /// What to say when the deadline has passed.
    pub(crate) fn deadline_failure(&self) -> Failure {
        if self.mutating.load(Ordering::Relaxed) {
            Failure::new(
                Reason::MaybeApplied,
                "the deadline passed while the call was carried out",
            )
        } else {
            Failure::new(
                Reason::NotStarted,
                "the deadline passed before the call had any effect",
            )
        }
    }

    /// Keeps the credential of a stream; a unary call needs it once.
    pub(crate) fn keep_secret(&self, secret: &str) {
        if self.method.is_stream() {
            let _ = self.rare().secret.set(secret.into());
        }
    }

    pub(crate) fn secret(&self) -> Option<&str> {
        self.rare.get()?.secret.get().map(|secret| &**secret)
    }

    /// Notes what the call is about, for the audit log.
    pub(crate) fn concerns(&self, resource: impl fmt::Display, mode: Mode) {
        if self.method.audited {
            let rare = self.rare();
            let _ = rare.concerns.set(resource.to_string());
            if mode == Mode::DryRun {
                let _ = rare.dry.set(());
            }
        }
    }

    pub(crate) fn concerned(&self) -> Option<&str> {
        self.rare.get()?.concerns.get().map(String::as_str)
    }

    pub(crate) fn was_dry(&self) -> bool {
        self.rare.get().is_some_and(|rare| rare.dry.get().is_some())
    }

    /// Notes the trace of a call that the audit log tells of: the second part of
    /// `traceparent` (W3C Trace Context, section 3.2.2.3).
    pub(crate) fn keep_trace(&self, traceparent: &[u8]) {
        let id = std::str::from_utf8(traceparent)
            .ok()
            .and_then(|text| text.split('-').nth(1))
            .filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(id) = id {
            let _ = self.rare().trace_id.set(id.into());
        }
    }

    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.rare.get()?.trace_id.get().map(|id| &**id)
    }

    /// Checks that the caller may do `action` to one entry.
    pub(crate) fn may(&self, action: Action, at: EntryKey<'_>) -> Result<&Identity<S>, Failure> {
        let identity = self.known()?;
        let rights = identity.rights();
        require(rights.allows(action), "this action")?;
        require(rights.allows_namespace(at.namespace), "this namespace")?;
        require(rights.allows_key(at.key.as_bytes()), "this key")?;
        Ok(identity)
    }

    /// Checks that the caller may do something in a namespace.
    pub(crate) fn may_reach(&self, namespace: Namespace<'_>) -> Result<(), Failure> {
        let rights = self.known()?.rights();
        require(rights.allows_namespace(namespace), "this namespace")
    }

    /// Checks that the caller may do `action` to all keys with a prefix.
    pub(crate) fn may_all(
        &self,
        action: Action,
        namespace: Namespace<'_>,
        prefix: &[u8],
    ) -> Result<&Identity<S>, Failure> {
        let identity = self.known()?;
        let rights = identity.rights();
        require(rights.allows(action), "this action")?;
        require(rights.allows_namespace(namespace), "this namespace")?;
        require(rights.allows_prefix(prefix), "this prefix")?;
        Ok(identity)
    }

    /// A store's refusal in the words of this call's contract.
    pub(crate) fn store_failure(&self, error: &StoreError) -> Failure {
        let contract = if self.method.is_talk() {
            Contract::Talk
        } else {
            Contract::V1
        };
        let account = self
            .identity()
            .map_or("?", |identity| identity.tenant.name().as_str());
        store_failure(error, account, contract)
    }

    /// Counts a large reply until it has left.
    pub(crate) fn hold_reply(&self, gauge: &Arc<Gauge>, bytes: usize) -> Result<(), Failure> {
        if bytes < SMALL_REPLY_BYTES {
            return Ok(());
        }
        let mut held = gauge.hold();
        let full = |_| overloaded("as many bytes of replies wait to be read as the server holds");
        held.add(bytes).map_err(full)?;
        // A call has one reply.
        let _ = self.rare().reply.set(held);
        Ok(())
    }

    /// Notes why the body is refused; the protocol layer only learns that it is.
    pub(crate) fn refuse(&self, failure: Failure) {
        let _ = self.rare().refused.set(failure);
    }

    pub(crate) fn refusal(&self) -> Option<&Failure> {
        self.rare.get()?.refused.get()
    }

    /// Notes how the call ended; the first note counts.
    pub(crate) fn note(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            self.core().refusals.count(outcome.reason);
        }
    }

    /// Notes a failure, and passes it on.
    pub(crate) fn failed(&self, failure: Failure) -> Failure {
        self.note(Outcome {
            code: failure.code,
            reason: Some(failure.reason),
        });
        failure
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcome.get().copied()
    }

    pub(crate) fn add_accounts_wait(&self, wait: Duration) {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.accounts_wait_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn accounts_wait(&self) -> Duration {
        Duration::from_nanos(self.accounts_wait_ns.load(Ordering::Relaxed))
    }

    /// Counts entries that a dump left out.
    pub(crate) fn add_skipped(&self, entries: u64) {
        self.skipped.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

fn require(allowed: bool, what: &str) -> Result<(), Failure> {
    if allowed {
        Ok(())
    } else {
        let message = format!("the token does not give the right to {what}");
        Err(Failure::new(Reason::ScopeDenied, message))
    }
}
