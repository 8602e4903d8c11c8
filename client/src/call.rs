//! Calls: requests are encoded, answers decoded, and interceptors told.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use buffa::{Message, SizeCache};
use bytes::Bytes;
use larder_api::errors::Code;
use larder_transport::client::{
    Failed, NotSent, Receiving, RequestHead, Response, SendClosed, Sending,
};
use tokio::time::Instant;

use crate::channel::{Client, Mode};
use crate::connector::ConnectFailure;
use crate::error::{Error, Repeat};
use crate::interceptor::Watch;
use crate::link::NoLink;
use crate::method::Method;
use crate::status;

/// Tries for a connection that takes the call, where each was found to have closed just then.
/// Nothing was sent before.
const MAX_CONNECTIONS: u32 = 3;

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// There was no connection.
    Connect(Arc<ConnectFailure>),
    /// There was one.
    Call(Failed),
}

impl Client {
    /// Makes a unary call.
    pub(crate) async fn call<Q: Message, R: Message>(
        &self,
        method: Method<Q, R>,
        request: &Q,
        repeat: Repeat,
    ) -> Result<R, Error> {
        let message = self.call_for(method, request, repeat).await?;
        decode(&message)
    }

    /// The message that answers a unary call.
    async fn call_for<Q: Message, R>(
        &self,
        method: Method<Q, R>,
        request: &Q,
        repeat: Repeat,
    ) -> Result<Bytes, Error> {
        let started = Instant::now();
        let encoded = Encoded::new(request)?;
        let head = self.heads().of(method);
        let deadline = started.checked_add(self.timeout);
        let interceptors = &self.channel.interceptors;
        if interceptors.is_empty() {
            let answer = self.exchange(head, encoded, deadline).await;
            return finish(answer, repeat);
        }
        let mut head = head.clone();
        let timeout = Some(self.timeout);
        let mut watch = Watch::start(interceptors.clone(), method.path(), timeout, &mut head);
        watch.sent(encoded.bytes);
        let answer = self.exchange(&head, encoded, deadline).await;
        watch.answered(&answer);
        finish(answer, repeat)
    }

    async fn exchange<Q: Message>(
        &self,
        head: &RequestHead,
        mut encoded: Encoded<'_, Q>,
        deadline: Option<Instant>,
    ) -> Result<Response, Lost> {
        let mut tries = 1;
        loop {
            let connection = self.channel.link.connection(deadline).await?;
            let until = deadline.map(Instant::into_std);
            let call = connection.unary(head, |out| encoded.write(out), until);
            match call.await {
                Err(Failed::NotSent(NotSent::Closed(_) | NotSent::Closing))
                    if tries < MAX_CONNECTIONS =>
                {
                    tries += 1;
                    encoded.again();
                }
                answer => return answer.map_err(Lost::Call),
            }
        }
    }

    /// Opens a stream in either direction, or in both.
    pub(crate) async fn open<Q: Message, R: Message>(
        &self,
        method: Method<Q, R>,
        repeat: Repeat,
    ) -> Result<(Requests<Q>, Replies<R>), Error> {
        let started = Instant::now();
        let timeout = self.channel.stream_deadline;
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        let mut head = self.heads().of(method).clone();
        let interceptors = &self.channel.interceptors;
        let mut watch = (!interceptors.is_empty())
            .then(|| Watch::start(interceptors.clone(), method.path(), timeout, &mut head));
        let opened = self.open_stream(&head, deadline).await;
        let (sending, receiving) = opened.map_err(|lost| {
            if let Some(watch) = &mut watch {
                watch.lost(&lost);
            }
            status::from_lost(lost, repeat)
        })?;
        let sent = watch.as_ref().map(Watch::request_bytes);
        let requests = Requests {
            sending,
            sent,
            messages: PhantomData,
        };
        let replies = Replies {
            receiving,
            watch,
            repeat,
            messages: PhantomData,
        };
        Ok((requests, replies))
    }

    /// Makes a call whose answer is a stream.
    pub(crate) async fn open_replies<Q: Message, R: Message>(
        &self,
        method: Method<Q, R>,
        request: &Q,
        repeat: Repeat,
    ) -> Result<Replies<R>, Error> {
        let (mut requests, replies) = self.open(method, repeat).await?;
        // If the stream has ended already, its end says why.
        if requests.send(request).await?.is_ok() {
            requests.finish();
        }
        Ok(replies)
    }

    async fn open_stream(
        &self,
        head: &RequestHead,
        deadline: Option<Instant>,
    ) -> Result<(Sending, Receiving), Lost> {
        let mut tries = 1;
        loop {
            let connection = self.channel.link.connection(deadline).await?;
            match connection.stream(head, deadline.map(Instant::into_std)) {
                Err(Failed::NotSent(NotSent::Closed(_) | NotSent::Closing))
                    if tries < MAX_CONNECTIONS =>
                {
                    tries += 1;
                }
                opened => return opened.map_err(Lost::Call),
            }
        }
    }

    fn heads(&self) -> &crate::method::Heads {
        match self.mode {
            Mode::Real => &self.channel.heads,
            Mode::DryRun => &self.channel.dry_heads,
        }
    }
}

impl From<NoLink> for Lost {
    fn from(no: NoLink) -> Self {
        match no {
            NoLink::Failed(failure) => Self::Connect(failure),
            NoLink::Deadline => Self::Call(Failed::Deadline { sent: false }),
        }
    }
}

/// The message of an answer, if it has one.
fn finish(answer: Result<Response, Lost>, repeat: Repeat) -> Result<Bytes, Error> {
    match answer {
        Ok(answer) if answer.trailers.code.0 == 0 => Ok(answer.message),
        Ok(answer) => Err(status::from_trailers(&answer.trailers, repeat)),
        Err(lost) => Err(status::from_lost(lost, repeat)),
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

    /// Before it is written once more.
    fn again(&mut self) {
        self.sizes.clear();
        let _ = self.message.compute_size(&mut self.sizes);
    }
}

/// What is sent on a stream. Dropped before [`finish`](Self::finish), it gives the call up.
pub(crate) struct Requests<Q> {
    sending: Sending,
    sent: Option<Arc<AtomicU64>>,
    messages: PhantomData<fn(Q)>,
}

impl<Q: Message> Requests<Q> {
    /// Sends a message; `Ok(Err(_))` if the stream has ended, of which its replies tell.
    pub(crate) async fn send(&mut self, message: &Q) -> Result<Result<(), SendClosed>, Error> {
        let mut encoded = Encoded::new(message)?;
        let bytes = encoded.bytes as u64;
        let sent = self.sending.send(|out| encoded.write(out)).await;
        if let (Ok(()), Some(sum)) = (sent, &self.sent) {
            sum.fetch_add(bytes, Ordering::Relaxed);
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
                if let Some(watch) = &mut self.watch {
                    watch.received(message.len());
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
        if let Some(mut watch) = self.watch.take() {
            watch.ended(Code::from_number(trailers.code.0.into()));
        }
        match trailers.code.0 {
            0 => Ok(None),
            _ => Err(status::from_trailers(trailers, self.repeat)),
        }
    }

    fn failed(&mut self, failed: Failed) -> Error {
        let lost = Lost::Call(failed);
        if let Some(mut watch) = self.watch.take() {
            watch.lost(&lost);
        }
        status::from_lost(lost, self.repeat)
    }
}
