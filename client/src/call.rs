//! Calls: requests are encoded, answers decoded, and interceptors told.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use buffa::{Message, SizeCache};
use bytes::Bytes;
use larder_api::errors::Code;
use larder_transport::client::{Failed, Receiving, RequestHead, Response, SendClosed, Sending};
use larder_transport::gzip;
use tokio::time::Instant;

use crate::channel::{
    Call, Done, Heads, Homes, MethodConfig, Outcome, Safety, To, Tries, Unreached, Wait,
};
use crate::client::Client;
use crate::error::{Earlier, Error, Repeat};
use crate::interceptor::{AttemptWatch, Watch};
use crate::method::{Level, Method, PerMethod};
use crate::near::Writes;
use crate::status;

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// There was no connection to send it on.
    Unreached(Unreached),
    /// There was one.
    Call(Failed),
}

/// What the channel has to know of a call beside its message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How<'a> {
    repeat: Repeat,
    /// The key that it is about, where it is about one.
    key: Option<&'a [u8]>,
    writes: Writes<'a>,
}

impl From<Repeat> for How<'_> {
    fn from(repeat: Repeat) -> Self {
        Self {
            repeat,
            key: None,
            writes: match repeat {
                Repeat::Read => Writes::Nothing,
                // Nobody said better.
                _ => Writes::Anything,
            },
        }
    }
}

impl<'a> How<'a> {
    /// A call that may change this.
    pub(crate) const fn over(self, writes: Writes<'a>) -> Self {
        Self { writes, ..self }
    }
}

impl Repeat {
    /// A call about one key.
    pub(crate) const fn on(self, key: &[u8]) -> How<'_> {
        How {
            repeat: self,
            key: Some(key),
            writes: match self {
                Self::Read => Writes::Nothing,
                _ => Writes::Key(key),
            },
        }
    }

    /// A call that may change this, and is not about one key.
    pub(crate) const fn over(self, writes: Writes<'_>) -> How<'_> {
        How {
            repeat: self,
            key: None,
            writes,
        }
    }

    /// Whether the channel may send it more than once. The contract has the last word.
    fn safety(self, level: Level) -> Safety {
        debug_assert_eq!(
            self == Self::Read,
            level == Level::NoSideEffects,
            "a call that reads is one of a method that does"
        );
        match (self, level) {
            (_, Level::NoSideEffects) | (Self::Once | Self::OnceEach, _) => Safety::Repeatable,
            (Self::Same, Level::Idempotent) => Safety::Repeatable,
            (Self::Read | Self::Same | Self::Effect, _) => Safety::AtMostOnce,
        }
    }
}

/// What the head of a call says of its messages (gRPC's `compression.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// They are as they are.
    Plain,
    /// They may be compressed.
    Gzip,
}

/// The heads of one method, by target.
struct HeadsOf<'a, Q, R>(&'a [PerMethod<RequestHead>], Method<Q, R>);

impl<Q, R> Heads for HeadsOf<'_, Q, R> {
    fn head(&self, target: usize) -> &RequestHead {
        self.0[target].of(self.1)
    }
}

impl Client {
    /// Makes a unary call.
    pub(crate) async fn call<Q: Message, R: Message>(
        &self,
        method: Method<Q, R>,
        request: &Q,
        how: impl Into<How<'_>>,
    ) -> Result<R, Error> {
        let how = how.into();
        let writing = self.writing(how.writes);
        let answer = self.unary(method, request, how).await;
        writing.end(&answer);
        answer
    }

    async fn unary<Q: Message, R: Message>(
        &self,
        method: Method<Q, R>,
        request: &Q,
        how: How<'_>,
    ) -> Result<R, Error> {
        let started = Instant::now();
        let config = self.channel.methods.of(method);
        let mut encoded = Encoded::new(request)?;
        let compressed = self.compress_above().and_then(|it| encoded.compressed(it));
        let bytes = compressed.as_ref().map_or(encoded.bytes, Vec::len);
        check_size(bytes, config)?;
        let timeout = config
            .timeout
            .map_or(self.timeout, |most| most.min(self.timeout));
        let deadline = self.deadline(started.checked_add(timeout));
        let coding = compressed.as_ref().map_or(Coding::Plain, |_| Coding::Gzip);
        let heads = HeadsOf(self.heads(coding), method);
        let (metadata, mut watch) = self.around(&heads, method.path(), Some(timeout));
        let told = watch.as_ref().map(Watch::told);
        if let Some(watch) = &watch {
            watch.sent(bytes);
        }
        let call = Call {
            heads: &heads,
            metadata: metadata.as_ref(),
            tries: &config.tries,
            safety: how.repeat.safety(method.level()),
            reads: how.repeat == Repeat::Read,
            deadline,
            wait: self.wait(config),
            to: self.to(how.key),
            told: told.as_ref(),
        };
        let mut is_again = false;
        let mut write = |out: &mut Vec<u8>| {
            if let Some(compressed) = &compressed {
                return out.extend_from_slice(compressed);
            }
            if std::mem::replace(&mut is_again, true) {
                encoded.again();
            }
            encoded.write(out);
        };
        let done = self.channel.balanced.unary(call, &mut write).await;
        if let Some(watch) = &mut watch {
            watch.done(&done);
        }
        let answer = finish(done, how.repeat, config).and_then(|message| decode(&message));
        // An answer of OK may be too large, or none that can be read.
        if let (Some(watch), Err(error)) = (&mut watch, &answer) {
            watch.ended(error.code());
        }
        answer
    }

