//! The listener for those who run the server: health for probes, metrics for Prometheus, and
//! channelz over gRPC. Clear text, without credentials: bind it where only they are.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use connectrpc::{CompressionPolicy, ConnectRpcBody, ConnectRpcService, Router};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::Service as _;

use larder_accounts::Accounts;

use crate::snapshot::Stats;
use crate::telemetry::exposition::Page;

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Calls at a time on one of them, over HTTP/2.
const MAX_STREAMS: u32 = 32;
/// Longest time for the head of a request, and for a sign of life of a client of HTTP/2.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Out of file descriptors: wait for some to come back, rather than spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Largest request of a call, bytes: they hold a few numbers.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// What there is to tell.
pub(crate) struct Admin {
    state: AtomicU8,
    /// There once calls are served.
    serving: OnceLock<Serving>,
    snapshots: Option<Arc<Stats>>,
    /// Those of this process.
    accounts: Option<Arc<Accounts>>,
}

/// What a server tells once it serves calls.
struct Serving {
    metrics: Box<dyn Fn() -> String + Send + Sync>,
    grpc: ConnectRpcService<Router>,
}

/// What `/readyz` says.
const LOADING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// Prometheus' text format.
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Admin {
    /// Of a server that is not ready yet.
    pub(crate) fn new(snapshots: Option<Arc<Stats>>, accounts: Option<Arc<Accounts>>) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(LOADING),
            serving: OnceLock::new(),
            snapshots,
            accounts,
        })
    }

    /// From now on the server answers calls: `metrics` makes the page at `/metrics`;
    /// `grpc` has the methods.
    pub(crate) fn serving(
        &self,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        grpc: Router,
    ) {
        let limits = connectrpc::Limits::default()
            .with_max_message_size(MAX_REQUEST_BYTES)
            .with_max_request_body_size(MAX_REQUEST_BYTES);
        // A server begins to serve once.
        let _ = self.serving.set(Serving {
            metrics: Box::new(metrics),
            grpc: ConnectRpcService::new(grpc)
                .with_limits(limits)
                .with_compression_policy(CompressionPolicy::disabled()),
        });
        self.state.store(READY, Ordering::Relaxed);
    }

    /// From now on the server is not to be sent calls.
    pub(crate) fn drain(&self) {
        self.state.store(DRAINING, Ordering::Relaxed);
    }

    /// Answers on a socket until the runtime ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                admin.connection(stream, peer).await;
                drop(place);
            });
        }
    }

    async fn connection(self: Arc<Self>, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = Arc::clone(&self);
            async move { Ok::<_, Infallible>(admin.serve_one(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(HEADER_TIMEOUT)
            .keep_alive_timeout(HEADER_TIMEOUT);
        let served = builder
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "an admin connection ended");
        }
    }

    /// gRPC by its content type, all else by its path.
    async fn serve_one(&self, request: Request<Incoming>) -> Response<ConnectRpcBody> {
        let kind = request.headers().get(CONTENT_TYPE);
        let is_call = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let serving = self.serving.get().filter(|_| is_call);
        let Some(serving) = serving else {
            let answer = self.answer(request.method(), request.uri().path());
            return answer.map(ConnectRpcBody::Full);
        };
        match serving.grpc.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/healthz" => text(StatusCode::OK, self.health()),
            "/readyz" => match self.state.load(Ordering::Relaxed) {
                READY => text(StatusCode::OK, "ready\n"),
                DRAINING => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, "loading\n"),
            },
            "/metrics" => {
                let mut answer = text(StatusCode::OK, self.metrics());
                answer.headers_mut().insert(CONTENT_TYPE, PROMETHEUS);
                answer
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "/healthz, /readyz, /metrics, and grpc.channelz.v1 over gRPC\n",
            ),
        }
    }

    /// Alive, and what is wrong all the same. A disk that takes nothing is no reason to
    /// end the server: it answers from memory, which would be lost.
    fn health(&self) -> String {
        let snapshots = self.snapshots.as_ref().is_some_and(|it| it.is_failing());
        let accounts = self
            .accounts
            .as_ref()
            .is_some_and(|it| it.writes().is_failing);
        let wrong = [
            (snapshots, "the last snapshot could not be written\n"),
            (accounts, "the accounts database could not be written\n"),
        ];
        let wrong = wrong
            .into_iter()
            .filter_map(|(is, what)| is.then_some(what));
        std::iter::once("ok\n").chain(wrong).collect()
    }

    fn metrics(&self) -> String {
        let metrics = self.serving.get().map(|serving| &serving.metrics);
        let mut text = metrics.map_or_else(String::new, |metrics| metrics());
        if let Some(snapshots) = &self.snapshots {
            let mut page = Page::default();
            snapshots.write(&mut page);
            text.push_str(&page.into_text());
        }
        if let Some(accounts) = &self.accounts {
            let writes = accounts.writes();
            let mut page = Page::default();
            page.counter(
                "larder_accounts_write_failures_total",
                "Changes of accounts and tokens that could not be made durable.",
            )
            .value(writes.failed);
            page.gauge(
                "larder_accounts_write_failing",
                "1 if the last change of accounts could not be made durable.",
            )
            .value(u8::from(writes.is_failing));
            text.push_str(&page.into_text());
        }
        text
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let body = body.into();
    // The body does not tell its length where gRPC is served beside it.
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_LENGTH, length);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn check(admin: &Admin, method: Method, path: &str, status: u16, part: &str) {
        let answer = admin.answer(&method, path);
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        let body = answer.into_body().collect().await.expect("a body");
        let body = String::from_utf8(body.to_bytes().to_vec()).expect("text");
        assert!(body.contains(part), "{method} {path}: {body}");
    }

    #[tokio::test]
    async fn health_and_counters_are_told() {
        let admin = Admin::new(Some(Arc::default()), None);
        check(&admin, Method::GET, "/healthz", 200, "ok").await;
        check(&admin, Method::GET, "/readyz", 503, "loading").await;
        let saves = "larder_snapshot_saves_total 0\n";
        check(&admin, Method::GET, "/metrics", 200, saves).await;
        admin.serving(|| "up 1\n".to_owned(), Router::new());
        check(&admin, Method::GET, "/healthz", 200, "ok").await;
        check(&admin, Method::GET, "/readyz", 200, "ready").await;
        check(&admin, Method::GET, "/metrics", 200, "up 1\n").await;
        check(&admin, Method::GET, "/", 404, "/metrics").await;
        check(&admin, Method::POST, "/readyz", 405, "GET").await;
        admin.drain();
        check(&admin, Method::GET, "/readyz", 503, "draining").await;
        check(&admin, Method::GET, "/healthz", 200, "ok").await;
    }
}
