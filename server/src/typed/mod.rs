//! The typed lane: gRPC calls of the cache, answered where the transport read
//! them. The layers and handlers are those of the general lane (`edge.rs`): only
//! the way in and out is another.
//!
//! A get or set whose caller is known is answered without a copy of its request,
//! an allocation, or a place among the calls in flight, unless the store would have
//! to wait. Every other call owns its request, as it may have to wait; nearly always
//! it does not.

mod ahead;
mod answers;
mod dispatch;
mod work;

use std::sync::Arc;
use std::time::{Duration, Instant};

use buffa::{DecodeOptions, Message, MessageView};
use futures::FutureExt as _;
use larder_api::errors::Reason;
use larder_api::wire::DRY_RUN;
use larder_api::{cache_v1, talk};
use larder_model::{Mode, Store};
use larder_transport::message::{Head, HeadFault};
use larder_transport::rpc::{
    Closing, Handler, Outcome, Prepared, Refusal, Refused, Reply, Request, Status, Trust,
};

use crate::call::{Call, Moment, Outcome as CallOutcome};
use crate::clock;
use crate::config::Role;
use crate::connection::{Connection, Identity, same_secret};
use crate::edge::metadata_too_large;
use crate::failure::Failure;
use crate::layers::admit::{CallHead, Fields, authorize, authorize_known, is_known};
use crate::layers::finish::{begin, finish};
use crate::layers::offer::names_gzip;
use crate::layers::shed::Stage;
use crate::layers::tap::{self, no_time, no_time_prepared};
use crate::methods::{Method, Typed};
use crate::rpc::cache_v1::CacheV1;
use crate::rpc::status::{grpc_status, not_decoded};
use crate::rpc::talk::TalkCache;
use crate::telemetry::meter::SeriesId;
use ahead::Ahead;
use answers::{Answers, Kept, Straight};
use work::{Work, conclude, failure_of, refused};

/// What a head leads to.
pub(crate) struct Routed {
    method: &'static Method,
    typed: Typed,
    head: CallHead,
    /// How long its calls may take whose callers do not say.
    unasked: Duration,
    /// For whoever asks whether another head leads to the same.
    likeness: Likeness,
    /// It says something of a trace, or of tries before: each head something else.
    has_context: bool,
    answers: Answers,
}

/// What two heads must have in common to lead to the same, beside their method.
enum Likeness {
    /// They are not compared.
    None,
    /// Nothing but one `authorization` matters, or that there is none.
    Authorization(Option<Box<[u8]>>),
}

impl Likeness {
    fn is_of(&self, glance: &Glance<'_>) -> bool {
        match (self, glance.authorization) {
            (Self::Authorization(Some(known)), Some(given)) => same_secret(known, given),
            (Self::Authorization(None), None) => true,
            _ => false,
        }
    }
}

/// What the calls of a connection need.
struct Lane<S: Store> {
    connection: Arc<Connection<S>>,
    v1: CacheV1<S>,
    talk: TalkCache<S>,
    decode: DecodeOptions,
}

impl<S: Store> Lane<S> {
    fn decode<'m, V: MessageView<'m>>(&self, message: &'m [u8]) -> Result<V, Failure> {
        self.decode
            .decode_view(message)
            .map_err(|error| not_decoded(&error))
    }
}

/// The typed lane of a connection.
pub(crate) struct TypedLane<S: Store> {
    lane: Arc<Lane<S>>,
    /// Where the last head led: most heads differ from the one before in nothing
    /// but their deadline.
    recent: Option<Arc<Routed>>,
    settled: Option<Settled<S>>,
    ahead: Ahead,
    /// Lent to the calls that are answered at once, one after the other: so none
    /// of them counts a reference.
    at_hand: Option<Arc<Connection<S>>>,
    /// This turn of the connection.
    turn: Option<Moment>,
    /// A turn in which a call may have taken long.
    delayed: Option<Instant>,
    /// Of the calls that end with this turn, and when it began.
    turn_series: Vec<SeriesId>,
    turn_began: Instant,
    /// Every call may be part of a trace.
    is_traced: bool,
    /// The thread is late: each call is asked about.
    is_late: bool,
    /// Calls that were refused for that in this turn.
    shed: u64,
    role: Role,
}

/// Whose the last call was by its head, and where that led.
struct Settled<S: Store> {
    routed: Arc<Routed>,
    /// `None` while it is lent to a call.
    identity: Option<Arc<Identity<S>>>,
}