    /// Opens a stream from the client, or in both directions, whose messages are compressed
    /// one by one if this client's are.
    pub(crate) async fn open<Q: Message, R: Message>(
        &self,
        method: Method<Q, R>,
        repeat: Repeat,
    ) -> Result<(Requests<Q>, Replies<R>), Error> {
        let coding = self
            .compress_above()
            .map_or(Coding::Plain, |_| Coding::Gzip);
        self.open_as(method, repeat, coding).await
    }

    async fn open_as<Q: Message, R: Message>(
        &self,
        method: Method<Q, R>,
        repeat: Repeat,
        coding: Coding,
    ) -> Result<(Requests<Q>, Replies<R>), Error> {
        let started = Instant::now();
        let config = self.channel.methods.of(method);
        let limits = [self.channel.stream_deadline, config.timeout];
        let timeout = limits.into_iter().flatten().min();
        let deadline = self.deadline(timeout.and_then(|timeout| started.checked_add(timeout)));
        let heads = HeadsOf(self.heads(coding), method);
        let (metadata, mut watch) = self.around(&heads, method.path(), timeout);
        let told = watch.as_ref().map(Watch::told);
        let call = Call {
            heads: &heads,
            metadata: metadata.as_ref(),
            tries: &Tries::Once,
            safety: repeat.safety(method.level()),
            reads: false,
            deadline,
            wait: self.wait(config),
            to: self.to(None),
            told: told.as_ref(),
        };
        let opened = self.channel.balanced.stream(call).await;
        let opened = opened.map_err(|outcome| {
            let lost = match outcome {
                Outcome::Unreached(unreached) => Lost::Unreached(unreached),
                Outcome::Ended(Err(failed)) => Lost::Call(failed),
                // A stream that has just been opened has no answer.
                Outcome::Ended(Ok(_)) => Lost::Unreached(Unreached::TimedOut(None)),
            };
            if let Some(watch) = &mut watch {
                watch.lost(&lost);
            }
            status::from_lost(lost, repeat)
        })?;
        let sent = watch.as_ref().map(Watch::request_bytes);
        let requests = Requests {
            compress_above: self.compress_above().filter(|_| coding == Coding::Gzip),
            sending: opened.sending,
            sent,
            messages: PhantomData,
        };
        let replies = Replies {
            receiving: opened.receiving,
            attempt: opened.attempt,
            watch,
            repeat,
            messages: PhantomData,
        };
        Ok((requests, replies))
    }

