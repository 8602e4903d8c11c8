//! What stands around every call of a client: told as it starts and as it ends, unary and
//! streaming alike.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_api::errors::Code;
use larder_transport::client::{Failed, RequestHead, Response};
use tokio::time::Instant;

use crate::call::Lost;
use crate::channel::{Done, Outcome};
use crate::error::Error;
use crate::status;

/// The credential, which interceptors neither see nor set.
const AUTHORIZATION: &str = "authorization";

/// Is told of every call of a client, unary and streaming, on the thread that makes it: do no more
/// than look, count or hand on.
///
/// ```
/// use larder_client::{CallEnd, CallStart, Interceptor, Metadata};
///
/// struct Traced;
///
/// impl Interceptor for Traced {
///     fn start(&self, _call: &CallStart<'_>, metadata: &mut Metadata<'_>) {
///         let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
///         metadata.insert("traceparent", parent).expect("a name and a value of metadata");
///     }
///
///     fn end(&self, call: &CallEnd<'_>) {
///         println!("{} {} {:?}", call.method, call.code, call.duration);
///     }
/// }
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// A call starts. What is put into its metadata goes with it.
    fn start(&self, call: &CallStart<'_>, metadata: &mut Metadata<'_>) {
        let _ = (call, metadata);
    }

    /// A call has ended. Told once for each that was started: also of those that were given up.
    fn end(&self, call: &CallEnd<'_>) {
        let _ = call;
    }

    /// An attempt of a call starts: one that is tried again or hedged has several. What is put
    /// into the metadata goes with this attempt alone.
    fn attempt_start(&self, attempt: &AttemptStart<'_>, metadata: &mut Metadata<'_>) {
        let _ = (attempt, metadata);
    }

    /// An attempt has ended. Told once for each that was started: also of those that were given
    /// up, as those that a hedge overtook are.
    fn attempt_end(&self, attempt: &AttemptEnd<'_>) {
        let _ = attempt;
    }
}

/// An attempt that starts.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttemptStart<'a> {
    /// Its call's path, `/package.Service/Method`.
    pub method: &'a str,
    /// Where it goes: an address and a port, or `unix:PATH`.
    pub address: &'a str,
    /// Attempts of its call before this one that a server may have seen.
    pub previous_attempts: u32,
}

/// An attempt that has ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttemptEnd<'a> {
    /// Its call's path, `/package.Service/Method`.
    pub method: &'a str,
    /// Where it went.
    pub address: &'a str,
    /// How it ended; one that was given up is [`Code::Cancelled`].
    pub code: Code,
    /// From its start to its status.
    pub duration: Duration,
    /// Bytes of the messages that were sent, without framing.
    pub request_bytes: u64,
    /// Bytes of the messages that came, without framing.
    pub response_bytes: u64,
    /// Attempts of its call before this one that a server may have seen.
    pub previous_attempts: u32,
}

/// A call that starts.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallStart<'a> {
    /// Its path, `/package.Service/Method`.
    pub method: &'a str,
    /// How long it may take, if that is limited.
    pub timeout: Option<Duration>,
}

/// A call that has ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallEnd<'a> {
    /// Its path, `/package.Service/Method`.
    pub method: &'a str,
    /// How it ended. A call that was given up is [`Code::DeadlineExceeded`] if its time was up, and
    /// [`Code::Cancelled`] if not.
    pub code: Code,
    /// From its start to its status.
    pub duration: Duration,
    /// Bytes of the messages that were sent, without framing.
    pub request_bytes: u64,
    /// Bytes of the messages that came, without framing.
    pub response_bytes: u64,
    /// Attempts after the first that a failure made necessary.
    pub retries: u32,
    /// Attempts after the first that count for nothing, for no server took the one before (gRFC
    /// A6).
    pub transparent_retries: u32,
    /// Attempts after the first that did not wait for the one before.
    pub hedges: u32,
    /// How long no attempt was under way after the first.
    pub retry_delay: Duration,
}

/// The metadata that goes with a call. The credential is not shown.
pub struct Metadata<'a>(&'a mut RequestHead);

