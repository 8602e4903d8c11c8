//! What stands around every call of a client: told as it starts and as it ends, unary and
//! streaming alike.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use connectrpc::ConnectError;
use connectrpc::client::{BoxFuture, ClientBody, ClientTransport, SharedHttp2Connection};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use larder_api::errors::Code;
use larder_api::wire::PREVIOUS_ATTEMPTS;
use tokio::time::Instant;

use crate::error::Error;

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
}

/// A call that starts.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallStart<'a> {
    /// Its path, `/package.Service/Method`.
    pub method: &'a str,
    /// How long it may take, if that is limited.
    pub timeout: Option<Duration>,
    /// Tries before this one.
    pub previous_attempts: u32,
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
    /// Tries before this one.
    pub previous_attempts: u32,
}

/// The metadata that goes with a call. The credential is not shown.
pub struct Metadata<'a>(&'a mut HeaderMap);

impl Metadata<'_> {
    /// The first value of a name, if it is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        let is_hidden = name.eq_ignore_ascii_case(AUTHORIZATION.as_str());
        let value = self.0.get(name).filter(|_| !is_hidden);
        value.and_then(|value| value.to_str().ok())
    }

    /// Sets a value, in place of those there were.
    ///
    /// # Errors
    ///
    /// If `name` or `value` is none that metadata can have, or `name` is the credential's or one
    /// that gRPC keeps to itself.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let wrong = |what: &str| Error::configuration(format!("metadata {name:?}: {what}"));
        let parsed: HeaderName = name.parse().map_err(|_| wrong("is no name"))?;
        // gRPC over HTTP/2, "Custom-Metadata", and what this client says itself.
        let is_kept = parsed.as_str().starts_with("grpc-")
            || [AUTHORIZATION, http::header::CONTENT_TYPE, http::header::TE].contains(&parsed);
        if is_kept {
            return Err(wrong("is not to be set"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| wrong("has no such value"))?;
        self.0.insert(parsed, value);
        Ok(())
    }
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.keys().map(HeaderName::as_str);
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
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interceptors", self.0.len())
    }
}

/// The connection, with what stands around its calls.
#[derive(Clone)]
pub(crate) struct Transport {
    connection: SharedHttp2Connection,
    interceptors: Interceptors,
}

impl Transport {
    pub(crate) fn new(connection: SharedHttp2Connection, interceptors: Interceptors) -> Self {
        Self {
            connection,
            interceptors,
        }
    }
}

impl ClientTransport for Transport {
    type ResponseBody = ReplyBody;
    type Error = ConnectError;

    fn send(
        &self,
        request: Request<ClientBody>,
    ) -> BoxFuture<'static, Result<Response<ReplyBody>, ConnectError>> {
        let connection = self.connection.clone();
        if self.interceptors.0.is_empty() {
            return Box::pin(async move {
                let response = connection.send(request).await?;
                Ok(response.map(|body| ReplyBody { body, watch: None }))
            });
        }
        let (watch, request) = Watch::start(self.interceptors.clone(), request);
        Box::pin(async move {
            // Dropped before it is sent, or with its body: then it has ended.
            let mut watch = watch;
            match connection.send(request).await {
                Ok(response) => {
                    watch.look(response.headers());
                    let watch = Some(watch);
                    Ok(response.map(|body| ReplyBody { body, watch }))
                }
                Err(error) => {
                    watch.code = Some(Code::from_number(error.code.grpc_code()));
                    Err(error)
                }
            }
        })
    }
}

/// A call under way. Dropped, it has ended.
struct Watch {
    interceptors: Interceptors,
    method: String,
    started: Instant,
    timeout: Option<Duration>,
    previous_attempts: u32,
    request_bytes: Arc<AtomicU64>,
    response: Messages,
    response_bytes: u64,
    /// `None`: its status has not come.
    code: Option<Code>,
}

