//! A call from its head to its handler.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::message::{self, Progress};
use super::reply::{self, Closing, Reply, Sent};
use super::request::{Route, grpc_timeout, of_typed_lane};
use super::status::{Prepared, Status};
use super::waiting::WaitingCall;
use super::wakes::Wakes;
use super::{Handler, Outcome, Refusal, Refused, Request, Trust};
use crate::connection::{Application, Coming, Core, End, StreamKey};
use crate::error_codes::ErrorCode;
use crate::general::{GeneralCall, GeneralLane};
use crate::hpack::{Changes, Fields};
use crate::message::{Head, HeadFault};
use crate::stats::Counter;

/// Buffers of requests in parts that are kept for the next.
const KEPT_BUFFERS: usize = 32;
/// A buffer is kept if it holds no more, bytes.
const KEPT_BUFFER_BYTES: usize = 4096;

/// The calls of a connection: gRPC by the handler, all else by the general lane.
pub struct Rpc<H: Handler, L: GeneralLane> {
    pub(super) handler: H,
    general: L,
    /// By the slots of the streams.
    pub(super) calls: Vec<Option<Call<H, L>>>,
    pub(super) wakes: Arc<Wakes>,
    /// Calls to be polled, although none of them was woken.
    pub(super) ready: Vec<StreamKey>,
    /// Calls that wait or stream.
    pub(super) waiting: usize,
    /// No call's time is over before.
    pub(super) next_deadline: Option<Instant>,
    /// Calls whose requests are complete, in their order, and whose answers would
    /// be too much for a client that has not opened its windows.
    pub(super) held_back: VecDeque<StreamKey>,
    /// Bytes of requests that are not complete, or held back.
    pub(super) assembled: usize,
    /// Messages of requests that were whole, and of responses that were written.
    messages_received: u64,
    pub(super) messages_sent: u64,
    buffers: Vec<Vec<u8>>,
}

pub(super) struct Call<H: Handler, L: GeneralLane> {
    pub(super) id: u32,
    pub(super) state: State<H, L>,
}

/// What is rare is boxed: a call that is answered at once is moved about.
pub(super) enum State<H: Handler, L: GeneralLane> {
    /// The request is not complete.
    Gathering(Gathering<H::Method>),
    /// The handler waits, or streams.
    Waiting(Box<WaitingCall<H::Waiting>>),
    /// The general lane has it.
    General(Box<GeneralCall<L>>),
}

pub(super) struct Gathering<M> {
    head: Arc<Head>,
    method: M,
    received: Instant,
    deadline: Option<Instant>,
    /// When the request must be complete.
    until: Option<Instant>,
    content: Vec<u8>,
}

/// See [`Rpc::call_at`].
#[inline]
fn call_in<H: Handler, L: GeneralLane>(
    calls: &mut [Option<Call<H, L>>],
    key: StreamKey,
) -> Option<&mut State<H, L>> {
    match calls.get_mut(key.index())? {
        Some(call) if call.id == key.id => Some(&mut call.state),
        _ => None,
    }
}

impl<M: Clone> Gathering<M> {
    /// As far as it came.
    const fn refused(&self) -> Refused<'_, M> {
        Refused {
            method: &self.method,
            head: &self.head,
            received: self.received,
            deadline: self.deadline,
        }
    }

    /// How the handler says that the call ends.
    #[cold]
    fn refuse<H: Handler<Method = M>>(
        &self,
        core: &Core,
        handler: &mut H,
        why: Refusal,
        sent: &mut Sent,
    ) -> Status {
        core.count(why.counter());
        let plain = why.clone();
        let mut closing = Closing(sent);
        catch_unwind(AssertUnwindSafe(|| {
            handler.refuse(&self.refused(), why, &mut closing)
        }))
        .unwrap_or_else(|_| plain.status())
    }

    /// Whether the handler has no time for it.
    fn tap<H: Handler<Method = M>>(&self, handler: &mut H) -> Option<&'static Prepared> {
        // One that panicked is asked again when the request is complete.
        catch_unwind(AssertUnwindSafe(|| handler.tap(&self.refused()))).unwrap_or_default()
    }

    /// Whether the handler wants to wait for the rest.
    fn wait_for<H: Handler<Method = M>>(
        &self,
        handler: &mut H,
        sent: &mut Sent,
    ) -> Result<Trust, Status> {
        let mut closing = Closing(sent);
        catch_unwind(AssertUnwindSafe(|| {
            handler.wait_for(&self.refused(), &mut closing)
        }))
        .unwrap_or_else(|_| Err(Refusal::Panicked.status()))
    }
}