impl Metadata<'_> {
    /// The first value of a name, if it is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        if name == AUTHORIZATION || name.starts_with(':') {
            return None;
        }
        let value = self.0.value(&name)?;
        std::str::from_utf8(value).ok()
    }

    /// Sets a value, in place of those there were.
    ///
    /// # Errors
    ///
    /// If `name` or `value` is none that metadata can have, or `name` is the credential's or one
    /// that gRPC keeps to itself.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let wrong = |what: &str| Error::configuration(format!("metadata {name:?}: {what}"));
        let lower = name.to_ascii_lowercase();
        // gRPC over HTTP/2, "Custom-Metadata", and what this client says itself.
        let is_kept =
            lower.starts_with("grpc-") || [AUTHORIZATION, "content-type", "te"].contains(&&*lower);
        if is_kept {
            return Err(wrong("is not to be set"));
        }
        let is_text = value
            .bytes()
            .all(|octet| octet == b'\t' || octet >= b' ' && octet != 0x7f);
        if !is_text {
            return Err(wrong("has no such value"));
        }
        self.0
            .set_metadata(&lower, value.as_bytes())
            .map_err(|error| wrong("cannot be sent").with_source(error))
    }
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.names().filter(|name| !name.starts_with(':'));
        f.debug_list().entries(names).finish()
    }
}

/// In the order in which they are told.
#[derive(Clone, Default)]
pub(crate) struct Interceptors(Arc<Vec<Arc<dyn Interceptor>>>);

impl Interceptors {
    pub(crate) fn push(&mut self, interceptor: Arc<dyn Interceptor>) {
        Arc::make_mut(&mut self.0).push(interceptor);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interceptors", self.0.len())
    }
}

/// A call under way. Dropped, it has ended.
pub(crate) struct Watch {
    interceptors: Interceptors,
    method: &'static str,
    started: Instant,
    timeout: Option<Duration>,
    request_bytes: Arc<AtomicU64>,
    response_bytes: u64,
    /// `None`: its status has not come.
    code: Option<Code>,
    made: Made,
}

/// What a call was made of.
#[derive(Debug, Clone, Copy, Default)]
struct Made {
    retries: u32,
    transparent: u32,
    hedges: u32,
    delay: Duration,
}

/// Who is told of a call's attempts.
pub(crate) struct Told {
    interceptors: Interceptors,
    method: &'static str,
    request_bytes: Arc<AtomicU64>,
}

/// An attempt under way. Dropped, it has ended.
pub(crate) struct AttemptWatch {
    interceptors: Interceptors,
    method: &'static str,
    address: Arc<str>,
    previous_attempts: u32,
    started: Instant,
    request_bytes: Arc<AtomicU64>,
    response_bytes: u64,
    /// `None`: its status has not come.
    code: Option<Code>,
}

impl Watch {
    /// Tells that a call starts.
    pub(crate) fn start(
        interceptors: Interceptors,
        method: &'static str,
        timeout: Option<Duration>,
        head: &mut RequestHead,
    ) -> Self {
        let watch = Self {
            interceptors,
            method,
            started: Instant::now(),
            timeout,
            request_bytes: Arc::default(),
            response_bytes: 0,
            code: None,
            made: Made::default(),
        };
        let start = CallStart { method, timeout };
        for interceptor in &*watch.interceptors.0 {
            interceptor.start(&start, &mut Metadata(head));
        }
        watch
    }

