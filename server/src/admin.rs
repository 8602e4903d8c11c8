//! The listener for those who run the server: health for probes, counters for
//! Prometheus. Clear text, without credentials: bind it where only they are.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use larder_transport::shared::Shared;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::snapshot::Stats;

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Longest time for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Out of file descriptors: wait for some to come back, rather than spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What there is to tell.
pub(crate) struct Admin {
    state: AtomicU8,
    /// There once calls are served.
    transport: OnceLock<Arc<Shared>>,
    snapshots: Option<Arc<Stats>>,
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
    pub(crate) fn new(snapshots: Option<Arc<Stats>>) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(LOADING),
            transport: OnceLock::new(),
            snapshots,
        })
    }

    /// From now on the server answers calls.
    pub(crate) fn serving(&self, transport: Arc<Shared>) {
        // A server begins to serve once.
        let _ = self.transport.set(transport);
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
            let answer = self.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "an admin connection ended");
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
            "/healthz" => text(StatusCode::OK, "ok\n"),
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
            _ => text(StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n"),
        }
    }

    /// The counters of the transport, and the memory that waits for its clients.
    fn metrics(&self) -> String {
        let mut page = String::new();
        if let Some(snapshots) = &self.snapshots {
            snapshots.write(&mut page);
        }
        let Some(transport) = self.transport.get() else {
            return page;
        };
        let counters = transport.stats().iter();
        for (name, value) in counters {
            // Writing to a string does not fail.
            let _ = writeln!(page, "# TYPE larder_transport_{name}_total counter");
            let _ = writeln!(page, "larder_transport_{name}_total {value}");
        }
        let buffered = transport.buffered_bytes();
        let _ = writeln!(page, "# TYPE larder_transport_buffered_bytes gauge");
        let _ = writeln!(page, "larder_transport_buffered_bytes {buffered}");
        page
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
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
        let admin = Admin::new(Some(Arc::default()));
        check(&admin, Method::GET, "/healthz", 200, "ok").await;
        check(&admin, Method::GET, "/readyz", 503, "loading").await;
        let saves = "larder_snapshot_saves_total 0\n";
        check(&admin, Method::GET, "/metrics", 200, saves).await;
        admin.serving(Arc::new(Shared::new(1 << 20)));
        check(&admin, Method::GET, "/healthz", 200, "ok").await;
        check(&admin, Method::GET, "/readyz", 200, "ready").await;
        check(
            &admin,
            Method::GET,
            "/metrics",
            200,
            "larder_transport_buffered_bytes 0\n",
        )
        .await;
        check(
            &admin,
            Method::GET,
            "/metrics",
            200,
            "_client_resets_total 0\n",
        )
        .await;
        check(&admin, Method::GET, "/", 404, "/metrics").await;
        check(&admin, Method::POST, "/readyz", 405, "GET").await;
        admin.drain();
        check(&admin, Method::GET, "/readyz", 503, "draining").await;
        check(&admin, Method::GET, "/healthz", 200, "ok").await;
    }
}