impl<S: Store> TypedLane<S> {
    pub(crate) fn new(connection: Arc<Connection<S>>, decode: DecodeOptions, role: Role) -> Self {
        let core = &connection.core;
        let is_traced = core.telemetry.tracer.is_some();
        let lane = Lane {
            v1: CacheV1::new(Arc::clone(core)),
            talk: TalkCache::new(Arc::clone(core)),
            connection,
            decode,
        };
        Self {
            lane: Arc::new(lane),
            recent: None,
            settled: None,
            ahead: Ahead::default(),
            at_hand: None,
            turn: None,
            delayed: None,
            turn_series: Vec::new(),
            turn_began: clock::instant(),
            is_traced,
            is_late: false,
            shed: 0,
            role,
        }
    }
}

impl Fields for Head {
    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.metadata()
            .filter_map(move |(each, value)| (each == name.as_bytes()).then_some(value))
    }
}

/// What of a head matters here, read in one pass.
#[derive(Default)]
struct Glance<'h> {
    authorization: Option<&'h [u8]>,
    authorizations: usize,
    host: Option<&'h [u8]>,
    from_page: bool,
    dry_run: bool,
    repeat: bool,
    has_context: bool,
    offers_gzip: bool,
}

impl<'h> Glance<'h> {
    /// `looks`: what is offered matters, too.
    fn at(head: &'h Head, looks: bool) -> Self {
        let mut glance = Self {
            host: head.authority(),
            ..Self::default()
        };
        for (name, value) in head.metadata() {
            match name {
                b"authorization" => {
                    glance.authorization = Some(value);
                    glance.authorizations += 1;
                }
                b"host" if glance.host.is_none() => glance.host = Some(value),
                b"origin" => glance.from_page = true,
                b"dry-run" => glance.dry_run = true,
                b"traceparent" => glance.has_context = true,
                b"grpc-previous-rpc-attempts" => {
                    glance.has_context = true;
                    glance.repeat = true;
                }
                b"grpc-accept-encoding" if looks => glance.offers_gzip |= names_gzip(value),
                _ => {}
            }
        }
        glance
    }

    /// True if `authorization` says all that a call needs to know.
    fn is_plain(&self) -> bool {
        self.authorizations <= 1 && !self.dry_run && !self.repeat
    }
}

impl<S: Store> Handler for TypedLane<S> {
    type Method = Arc<Routed>;
    type Waiting = Work<S>;

    fn route(&mut self, head: &Head) -> Option<Arc<Routed>> {
        let method = Method::of(std::str::from_utf8(head.path()).ok()?)?;
        let typed = method.typed.filter(|_| self.role == Role::Cache)?;
        let above = self.lane.connection.core.compression.answers_above;
        let glance = Glance::at(head, above.is_some());
        let host = glance.host.and_then(|host| std::str::from_utf8(host).ok());
        let connection = &self.lane.connection;
        // Pages of the web, and servers called by a false name, are a matter of
        // the general lane.
        if glance.from_page || !connection.core.origins.answers_to(host, connection.peer) {
            return None;
        }
        let answers = Answers::of(above, glance.offers_gzip);
        if let Some(recent) = &self.recent
            && glance.is_plain()
            && std::ptr::eq(recent.method, method)
            && recent.has_context == glance.has_context
            && recent.answers == answers
            && recent.likeness.is_of(&glance)
        {
            return Some(Arc::clone(recent));
        }
        let routed = Arc::new(Routed {
            method,
            typed,
            head: CallHead::read(head),
            unasked: connection.core.deadlines.of(method, None),
            likeness: match glance.is_plain() {
                true => Likeness::Authorization(glance.authorization.map(Into::into)),
                false => Likeness::None,
            },
            has_context: glance.has_context,
            answers,
        });
        self.recent = Some(Arc::clone(&routed));
        Some(routed)
    }

    fn reroute(&mut self, known: &Arc<Routed>, head: &Head) -> Option<Arc<Routed>> {
        if let Likeness::None = known.likeness {
            return self.route(head);
        }
        let authorization = head.value(b"authorization");
        let routed = Arc::new(Routed {
            method: known.method,
            typed: known.typed,
            head: known.head.with_authorization(authorization),
            unasked: known.unasked,
            likeness: Likeness::Authorization(authorization.map(Into::into)),
            has_context: known.has_context,
            answers: known.answers,
        });
        Some(routed)
    }