    /// Where the bytes of requests are counted that are sent from elsewhere.
    pub(crate) fn request_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.request_bytes)
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.request_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) const fn received(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    /// The server has said how the call ended.
    pub(crate) const fn ended(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// The call has ended without that.
    pub(crate) fn lost(&mut self, lost: &Lost) {
        self.code = Some(status::code_of(lost));
    }

    /// The call is done.
    pub(crate) fn done(&mut self, done: &Done) {
        let count = |all: usize| u32::try_from(all).unwrap_or(u32::MAX);
        self.made = Made {
            // What is hedged is not retried.
            retries: match done.hedges {
                0 => count(done.earlier.len()),
                _ => 0,
            },
            transparent: done.transparent,
            hedges: done.hedges,
            delay: done.delay,
        };
        match &done.outcome {
            Outcome::Ended(Ok(answer)) => {
                self.received(answer.message_bytes);
                self.ended(Code::from_number(answer.trailers.code.0.into()));
            }
            Outcome::Ended(Err(failed)) => self.code = Some(status::code_of_failure(failed)),
            Outcome::Unreached(unreached) => self.lost(&Lost::Unreached(unreached.clone())),
        }
    }

    /// Who is told of its attempts.
    pub(crate) fn told(&self) -> Told {
        Told {
            interceptors: self.interceptors.clone(),
            method: self.method,
            request_bytes: Arc::clone(&self.request_bytes),
        }
    }
}

impl Told {
    /// Tells that an attempt starts.
    pub(crate) fn start(
        &self,
        address: Arc<str>,
        previous_attempts: u32,
        head: &mut RequestHead,
    ) -> AttemptWatch {
        let start = AttemptStart {
            method: self.method,
            address: &address,
            previous_attempts,
        };
        for interceptor in &*self.interceptors.0 {
            interceptor.attempt_start(&start, &mut Metadata(head));
        }
        AttemptWatch {
            interceptors: self.interceptors.clone(),
            method: self.method,
            address,
            previous_attempts,
            started: Instant::now(),
            request_bytes: Arc::clone(&self.request_bytes),
            response_bytes: 0,
            code: None,
        }
    }
}

impl AttemptWatch {
    pub(crate) const fn received(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    pub(crate) const fn ended(&mut self, code: Code) {
        self.code = Some(code);
    }

    pub(crate) fn failed(&mut self, failed: &Failed) {
        self.code = Some(status::code_of_failure(failed));
    }

    pub(crate) fn answered(&mut self, answer: &Result<Response, Failed>) {
        match answer {
            Ok(answer) => {
                self.received(answer.message_bytes);
                self.ended(Code::from_number(answer.trailers.code.0.into()));
            }
            Err(failed) => self.failed(failed),
        }
    }
}

impl Drop for AttemptWatch {
    fn drop(&mut self) {
        let end = AttemptEnd {
            method: self.method,
            address: &self.address,
            code: self.code.unwrap_or(Code::Cancelled),
            duration: self.started.elapsed(),
            request_bytes: self.request_bytes.load(Ordering::Relaxed),
            response_bytes: self.response_bytes,
            previous_attempts: self.previous_attempts,
        };
        for interceptor in &*self.interceptors.0 {
            interceptor.attempt_end(&end);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let given_up = match self.timeout {
            Some(timeout) if timeout <= duration => Code::DeadlineExceeded,
            _ => Code::Cancelled,
        };
        let end = CallEnd {
            method: self.method,
            code: self.code.unwrap_or(given_up),
            duration,
            request_bytes: self.request_bytes.load(Ordering::Relaxed),
            response_bytes: self.response_bytes,
            retries: self.made.retries,
            transparent_retries: self.made.transparent,
            hedges: self.made.hedges,
            retry_delay: self.made.delay,
        };
        for interceptor in &*self.interceptors.0 {
            interceptor.end(&end);
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_transport::client::Scheme;

    use super::*;

    #[test]
    fn metadata_takes_what_is_not_kept_by_others() {
        let head = RequestHead::new(Scheme::Http, "localhost", "/a.B/C").unwrap();
        let mut head = head.with(AUTHORIZATION, b"Bearer secret").unwrap();
        let mut metadata = Metadata(&mut head);
        assert_eq!(metadata.get("Authorization"), None);
        assert_eq!(metadata.get(":path"), None);
        assert!(metadata.insert("Traceparent", "00-1").is_ok());
        assert!(metadata.insert("traceparent", "00-2").is_ok());
        assert_eq!(metadata.get("traceparent"), Some("00-2"));
        for (name, value) in [
            ("authorization", "x"),
            ("grpc-timeout", "1S"),
            ("te", "x"),
            ("a b", "x"),
            (":path", "/x"),
            ("x", "a\nb"),
        ] {
            assert!(metadata.insert(name, value).is_err(), "{name}");
        }
        assert!(!format!("{metadata:?}").contains("secret"));
        assert!(format!("{metadata:?}").contains("traceparent"));
    }
}