impl Watch {
    fn start(
        interceptors: Interceptors,
        request: Request<ClientBody>,
    ) -> (Self, Request<ClientBody>) {
        let (mut head, body) = request.into_parts();
        let text = |name: &str| head.headers.get(name).and_then(|it| it.to_str().ok());
        let attempts = text(PREVIOUS_ATTEMPTS).and_then(|text| text.parse().ok());
        let watch = Self {
            interceptors,
            method: head.uri.path().to_owned(),
            started: Instant::now(),
            timeout: text("grpc-timeout").and_then(timeout),
            previous_attempts: attempts.unwrap_or(0),
            request_bytes: Arc::default(),
            response: Messages::default(),
            response_bytes: 0,
            code: None,
        };
        let start = CallStart {
            method: &watch.method,
            timeout: watch.timeout,
            previous_attempts: watch.previous_attempts,
        };
        for interceptor in &*watch.interceptors.0 {
            interceptor.start(&start, &mut Metadata(&mut head.headers));
        }
        let sum = Arc::clone(&watch.request_bytes);
        let mut messages = Messages::default();
        let body = body.map_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                sum.fetch_add(messages.count(data), Ordering::Relaxed);
            }
            frame
        });
        (watch, Request::from_parts(head, body.boxed()))
    }

    /// The status, where it stands.
    fn look(&mut self, head: &HeaderMap) {
        let status = head.get("grpc-status").and_then(|it| it.to_str().ok());
        if let Some(status) = status {
            let number = status.parse().ok();
            self.code = Some(number.map_or(Code::Unknown, Code::from_number));
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
            method: &self.method,
            code: self.code.unwrap_or(given_up),
            duration,
            request_bytes: self.request_bytes.load(Ordering::Relaxed),
            response_bytes: self.response_bytes,
            previous_attempts: self.previous_attempts,
        };
        for interceptor in &*self.interceptors.0 {
            interceptor.end(&end);
        }
    }
}

/// gRPC over HTTP/2, "Timeout", as this client writes it.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.checked_mul(3600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Counts the bytes of messages in a body of gRPC ("Length-Prefixed-Message"), however it is cut.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    seen: usize,
    left: usize,
}

impl Messages {
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut messages = 0;
        while !bytes.is_empty() {
            let in_prefix = self.seen < self.prefix.len();
            let most = match in_prefix {
                true => self.prefix.len() - self.seen,
                false => self.left,
            };
            let (here, rest) = bytes.split_at(most.min(bytes.len()));
            bytes = rest;
            if in_prefix {
                self.prefix[self.seen..self.seen + here.len()].copy_from_slice(here);
                self.seen += here.len();
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
            } else {
                self.left -= here.len();
                messages += here.len() as u64;
            }
            if self.seen == self.prefix.len() && self.left == 0 {
                self.seen = 0;
            }
        }
        messages
    }
}

/// The body of a reply, which ends its call when it is dropped.
pub(crate) struct ReplyBody {
    body: <SharedHttp2Connection as ClientTransport>::ResponseBody,
    watch: Option<Watch>,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = <<SharedHttp2Connection as ClientTransport>::ResponseBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(watch) = &mut self.watch {
            match &polled {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        watch.response_bytes += watch.response.count(data);
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        watch.look(trailers);
                        self.watch = None;
                    }
                }
                Some(Err(_)) => {
                    watch.code.get_or_insert(Code::Unavailable);
                    self.watch = None;
                }
                None => {
                    // gRPC over HTTP/2: an answer without a status is `UNKNOWN`.
                    watch.code.get_or_insert(Code::Unknown);
                    self.watch = None;
                }
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_takes_what_is_not_kept_by_others() {
        let mut head = HeaderMap::new();
        head.insert(AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        let mut metadata = Metadata(&mut head);
        assert_eq!(metadata.get("Authorization"), None);
        assert!(metadata.insert("traceparent", "00-1").is_ok());
        assert_eq!(metadata.get("traceparent"), Some("00-1"));
        for (name, value) in [
            ("authorization", "x"),
            ("grpc-timeout", "1S"),
            ("te", "x"),
            ("a b", "x"),
            ("x", "a\nb"),
        ] {
            assert!(metadata.insert(name, value).is_err(), "{name}");
        }
        assert!(!format!("{metadata:?}").contains("secret"));
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let body = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x01d";
        for chunk in 1..=body.len() {
            let mut messages = Messages::default();
            let sum: u64 = body.chunks(chunk).map(|it| messages.count(it)).sum();
            assert_eq!(sum, 4, "in chunks of {chunk}");
        }
    }
}