impl<H: Handler, L: GeneralLane> Rpc<H, L> {
    /// The calls of a new connection.
    pub fn new(handler: H, general: L) -> Self {
        Self {
            handler,
            general,
            calls: Vec::new(),
            wakes: Arc::default(),
            ready: Vec::new(),
            waiting: 0,
            next_deadline: None,
            held_back: VecDeque::new(),
            assembled: 0,
            messages_received: 0,
            messages_sent: 0,
            buffers: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn put(&mut self, key: StreamKey, state: State<H, L>) {
        let index = key.index();
        if index >= self.calls.len() {
            self.calls.resize_with(index + 1, || None);
        }
        self.calls[index] = Some(Call { id: key.id, state });
    }

    /// The call of a stream. An older one in the same slot is none of it.
    #[inline]
    pub(super) fn call_at(&mut self, key: StreamKey) -> Option<&mut State<H, L>> {
        call_in(&mut self.calls, key)
    }

    #[inline]
    pub(super) fn take(&mut self, key: StreamKey) -> Option<State<H, L>> {
        let slot = self.calls.get_mut(key.index())?;
        let call = slot.take_if(|call| call.id == key.id)?;
        if let State::Waiting(_) | State::General(_) = call.state {
            self.waiting -= 1;
            // Of calls that were gone before they were polled.
            if self.waiting == 0 {
                self.ready.clear();
            }
        }
        Some(call.state)
    }

    #[inline]
    pub(super) fn expects(&mut self, deadline: Option<Instant>) {
        if let Some(at) = deadline
            && self.next_deadline.is_none_or(|next| at < next)
        {
            self.next_deadline = Some(at);
        }
    }

    /// Part of a request's content came for a call that gathers it.
    #[inline]
    fn gather(&mut self, core: &mut Core, key: StreamKey, data: &[u8], end: End) {
        match end {
            End::Open => self.collect(core, key, data),
            End::Stream => self.complete(core, key, data),
        }
    }

    /// Keeps a part until the rest comes.
    fn collect(&mut self, core: &mut Core, key: StreamKey, data: &[u8]) {
        let Some(State::Gathering(call)) = call_in(&mut self.calls, key) else {
            return;
        };
        if call.content.is_empty() {
            let mut sent = Sent::default();
            if let Some(status) = call.tap(&mut self.handler) {
                Reply::new(core, key, &mut sent).refuse(status);
                if let Some(State::Gathering(call)) = self.take(key) {
                    self.forget(core, call);
                }
                return;
            }
            match call.wait_for(&mut self.handler, &mut sent) {
                Ok(Trust::Known) => core.prove(),
                Ok(Trust::Unknown) => {}
                Err(status) => {
                    Reply::new(core, key, &mut sent).end(&status);
                    if let Some(State::Gathering(call)) = self.take(key) {
                        self.forget(core, call);
                    }
                    return;
                }
            }
        }
        let Some(State::Gathering(call)) = call_in(&mut self.calls, key) else {
            return;
        };
        if call.content.capacity() == 0 {
            call.content = self.buffers.pop().unwrap_or_default();
        }
        call.content.extend_from_slice(data);
        let refused = message::read(&call.content, core.limits().max_message_bytes).err();
        self.assembled += data.len();
        let why = match refused {
            Some(why) => why,
            None if core.is_overloaded(self.assembled) => Refusal::Overloaded,
            None if self.assembled > core.limits().max_assembly_bytes => Refusal::AssemblyFull,
            None => return,
        };
        self.fail(core, key, why);
    }

    /// The last part came: has the handler answer.
    #[inline]
    fn complete(&mut self, core: &mut Core, key: StreamKey, data: &[u8]) {
        let Some(State::Gathering(mut call)) = self.take(key) else {
            return;
        };
        let whole = if call.content.is_empty() {
            data
        } else {
            self.assembled -= call.content.len();
            call.content.extend_from_slice(data);
            &call.content
        };
        let why = match message::read(whole, core.limits().max_message_bytes) {
            Ok(Progress::Complete(_)) if core.is_clogged() => {
                if call.content.is_empty() {
                    call.content.extend_from_slice(data);
                }
                return self.hold_back(core, key, call);
            }
            Ok(Progress::Complete(message)) => {
                self.dispatch(core, key, &call, message);
                return self.forget(core, call);
            }
            Ok(Progress::Incomplete) => message::cut_short(whole),
            Err(why) => why,
        };
        self.refuse(core, key, call, why);
    }

    /// Keeps a whole request until its client has opened its windows.
    #[cold]
    fn hold_back(&mut self, core: &mut Core, key: StreamKey, mut call: Gathering<H::Method>) {
        if self.assembled + call.content.len() > core.limits().max_assembly_bytes {
            return self.refuse(core, key, call, Refusal::Clogged);
        }
        self.assembled += call.content.len();
        // It has come in time.
        call.until = call.deadline;
        self.put(key, State::Gathering(call));
        self.held_back.push_back(key);
    }

    /// Answers what was held back, as far as the windows are open now.
    pub(super) fn release_held_back(&mut self, core: &mut Core) {
        while !core.is_clogged() && core.has_room() {
            let Some(key) = self.held_back.pop_front() else {
                return;
            };
            // Its client may have gone, or its time.
            let Some(State::Gathering(call)) = self.take(key) else {
                continue;
            };
            self.assembled -= call.content.len();
            match message::read(&call.content, core.limits().max_message_bytes) {
                Ok(Progress::Complete(message)) => self.dispatch(core, key, &call, message),
                // It was complete before.
                Ok(Progress::Incomplete) | Err(_) => {}
            }
            self.forget(core, call);
        }
    }

    /// Ends a call that was not given to the handler, in the handler's words.
    #[cold]
    fn refuse(
        &mut self,
        core: &mut Core,
        key: StreamKey,
        call: Gathering<H::Method>,
        why: Refusal,
    ) {
        let mut sent = Sent::default();
        let status = call.refuse(core, &mut self.handler, why, &mut sent);
        Reply::new(core, key, &mut sent).end(&status);
        self.forget(core, call);
    }

    /// Keeps what the next call can use.
    #[inline]
    fn forget(&mut self, core: &mut Core, call: Gathering<H::Method>) {
        core.recycle(call.head);
        let mut content = call.content;
        if (1..=KEPT_BUFFER_BYTES).contains(&content.capacity())
            && self.buffers.len() < KEPT_BUFFERS
        {
            content.clear();
            self.buffers.push(content);
        }
    }

    /// Has the handler answer.
    #[inline]
    fn dispatch(
        &mut self,
        core: &mut Core,
        key: StreamKey,
        call: &Gathering<H::Method>,
        message: &[u8],
    ) {
        let mut sent = Sent::default();
        let refused = if core.is_overloaded(self.assembled) {
            Some(Refusal::Overloaded)
        } else if call.deadline.is_some_and(|at| at <= core.now()) {
            Some(Refusal::DeadlineExceeded)
        } else {
            None
        };
        if let Some(why) = refused {
            let status = call.refuse(core, &mut self.handler, why, &mut sent);
            return Reply::new(core, key, &mut sent).end(&status);
        }
        let mut reply = Reply::new(core, key, &mut sent);
        let request = Request {
            method: &call.method,
            head: &call.head,
            message,
            received: call.received,
            deadline: call.deadline,
            now: reply.core().now(),
        };
        let handler = &mut self.handler;
        let outcome = catch_unwind(AssertUnwindSafe(|| handler.call(request, &mut reply)));
        self.messages_received += 1;
        self.messages_sent += reply.messages();
        match outcome {
            Ok(Outcome::Done(status)) => reply.end(&status),
            Ok(Outcome::Refused(status)) => reply.refuse(status),
            Ok(Outcome::Waits(waiting)) => {
                let call = WaitingCall::new(waiting, sent, call.deadline, self.wakes.waker(key));
                self.expects(call.deadline);
                self.waiting += 1;
                self.put(key, State::Waiting(Box::new(call)));
                self.ready.push(key);
            }
            Err(_) => {
                let (core, sent) = reply.parts();
                let status = call.refuse(core, handler, Refusal::Panicked, sent);
                reply.end(&status);
            }
        }
    }
}

impl<H: Handler, L: GeneralLane> Application for Rpc<H, L> {
    type Route = Route<H::Method>;

    fn route(&mut self, head: &Head) -> Self::Route {
        let typed =
            of_typed_lane(head).and_then(|timeout| Some((self.handler.route(head)?, timeout)));
        match typed {
            Some((method, timeout)) => Route::Typed { method, timeout },
            None => Route::General,
        }
    }

    #[inline]
    fn reroute(&mut self, known: &Self::Route, head: &Head, changes: &Changes) -> Self::Route {
        let Route::Typed { method, timeout } = known else {
            return self.route(head);
        };
        let (mut timeout, mut method_may_differ) = (*timeout, false);
        for (field, value) in changes.iter() {
            match head.fields.at(field) {
                Some((b"grpc-timeout", _)) => match grpc_timeout(value) {
                    Some(given) => timeout = Some(given),
                    None => return self.route(head),
                },
                Some((b"authorization", _)) => method_may_differ = true,
                _ => {}
            }
        }
        let method = match method_may_differ {
            true => self.handler.reroute(method, head),
            false => Some(method.clone()),
        };
        method.map_or(Route::General, |method| Route::Typed { method, timeout })
    }

    fn unreadable(&mut self, core: &mut Core, key: StreamKey, fault: HeadFault) {
        let handler = &mut self.handler;
        let status = catch_unwind(AssertUnwindSafe(|| handler.refuse_head(fault)));
        let status = status.unwrap_or_else(|_| Refusal::Panicked.status());
        reply::refuse_head(core, key, fault, &status);
    }

    #[inline]
    fn request(
        &mut self,
        core: &mut Core,
        key: StreamKey,
        head: Arc<Head>,
        route: Self::Route,
        end: End,
    ) {
        let now = core.now();
        match route {
            Route::Typed { method, timeout } => {
                let timeout = self.handler.timeout(&method, timeout);
                let most = core.limits().times.request;
                let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
                let until = match timeout {
                    Some(timeout) if timeout <= most => deadline,
                    _ => now.checked_add(most),
                };
                self.expects(until);
                let call = Gathering {
                    head,
                    method,
                    received: now,
                    deadline,
                    until,
                    content: Vec::new(),
                };
                self.put(key, State::Gathering(call));
                if end == End::Stream {
                    self.gather(core, key, &[], end);
                }
            }
            Route::General if core.is_overloaded(self.assembled) => {
                core.count(Counter::StreamsOverloaded);
                core.recycle(head);
                // Safe to send again (RFC 9113, section 8.7).
                core.reset(key, ErrorCode::REFUSED_STREAM);
            }
            Route::General => {
                let waker = self.wakes.waker(key);
                let call = GeneralCall::new(&self.general, &head, end, waker, now);
                core.recycle(head);
                self.waiting += 1;
                self.put(key, State::General(Box::new(call)));
                self.ready.push(key);
            }
        }
    }

    #[inline]
    fn data(&mut self, core: &mut Core, key: StreamKey, data: &[u8], end: End) {
        match self.call_at(key) {
            Some(State::General(call)) => {
                // What it reads of it opens the window again.
                call.receive(data, end);
                self.ready.push(key);
            }
            Some(State::Gathering(_)) => {
                core.consumed(key, u32::try_from(data.len()).unwrap_or(u32::MAX));
                self.gather(core, key, data, end);
            }
            Some(State::Waiting(_)) | None => {
                core.consumed(key, u32::try_from(data.len()).unwrap_or(u32::MAX));
            }
        }
    }

    #[inline]
    fn expect(&mut self, coming: Coming<'_, '_>) {
        let messages = coming.filter_map(message::whole);
        // The calls themselves say what is wrong.
        let _ = catch_unwind(AssertUnwindSafe(|| self.handler.expect(messages)));
    }

    fn trailers(&mut self, core: &mut Core, key: StreamKey, trailers: &Fields) {
        match self.call_at(key) {
            Some(State::General(call)) => {
                call.receive_trailers(trailers);
                self.ready.push(key);
            }
            // gRPC has no trailers in requests.
            Some(State::Gathering(_)) => self.gather(core, key, &[], End::Stream),
            Some(State::Waiting(_)) | None => {}
        }
    }

    fn drained(&mut self, _: &mut Core, key: StreamKey) {
        if self.call_at(key).is_some() {
            self.ready.push(key);
        }
    }

    fn stalled(&mut self, core: &mut Core, key: StreamKey) {
        match self.call_at(key) {
            // Its answer reaches nobody.
            Some(State::Gathering(_) | State::Waiting(_)) => {
                self.fail(core, key, Refusal::Stalled);
            }
            Some(State::General(_)) | None => self.gone(core, key),
        }
    }

    fn ending(&mut self, core: &mut Core) {
        for slot in 0..self.calls.len() {
            if let Some(call) = &self.calls[slot]
                && let State::Gathering(_) | State::Waiting(_) = call.state
            {
                let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                let key = StreamKey { slot, id: call.id };
                self.fail(core, key, Refusal::Draining);
            }
        }
    }

    fn kept_bytes(&self) -> usize {
        self.assembled
    }

    fn gone(&mut self, core: &mut Core, key: StreamKey) {
        match self.take(key) {
            Some(State::Gathering(call)) => {
                self.assembled -= call.content.len();
                // It reaches nobody.
                let _ = call.refuse(core, &mut self.handler, Refusal::Gone, &mut Sent::default());
                self.forget(core, call);
            }
            Some(State::General(call)) => core.consumed(key, call.unread()),
            Some(State::Waiting(_)) | None => {}
        }
    }
}

impl<H: Handler, L: GeneralLane> Rpc<H, L> {
    /// Ends a call of the typed lane.
    fn fail(&mut self, core: &mut Core, key: StreamKey, why: Refusal) {
        match self.take(key) {
            Some(State::Gathering(call)) => {
                self.assembled -= call.content.len();
                self.refuse(core, key, call, why);
            }
            Some(State::Waiting(mut call)) => {
                let status = call.refuse(core, why);
                Reply::new(core, key, &mut call.sent).end(&status);
            }
            Some(State::General(_)) | None => {}
        }
    }

    /// The turn is over: all that there was to do of what came is done, as far as it can be.
    #[inline]
    pub fn turned(&mut self) {
        self.handler.turned();
    }

    /// Messages of requests and of responses so far, on the typed lane.
    #[inline]
    #[must_use]
    pub const fn messages(&self) -> (u64, u64) {
        (self.messages_received, self.messages_sent)
    }

    /// Gives back the memory of calls that there were. There must be none now.
    pub fn release(&mut self) {
        if self.calls.iter().all(Option::is_none) {
            self.calls = Vec::new();
            self.buffers = Vec::new();
        }
    }

    /// Ends the calls whose time is over.
    pub fn on_time(&mut self, core: &mut Core) {
        let now = core.now();
        if self.next_deadline.is_none_or(|next| next > now) {
            return;
        }
        self.next_deadline = None;
        for slot in 0..self.calls.len() {
            let Some(call) = &self.calls[slot] else {
                continue;
            };
            let (until, deadline) = match &call.state {
                State::Gathering(call) => (call.until, call.deadline),
                State::Waiting(call) => (call.deadline, call.deadline),
                State::General(_) => (None, None),
            };
            let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if is_past(until) {
                let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                let key = StreamKey { slot, id: call.id };
                let why = match is_past(deadline) {
                    true => Refusal::DeadlineExceeded,
                    false => Refusal::RequestTimeout,
                };
                self.fail(core, key, why);
            } else {
                self.expects(until);
            }
        }
    }

    /// When [`Self::on_time`] has something to do, at the earliest.
    #[inline]
    #[must_use]
    pub const fn next_time(&self) -> Option<Instant> {
        self.next_deadline
    }
}