    /// As [`ready`](Self::ready), within the time of a call.
    pub(crate) async fn reached<Q, R>(&self, method: Method<Q, R>) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(self.timeout);
        let until = self.deadline(deadline);
        let hurried = Self {
            until,
            ..self.clone()
        };
        let ready = hurried.ready(method).await;
        ready.map_err(|unreached| status::from_lost(Lost::Unreached(unreached), Repeat::Read))
    }

    /// Waits until a call of a method would find a server.
    pub(crate) async fn ready<Q, R>(&self, method: Method<Q, R>) -> Result<(), Unreached> {
        let config = self.channel.methods.of(method);
        let call = Call {
            heads: &HeadsOf(self.heads(Coding::Plain), method),
            metadata: None,
            tries: &Tries::Once,
            safety: Safety::Repeatable,
            reads: true,
            deadline: self.deadline(None),
            wait: self.wait(config),
            to: self.to(None),
            told: None,
        };
        self.channel.balanced.ready(call).await
    }

    /// Makes a call whose answer is a stream.
    pub(crate) async fn open_replies<Q: Message, R: Message>(
        &self,
        method: Method<Q, R>,
        request: &Q,
        repeat: Repeat,
    ) -> Result<Replies<R>, Error> {
        let coding = match self.compress_above() {
            Some(above) if Encoded::new(request)?.bytes >= above => Coding::Gzip,
            _ => Coding::Plain,
        };
        let (mut requests, replies) = self.open_as(method, repeat, coding).await?;
        // If the stream has ended already, its end says why.
        if requests.send(request).await?.is_ok() {
            requests.finish();
        }
        Ok(replies)
    }

    /// The servers of a ring; `None` where the policy is another.
    pub(crate) async fn homes<Q, R>(&self, method: Method<Q, R>) -> Result<Option<Homes>, Error> {
        let config = self.channel.methods.of(method);
        let call = Call {
            heads: &HeadsOf(self.heads(Coding::Plain), method),
            metadata: None,
            tries: &Tries::Once,
            safety: Safety::Repeatable,
            reads: true,
            deadline: self.deadline(Instant::now().checked_add(self.timeout)),
            wait: self.wait(config),
            to: To::Any,
            told: None,
        };
        let homes = self.channel.balanced.homes(call).await;
        homes.map_err(|unreached| status::from_lost(Lost::Unreached(unreached), Repeat::Read))
    }

    fn to<'a>(&'a self, key: Option<&[u8]>) -> To<'a> {
        match &self.server {
            Some(server) => To::Server(server),
            None => self.channel.balanced.to_key(key),
        }
    }

    fn heads(&self, coding: Coding) -> &[PerMethod<RequestHead>] {
        let heads = match (&self.channel.compression, coding) {
            (Some(compression), Coding::Gzip) => &compression.heads,
            _ => &self.channel.heads,
        };
        heads.of(self.mode)
    }

    /// From how many bytes on messages are compressed, if any are.
    fn compress_above(&self) -> Option<usize> {
        let compression = self.channel.compression.as_ref();
        compression.map(|compression| compression.above)
    }

    pub(crate) fn deadline(&self, own: Option<Instant>) -> Option<Instant> {
        own.into_iter().chain(self.until).min()
    }

    fn wait(&self, config: &MethodConfig) -> Wait {
        self.wait.unwrap_or(match config.wait_for_ready {
            Some(true) => Wait::ForReady,
            _ => Wait::FailFast,
        })
    }

    /// What a call has beside its head, and who is told of it; nothing for the usual call.
    fn around(
        &self,
        heads: &dyn Heads,
        path: &'static str,
        timeout: Option<Duration>,
    ) -> (Option<RequestHead>, Option<Watch>) {
        let interceptors = &self.channel.interceptors;
        if self.trace.is_none() && interceptors.is_empty() {
            return (None, None);
        }
        let mut head = heads.head(0).clone();
        if let Some(trace) = &self.trace {
            let set = head.set_metadata("traceparent", trace.as_bytes());
            set.expect("it was checked");
        }
        let watch = (!interceptors.is_empty())
            .then(|| Watch::start(interceptors.clone(), path, timeout, &mut head));
        (Some(head), watch)
    }
}

/// gRPC's `service_config.proto` has its limits on sizes hold for what crosses the network.
fn check_size(bytes: usize, config: &MethodConfig) -> Result<(), Error> {
    match config.max_request_bytes {
        Some(most) if bytes > most => Err(Error::configuration(format!(
            "the request has {bytes} bytes; the service config allows {most}"
        ))),
        _ => Ok(()),
    }
}

/// The message of an answer, if it has one.
fn finish(done: Done, repeat: Repeat, config: &MethodConfig) -> Result<Bytes, Error> {
    let (error, was_sent) = match done.outcome {
        Outcome::Ended(Ok(answer)) if answer.trailers.code.0 == 0 => {
            let bytes = answer.message_bytes;
            match config.max_response_bytes {
                Some(max) if bytes > max => {
                    let failed = Failed::TooLarge { bytes, max };
                    (status::from_lost(Lost::Call(failed), repeat), true)
                }
                _ => return Ok(answer.message),
            }
        }
        Outcome::Ended(ended) => {
            let was_sent = !matches!(
                ended,
                Err(Failed::NotSent(_) | Failed::Deadline { sent: false })
            );
            (error_of(ended, repeat), was_sent)
        }
        Outcome::Unreached(unreached) => {
            (status::from_lost(Lost::Unreached(unreached), repeat), false)
        }
    };
    let attempts = done.earlier.len() + usize::from(was_sent);
    let mut earlier = done.earlier.into_iter();
    let earlier = match earlier.any(|ended| error_of(ended, repeat).may_have_applied()) {
        true => Earlier::MayHaveApplied,
        false => Earlier::NoEffect,
    };
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    Err(error.after(attempts, earlier))
}

fn error_of(ended: Result<Response, Failed>, repeat: Repeat) -> Error {
    match ended {
        Ok(answer) => status::from_trailers(&answer.trailers, repeat),
        Err(failed) => status::from_lost(Lost::Call(failed), repeat),
    }
}

fn decode<R: Message>(message: &[u8]) -> Result<R, Error> {
    R::decode_from_slice(message).map_err(undecodable)
}