    fn call(
        &mut self,
        request: Request<'_, Arc<Routed>>,
        reply: &mut Reply<'_>,
    ) -> Outcome<Work<S>> {
        let routed = request.method;
        let moment = self.moment(request.now);
        if self.is_late && !self.has_time(routed, request.now, Stage::Whole) {
            return self.refuse_for_time(&request, reply);
        }
        let connection = self.at_hand.take();
        let mut call = Call::new(
            routed.method,
            connection.unwrap_or_else(|| Arc::clone(&self.lane.connection)),
            request.received,
            self.lend_caller(routed, request.now),
        );
        call.deadline = request.deadline;
        call.moment = Some(moment);
        call.request_bytes.set(request.message.len() as u64);
        if routed.has_context || self.is_traced {
            call.read_context(&**request.head);
        }
        begin(&call);
        let told = routed.head.tell(&mut call);
        if says_dry_run(&call) {
            reply.metadata(DRY_RUN.as_bytes(), b"1");
        }
        let answered = match told {
            Err(failure) => Some(Err(failure)),
            Ok(()) => self.at_once(&call, &request, reply),
        };
        let Some(answered) = answered else {
            self.ahead.other_called();
            if let Some(settled) = &mut self.settled
                && Arc::ptr_eq(&settled.routed, routed)
            {
                settled.identity = call.shared_identity();
            }
            // From here on it may wait, or take its time.
            call.moment = None;
            if routed.typed.is_long() || !routed.answers.are_plain() {
                self.delayed = Some(request.now);
            }
            return dispatch::begin(&self.lane, call, routed, request.message, reply);
        };
        self.ahead.entry_called();
        let status = conclude(&call, answered, reply);
        self.note_series(&call);
        self.take_back(routed, call);
        Outcome::Done(status)
    }

    fn timeout(&self, method: &Arc<Routed>, asked: Option<Duration>) -> Option<Duration> {
        let most = self.lane.connection.core.deadlines.max;
        Some(asked.map_or(method.unasked, |asked| asked.min(most)))
    }

    fn refuse_head(&mut self, fault: HeadFault) -> Status {
        let failure = match fault {
            HeadFault::Malformed(why) => {
                let description = format!("holds {why}");
                Failure::field(Reason::MetadataInvalid, "metadata", description)
            }
            HeadFault::TooLarge { max } => metadata_too_large(max),
        };
        let connection = Arc::clone(&self.lane.connection);
        let call = Call::new(&Method::UNKNOWN, connection, clock::instant(), None);
        let status = grpc_status(&call.failed(failure)).0;
        begin(&call);
        finish(&call);
        status
    }

    fn tap(&mut self, call: &Refused<'_, Arc<Routed>>) -> Option<&'static Prepared> {
        let now = clock::instant();
        let core = &self.lane.connection.core;
        // One that must be told more is refused when it is complete.
        if !tap::is_late(core, now)
            || !call.method.head.is_plain()
            || self.has_time(call.method, now, Stage::Head)
        {
            return None;
        }
        self.shed += 1;
        Some(no_time_prepared())
    }

    /// Keeps nothing for callers whose credential is bad, and gives the others the
    /// time that a request may take, also on a connection that has made none yet.
    fn wait_for(
        &mut self,
        call: &Refused<'_, Arc<Routed>>,
        closing: &mut Closing<'_>,
    ) -> Result<Trust, Status> {
        let head = &call.method.head;
        let connection = Arc::clone(&self.lane.connection);
        let mut waiting = Call::new(call.method.method, connection, call.received, None);
        waiting.deadline = call.deadline;
        let told = head.tell(&mut waiting);
        let in_time = told.and_then(|()| match waiting.time_left() {
            Some(Duration::ZERO) => Err(waiting.deadline_failure()),
            _ => Ok(()),
        });
        let known = in_time.and_then(|()| match is_known(&waiting, head).now_or_never() {
            Some(known) => known,
            // Accounts elsewhere have not said yet.
            None => Ok(Trust::Unknown),
        });
        known.map_err(|failure| {
            if says_dry_run(&waiting) {
                closing.metadata(DRY_RUN.as_bytes(), b"1");
            }
            waiting.read_context(&**call.head);
            let status = refused(&waiting, failure, closing);
            begin(&waiting);
            finish(&waiting);
            status
        })
    }

    fn refuse(
        &mut self,
        call: &Refused<'_, Arc<Routed>>,
        why: Refusal,
        closing: &mut Closing<'_>,
    ) -> Status {
        let routed = call.method;
        let connection = Arc::clone(&self.lane.connection);
        let deadline = call.deadline;
        let refused_head = call.head;
        let mut call = Call::new(routed.method, connection, call.received, None);
        call.deadline = deadline;
        call.read_context(&**refused_head);
        // A call that panicked has begun already.
        if why != Refusal::Panicked {
            begin(&call);
        }
        let told = routed.head.tell(&mut call);
        // What is wrong with the head comes first, then the deadline, then whether
        // the caller may make the call, and then what is wrong with the message.
        let before = match why {
            Refusal::DeadlineExceeded => told.err(),
            Refusal::Malformed(_) | Refusal::Cardinality(_) | Refusal::TooLarge { .. } => told
                .and_then(|()| match call.time_left() {
                    Some(Duration::ZERO) => Err(call.deadline_failure()),
                    _ => authorize(&call, &routed.head)
                        .now_or_never()
                        .unwrap_or(Ok(())),
                })
                .err(),
            _ => None,
        };
        // A call that panicked has said so already.
        if says_dry_run(&call) && why != Refusal::Panicked {
            closing.metadata(DRY_RUN.as_bytes(), b"1");
        }
        let failure = before.unwrap_or_else(|| failure_of(&call, why));
        let status = refused(&call, failure, closing);
        finish(&call);
        status
    }

    /// For the account that the last get or set was of.
    #[inline]
    fn expect<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) {
        let Some(settled) = &self.settled else {
            return;
        };
        if self.is_late {
            // Many of them will be refused.
            return;
        }
        let (Some(identity), true) = (&settled.identity, self.ahead.is_of_use()) else {
            return;
        };
        let core = &self.lane.connection.core;
        let (limits, last) = (&core.limits, settled.routed.typed);
        let entries = messages.filter_map(|message| ahead::entry(limits, last, message));
        core.store.expect(&identity.tenant.handle, entries);
    }