pub(crate) fn undecodable(error: buffa::DecodeError) -> Error {
    Error::protocol("the server sent a message that cannot be decoded").with_source(error)
}

/// A message and its sizes: measured before the connection's lock is taken, and written under
/// it.
struct Encoded<'a, Q> {
    message: &'a Q,
    sizes: SizeCache,
    bytes: usize,
}

impl<'a, Q: Message> Encoded<'a, Q> {
    fn new(message: &'a Q) -> Result<Self, Error> {
        let mut sizes = SizeCache::new();
        let bytes = buffa::checked_encode_size(message.compute_size(&mut sizes))
            .map_err(|error| Error::configuration("the request is too large").with_source(error))?;
        Ok(Self {
            message,
            sizes,
            bytes: bytes as usize,
        })
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        out.reserve(self.bytes);
        self.message.write_to(&mut self.sizes, out);
    }

    /// It compressed, if it has so many bytes, and fewer by that. Once for all attempts,
    /// and before there is a lock.
    fn compressed(&mut self, above: usize) -> Option<Vec<u8>> {
        if self.bytes < above {
            return None;
        }
        let mut plain = Vec::new();
        self.write(&mut plain);
        let compressed = gzip::compress(&plain);
        if compressed.is_none() {
            self.again();
        }
        compressed
    }

    /// Before it is written once more.
    fn again(&mut self) {
        self.sizes.clear();
        let _ = self.message.compute_size(&mut self.sizes);
    }
}

/// What is sent on a stream. Dropped before [`finish`](Self::finish), it gives the call up.
pub(crate) struct Requests<Q> {
    /// If its head says that they may be compressed.
    compress_above: Option<usize>,
    sending: Sending,
    sent: Option<Arc<AtomicU64>>,
    messages: PhantomData<fn(Q)>,
}

impl<Q: Message> Requests<Q> {
    /// Sends a message; `Ok(Err(_))` if the stream has ended, of which its replies tell.
    pub(crate) async fn send(&mut self, message: &Q) -> Result<Result<(), SendClosed>, Error> {
        let mut encoded = Encoded::new(message)?;
        let compressed = self.compress_above.and_then(|it| encoded.compressed(it));
        let bytes = compressed.as_ref().map_or(encoded.bytes, Vec::len);
        let sent = match &compressed {
            Some(compressed) => self.sending.send_compressed(compressed).await,
            None => self.sending.send(|out| encoded.write(out)).await,
        };
        if let (Ok(()), Some(sum)) = (sent, &self.sent) {
            sum.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(sent)
    }

    pub(crate) fn finish(self) {
        self.sending.finish();
    }
}

/// What comes on a stream.
pub(crate) struct Replies<R> {
    receiving: Receiving,
    attempt: Option<AttemptWatch>,
    watch: Option<Watch>,
    repeat: Repeat,
    messages: PhantomData<fn() -> R>,
}

impl<R: Message> Replies<R> {
    /// Waits for the server to begin its answer.
    pub(crate) async fn begun(&mut self) -> Result<(), Error> {
        let begun = self.receiving.headers().await;
        begun.map(drop).map_err(|failed| self.failed(failed))
    }

    /// The next message; `None` at a good end.
    pub(crate) async fn message(&mut self) -> Result<Option<R>, Error> {
        match self.receiving.message().await {
            Ok(Some(message)) => {
                let bytes = self.receiving.message_bytes();
                if let Some(attempt) = &mut self.attempt {
                    attempt.received(bytes);
                }
                if let Some(watch) = &mut self.watch {
                    watch.received(bytes);
                }
                decode(&message).map(Some)
            }
            Ok(None) => self.ended(),
            Err(failed) => Err(self.failed(failed)),
        }
    }

    /// A field of the trailers, after the end.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        let value = self.receiving.trailers()?.fields.value(name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    fn ended(&mut self) -> Result<Option<R>, Error> {
        let Some(trailers) = self.receiving.trailers() else {
            return Ok(None);
        };
        let code = Code::from_number(trailers.code.0.into());
        if let Some(mut attempt) = self.attempt.take() {
            attempt.ended(code);
        }
        if let Some(mut watch) = self.watch.take() {
            watch.ended(code);
        }
        match trailers.code.0 {
            0 => Ok(None),
            _ => {
                let error = status::from_trailers(trailers, self.repeat);
                Err(error.after(1, Earlier::NoEffect))
            }
        }
    }

    fn failed(&mut self, failed: Failed) -> Error {
        if let Some(mut attempt) = self.attempt.take() {
            attempt.failed(&failed);
        }
        let lost = Lost::Call(failed);
        if let Some(mut watch) = self.watch.take() {
            watch.lost(&lost);
        }
        status::from_lost(lost, self.repeat).after(1, Earlier::NoEffect)
    }
}