    /// The calls that ended in this turn took as long as the turn: none of their answers leaves
    /// before it ends, and one look at the clock does for all.
    fn turned(&mut self) {
        if !self.turn_series.is_empty() {
            let took = clock::instant().saturating_duration_since(self.turn_began);
            self.lane.connection.meter.settle(&self.turn_series, took);
            self.turn_series.clear();
        }
        if self.shed > 0 {
            let shed = std::mem::take(&mut self.shed);
            let refusals = &self.lane.connection.core.refusals;
            refusals.count_shed(shed);
        }
    }
}

/// True if the reply says that nothing was changed.
fn says_dry_run<S: Store>(call: &Call<S>) -> bool {
    call.dry_run == Mode::DryRun && call.method.mutates()
}

/// Sends the message of a handler that returns it.
fn send<M: Message>(
    answer: Result<M, Failure>,
    answers: Answers,
    reply: &mut Reply<'_>,
) -> Option<Result<(), Failure>> {
    Some(answer.map(|message| answers.send(&message, reply)))
}

/// The calls that are answered at once, or not at all: `None` if the caller is
/// not known without asking elsewhere, or the store would wait. They leave nothing
/// behind then, but what is known of the caller.
impl<S: Store> TypedLane<S> {
    fn at_once(
        &mut self,
        call: &Call<S>,
        request: &Request<'_, Arc<Routed>>,
        reply: &mut Reply<'_>,
    ) -> Option<Result<(), Failure>> {
        let (routed, message) = (request.method, request.message);
        if !matches!(
            routed.typed,
            Typed::Get | Typed::TalkGet | Typed::Set | Typed::TalkStore
        ) {
            return None;
        }
        if let Err(failure) = self.authorize_now(call, routed)? {
            return Some(Err(failure));
        }
        let Lane { v1, talk, .. } = &*self.lane;
        let answers = routed.answers;
        let mut kept = Kept::default();
        let straight = Straight {
            reply: &mut *reply,
            answers,
            kept: &mut kept,
        };
        let got = match routed.typed {
            Typed::TalkGet => self.now(message, async |request: talk::GetReqView<'_>| {
                talk.get(call, &request, straight).await
            }),
            Typed::TalkStore => {
                let stored = self.now(message, async |request: talk::StoreReqView<'_>| {
                    talk.store(call, &request).await
                });
                return send(stored?, answers, reply);
            }
            Typed::Get => self.now(message, async |request: cache_v1::GetRequestView<'_>| {
                v1.get(call, &request, straight).await
            }),
            _ => {
                let set = self.now(message, async |request: cache_v1::SetRequestView<'_>| {
                    v1.set(call, &request).await
                });
                return send(set?, answers, reply);
            }
        };
        if let Some(Ok(())) = got
            && kept.send(answers, reply)
        {
            // What comes after it in this turn looks at the clock again.
            self.delayed = Some(request.now);
        }
        got
    }

    /// What a handler answers if it need not wait.
    #[inline]
    fn now<'m, V: MessageView<'m>, T>(
        &self,
        message: &'m [u8],
        handler: impl AsyncFnOnce(V) -> Result<T, Failure>,
    ) -> Option<Result<T, Failure>> {
        let answer = async { handler(self.lane.decode(message)?).await };
        answer.now_or_never()
    }

    /// The caller of the last call, if this head leads to the same. It is given
    /// back by [`Self::take_back`].
    fn lend_caller(&mut self, routed: &Arc<Routed>, now: Instant) -> Option<Arc<Identity<S>>> {
        let core = &self.lane.connection.core;
        let settled = self.settled.as_mut()?;
        if !Arc::ptr_eq(&settled.routed, routed) {
            return None;
        }
        let identity = settled.identity.take()?;
        identity.is_current(core, now).then_some(identity)
    }

    fn note_series(&mut self, call: &Call<S>) {
        if call.ends_with_turn() {
            self.turn_began = call.started;
            let code = call.outcome().unwrap_or(CallOutcome::OK).code;
            let series = SeriesId::of(call.method, code);
            // Most calls of a turn are alike.
            if self.turn_series.last() != Some(&series) && !self.turn_series.contains(&series) {
                self.turn_series.push(series);
            }
        }
    }

    /// Keeps what the next call can use of one that has ended.
    fn take_back(&mut self, routed: &Arc<Routed>, call: Call<S>) {
        let (connection, identity) = call.into_parts();
        self.at_hand = Some(connection);
        // Not of a caller who is known by what the request says.
        if let Some(settled) = &mut self.settled
            && Arc::ptr_eq(&settled.routed, routed)
        {
            settled.identity = identity;
        }
    }

    fn authorize_now(
        &mut self,
        call: &Call<S>,
        routed: &Arc<Routed>,
    ) -> Option<Result<(), Failure>> {
        if call.identity().is_some() {
            return Some(authorize_known(call));
        }
        let before = self.settled.take().and_then(|settled| settled.identity);
        let authorized = authorize(call, &routed.head).now_or_never()?;
        if let Some(identity) = call.identity() {
            if before.is_some_and(|before| !Arc::ptr_eq(&before.tenant, &identity.tenant)) {
                self.ahead.account_changed();
            }
            self.settled = Some(Settled {
                routed: Arc::clone(routed),
                identity: None,
            });
        }
        Some(authorized)
    }

    /// Whether a thread that is late has time for a call.
    #[cold]
    fn has_time(&self, routed: &Arc<Routed>, now: Instant, stage: Stage) -> bool {
        let connection = &self.lane.connection;
        let settled = self.settled.as_ref();
        let caller = settled.filter(|settled| Arc::ptr_eq(&settled.routed, routed));
        let slot = match caller.and_then(|settled| settled.identity.as_ref()) {
            Some(identity) => identity.tenant.slot,
            None => {
                let given = connection.given(routed.head.token());
                tap::slot_of(connection.recall(given, now).as_deref())
            }
        };
        tap::has_time(&connection.core, routed.method, slot, stage)
    }

    /// Refuses a call that there is no time for. Few of many leave a line in the access log:
    /// there is no time for more.
    #[cold]
    fn refuse_for_time(
        &mut self,
        request: &Request<'_, Arc<Routed>>,
        reply: &mut Reply<'_>,
    ) -> Outcome<Work<S>> {
        let routed = request.method;
        let connection = &self.lane.connection;
        let has_line = connection.core.refusals.shed_has_line(request.now);
        if routed.head.is_plain() && !has_line {
            self.shed += 1;
            return Outcome::Refused(no_time_prepared());
        }
        let given = connection.given(routed.head.token());
        let caller = connection.recall(given, request.now);
        let connection = Arc::clone(connection);
        let mut call = Call::new(routed.method, connection, request.received, caller);
        call.request_bytes.set(request.message.len() as u64);
        call.read_context(&**request.head);
        begin(&call);
        let told = routed.head.tell(&mut call).and(Err(no_time()));
        if says_dry_run(&call) {
            reply.metadata(DRY_RUN.as_bytes(), b"1");
        }
        Outcome::Done(conclude(&call, told, reply))
    }

    /// The calls of one turn have the same, until one of them may have taken long.
    fn moment(&mut self, turn: Instant) -> Moment {
        if let Some(moment) = self.turn
            && moment.instant == turn
            && self.delayed != Some(turn)
        {
            return moment;
        }
        let instant = match self.delayed {
            Some(delayed) if delayed == turn => clock::instant(),
            _ => turn,
        };
        let core = &self.lane.connection.core;
        self.is_late = tap::is_late(core, instant);
        let log = core.access_log.as_ref();
        *self.turn.insert(Moment {
            instant,
            time: core.clock.time_of(instant),
            log_is_full: log.is_none_or(|rate| rate.is_spent(instant)),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
