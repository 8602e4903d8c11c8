//! What comes out of the edge for what goes in, in every protocol, over a store
//! that can be told to misbehave.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use buffa::Message as _;
use bytes::Bytes;
use http::{Method as Verb, Request};
use http_body_util::{BodyExt as _, Full};
use larder_accounts::{Accounts, UnixMillis};
use larder_api::errors::{Code, Reason};
use larder_api::google_rpc;
use larder_model::{
    AccountId, AccountName, Condition, Cursor, Deleted, EntryKey, EntryRef, Expiry, Increment,
    Incremented, Limits, Once, OnceError, Page, Quota, ReadEffect, ReplayLimits, ReplayUse,
    Request as Asked, ScanBudget, Selection, Set, Store, StoreError, Usage, Write, Written,
};
use larder_transport::serve::Peer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Edge, Protocols};
use crate::authority::{Anonymous, Authority};
use crate::clock::Clock;
use crate::config::{Admission, Compression, Deadlines, Role};
use crate::connection::Connection;
use crate::core::Core;
use crate::gauge::Gauge;
use crate::layers::origin::OriginPolicy;
use crate::refusals::Refusals;
use crate::rpc;
use crate::telemetry::Telemetry;
use crate::tenants::Tenants;

mod deadlines;
mod removals;
mod stopped;

/// Holds nothing but a large value under `large`. The key `panic` panics, the
/// key `wait` waits for ever.
pub(crate) struct Moody;

impl Moody {
    async fn mood(at: EntryKey<'_>) {
        match at.key.as_bytes() {
            b"panic" => panic!("asked to"),
            b"wait" => std::future::pending().await,
            _ => {}
        }
    }
}

type Answer<T> = Result<T, StoreError>;

impl Store for Moody {
    type Account = ();

    fn open(&self, _: &AccountId, _: Quota) {}

    fn close(&self, _: &AccountName) {}

    async fn get<R: Send>(
        &self,
        (): &(),
        _: larder_model::Call,
        at: EntryKey<'_>,
        _: ReadEffect,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R + Send,
    ) -> Answer<R> {
        Self::mood(at).await;
        if at.key.as_bytes() != b"large" {
            return Ok(visit(None));
        }
        Ok(visit(Some(EntryRef {
            namespace: "default",
            key: b"large",
            value: LARGE,
            meta: larder_model::EntryMeta {
                version: larder_model::Version::new(1),
                expiry: Expiry::Never,
                size_bytes: 1,
                flags: 0,
            },
        })))
    }

    async fn get_and_touch<R: Send>(
        &self,
        (): &(),
        _: larder_model::Call,
        at: EntryKey<'_>,
        _: Expiry,
        visit: impl FnOnce(Option<EntryRef<'_>>) -> R + Send,
    ) -> Answer<R> {
        Self::mood(at).await;
        Ok(visit(None))
    }

    async fn set(&self, (): &(), _: larder_model::Call, set: Set<'_>) -> Answer<Written> {
        Self::mood(set.at).await;
        stopped::set(set.at).await;
        Ok(Written::NotApplied(None))
    }

    async fn delete(
        &self,
        (): &(),
        _: larder_model::Call,
        at: EntryKey<'_>,
        _: Condition,
    ) -> Answer<Deleted> {
        Self::mood(at).await;
        Ok(Deleted::NotApplied(None))
    }

    async fn increment(
        &self,
        (): &(),
        _: larder_model::Call,
        increment: Increment<'_>,
    ) -> Answer<Incremented> {
        Self::mood(increment.at).await;
        Err(StoreError::Overflow)
    }

    async fn once(
        &self,
        (): &(),
        _: larder_model::Call,
        _: Asked<'_>,
        _: Write<'_>,
    ) -> Result<Once, OnceError> {
        Err(OnceError::InProgress)
    }

    async fn recall(
        &self,
        (): &(),
        _: larder_model::Call,
        _: Asked<'_>,
    ) -> Result<Option<larder_model::Outcome>, OnceError> {
        Err(OnceError::Reused)
    }

    async fn rehearse(
        &self,
        (): &(),
        call: larder_model::Call,
        set: Set<'_>,
        _: &mut larder_model::Rehearsal,
    ) -> Answer<Written> {
        self.set(&(), call, set).await
    }

    async fn replay_use(&self, (): &(), _: larder_model::Call) -> Answer<ReplayUse> {
        Ok(ReplayUse::default())
    }

    fn replay_limits(&self) -> ReplayLimits {
        ReplayLimits::default()
    }

    async fn list(
        &self,
        (): &(),
        _: larder_model::Call,
        _: Selection<'_>,
        _: Option<&[u8]>,
        _: usize,
    ) -> Answer<Page> {
        Ok(Page::default())
    }

    async fn scan(
        &self,
        (): &(),
        _: larder_model::Call,
        selection: Selection<'_>,
        _: Cursor,
        _: ScanBudget,
        visit: impl FnMut(EntryRef<'_>) + Send,
    ) -> Answer<Option<Cursor>> {
        match selection.prefix {
            b"endless" | b"barren" => Ok(Some(stopped::step(selection, visit))),
            b"panic" => panic!("asked to"),
            b"wait" => std::future::pending().await,
            _ => Ok(None),
        }
    }

    async fn delete_prefix(&self, (): &(), _: larder_model::Call, _: Selection<'_>) -> Answer<u64> {
        Ok(0)
    }

    async fn usage(&self, (): &(), _: larder_model::Call) -> Answer<Usage> {
        Err(StoreError::Unavailable("no usage".into()))
    }
}

pub(crate) struct Server {
    edge: Edge<Moody>,
    pub(crate) core: Arc<Core<Moody>>,
    health: Arc<connectrpc_health::StaticChecker>,
    _data: tempfile::TempDir,
}

const PLACES: usize = 2;
static LARGE: &[u8] = &[7; 100_000];
/// Room for one large reply, not for two.
const RARE_BYTES: usize = 150_000;

pub(crate) fn server() -> Server {
    server_with(Admission::default())
}

fn server_with(admission: Admission) -> Server {
    let data = tempfile::tempdir().expect("a directory");
    let entropy = Box::new(count_up());
    let accounts = Accounts::open(data.path(), UnixMillis::new(0), entropy).expect("accounts");
    let accounts = Arc::new(accounts);
    let store = Arc::new(Moody);
    let core = Arc::new(Core {
        callers: crate::callers::Callers::new(),
        certificate_accounts: None,
        audit: crate::audit::Audit::open(&crate::config::AuditConfig::default()).expect("no file"),
        admission,
        deadlines: Deadlines::default(),
        compression: Compression::default(),
        refusals: Refusals::default(),
        tenants: Tenants::new(Arc::clone(&store)),
        store,
        authority: Authority::Local(Arc::clone(&accounts)),
        accounts: Some(accounts),
        anonymous: Some(Anonymous::new(
            AccountName::parse("default").expect("a name"),
        )),
        origins: OriginPolicy {
            allowed: crate::live::Live::new(vec!["https://app.example.com".into()]),
            guard_host: true,
        },
        limits: crate::live::Live::new(Limits::default()),
        transport: crate::live::Live::new(larder_transport::serve::Config::default()),
        calls: Arc::new(Semaphore::new(PLACES)),
        strangers: Arc::new(Semaphore::new(PLACES)),
        receiving: Gauge::new(1 << 20),
        replying: Gauge::new(RARE_BYTES),
        features: Vec::new(),
        clock: Arc::new(Clock::start()),
        stop: CancellationToken::new(),
        access_log: None,
        telemetry: Telemetry::new([0; 32]),
    });
    let (router, health) = rpc::router(&core, Role::Cache).expect("a router");
    let peer = Peer::Tcp(([127, 0, 0, 1], 1).into());
    let connection = Connection::new(Arc::clone(&core), peer);
    let edge = Edge::new(Protocols::new(router, &core), connection);
    Server {
        edge,
        core,
        health,
        _data: data,
    }
}

/// Bytes that differ each time, as good as random for a test.
fn count_up() -> impl Fn(&mut [u8]) + Send + Sync {
    let next = std::sync::atomic::AtomicU8::new(1);
    move |buffer| {
        let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        buffer.fill(seed);
    }
}

/// The protocols that a call can come in, by the content type of a stream.
const PROTOCOLS: [&str; 4] = [
    "application/grpc",
    "application/grpc-web",
    "application/proto",
    "application/json",
];

fn framed(kind: &str, message: &[u8]) -> Vec<u8> {
    if kind.starts_with("application/grpc") || kind.starts_with("application/connect") {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        [&[0][..], &length, message].concat()
    } else {
        message.to_vec()
    }
}

fn request(kind: &str, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Verb::POST)
        .uri(format!("http://localhost{path}"))
        .header("content-type", kind)
        .body(Full::new(Bytes::from(body)))
        .expect("a request")
}

/// A call of `larder.cache.v1` with just a key, in a protocol.
fn keyed(kind: &str, method: &str, key: &str) -> Request<Full<Bytes>> {
    let message = larder_api::cache_v1::GetRequest {
        key: key.into(),
        ..Default::default()
    };
    let message = if kind.ends_with("json") {
        let key = base64::engine::general_purpose::STANDARD.encode(key);
        format!("{{\"key\":\"{key}\"}}").into_bytes()
    } else {
        message.encode_to_vec()
    };
    let path = format!("/larder.cache.v1.CacheService/{method}");
    request(kind, &path, framed(kind, &message))
}

fn with(
    mut request: Request<Full<Bytes>>,
    name: &'static str,
    value: &str,
) -> Request<Full<Bytes>> {
    let value = value.parse().expect("a header value");
    request.headers_mut().insert(name, value);
    request
}

/// How a call ended: code and reason; `Ok` without one.
pub(crate) type Ended = (Code, Option<Reason>);

const OK: Ended = (Code::Ok, None);

fn failed(reason: Reason) -> Ended {
    (reason.spec().code, Some(reason))
}

async fn ended(server: &Server, request: Request<Full<Bytes>>) -> Ended {
    read(server.edge.serve(request).await).await
}

/// What an answer says, in whichever protocol.
pub(crate) async fn read<B>(response: http::Response<B>) -> Ended
where
    B: http_body::Body<Data = Bytes, Error = std::convert::Infallible>,
{
    let (head, body) = response.into_parts();
    let collected = body.collect().await.expect("a body");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let body = collected.to_bytes();
    let details = trailers
        .get("grpc-status-details-bin")
        .or_else(|| head.headers.get("grpc-status-details-bin"))
        .map(|value| value.to_str().expect("base64").to_owned())
        .or_else(|| web_trailer(&body, "grpc-status-details-bin"));
    if let Some(details) = details {
        let bytes = STANDARD_NO_PAD
            .decode(details.trim_end_matches('='))
            .expect("base64");
        let status = google_rpc::Status::decode(&mut bytes.as_slice()).expect("a status");
        let infos = status
            .details
            .iter()
            .filter(|any| any.type_url.ends_with(".ErrorInfo"));
        let reasons =
            infos.map(|any| google_rpc::ErrorInfo::decode(&mut &any.value[..]).expect("ErrorInfo"));
        let code = Code::from_number(u32::try_from(status.code).expect("a code"));
        return (code, only_reason(reasons.map(|info| info.reason)));
    }
    let json = body
        .strip_prefix(&[2])
        .map_or(&body[..], |frame| &frame[4..]);
    let json: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let error = json.get("error").unwrap_or(&json);
    match error.get("code").and_then(serde_json::Value::as_str) {
        Some(code) => {
            // Connect writes it with one L.
            let code = if code == "canceled" {
                "cancelled"
            } else {
                code
            };
            let code = Code::ALL
                .iter()
                .find(|c| c.name().eq_ignore_ascii_case(code));
            let details = error["details"].as_array().cloned().unwrap_or_default();
            let reasons = details
                .iter()
                .filter(|d| d["type"] == "google.rpc.ErrorInfo");
            let reasons = reasons.map(|d| d["debug"]["reason"].as_str().unwrap_or_default().into());
            (*code.expect("a code"), only_reason(reasons))
        }
        None => {
            assert!(head.status.is_success(), "{} without a reason", head.status);
            OK
        }
    }
}

fn only_reason(mut reasons: impl Iterator<Item = String>) -> Option<Reason> {
    let name = reasons.next().expect("every error carries ErrorInfo");
    assert!(reasons.next().is_none(), "one ErrorInfo");
    Some(Reason::from_name(&name).unwrap_or_else(|| panic!("{name} is not in the catalogue")))
}

fn web_trailer(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body.strip_prefix(&[0x80])?.get(4..)?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches(':').trim().to_owned())
}

#[tokio::test]
async fn every_protocol_is_answered_and_every_error_carries_its_reason() {
    let server = server();
    for kind in PROTOCOLS {
        let check = async |request, expected: Ended| {
            assert_eq!(ended(&server, request).await, expected, "{kind}");
        };
        check(keyed(kind, "Get", "gopher"), OK).await;
        check(keyed(kind, "Get", ""), failed(Reason::KeyEmpty)).await;
        check(
            keyed(kind, "GetUsage", ""),
            failed(Reason::StoreUnavailable),
        )
        .await;
        check(keyed(kind, "Increment", "n"), failed(Reason::Overflow)).await;
        check(
            keyed(kind, "NoSuchMethod", ""),
            failed(Reason::MethodNotFound),
        )
        .await;
        let garbage = framed(kind, b"\xff\xff\xff");
        let path = "/larder.cache.v1.CacheService/Get";
        check(
            request(kind, path, garbage),
            failed(Reason::MalformedRequest),
        )
        .await;
        let wrong = with(keyed(kind, "Get", "k"), "authorization", "Bearer wrong");
        check(wrong, failed(Reason::TokenInvalid)).await;
        let health = request(kind, "/grpc.health.v1.Health/Check", framed(kind, b""));
        if !kind.ends_with("json") {
            check(health, OK).await;
        }
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_call_alone() {
    let server = server();
    for kind in PROTOCOLS {
        let got = ended(&server, keyed(kind, "Get", "panic")).await;
        assert_eq!(got, failed(Reason::Internal), "{kind}");
        assert_eq!(ended(&server, keyed(kind, "Get", "k")).await, OK, "{kind}");
    }
    for kind in ["application/grpc", "application/connect+proto"] {
        assert_eq!(
            ended(&server, dump(kind, "panic")).await,
            failed(Reason::Internal),
            "{kind}"
        );
        assert_eq!(ended(&server, dump(kind, "other")).await, OK, "{kind}");
    }
}

fn dump(kind: &str, prefix: &str) -> Request<Full<Bytes>> {
    let message = larder_api::cache_v1::DumpRequest {
        prefix: prefix.into(),
        ..Default::default()
    };
    let body = framed(kind, &message.encode_to_vec());
    request(kind, "/larder.cache.v1.CacheService/Dump", body)
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_unary_calls_and_streams_and_says_what_may_have_happened() {
    let server = server();
    let soon = |request| with(request, "grpc-timeout", "50m");
    let check = async |request, reason: Reason| {
        assert_eq!(
            ended(&server, soon(request)).await,
            failed(reason),
            "{reason:?}"
        );
    };
    check(keyed("application/grpc", "Get", "wait"), Reason::NotStarted).await;
    check(
        keyed("application/grpc", "Delete", "wait"),
        Reason::MaybeApplied,
    )
    .await;
    check(dump("application/grpc", "wait"), Reason::NotStarted).await;
    let gone = with(
        keyed("application/grpc", "Delete", "k"),
        "grpc-timeout",
        "0m",
    );
    assert_eq!(ended(&server, gone).await, failed(Reason::NotStarted));
    let bad = with(
        keyed("application/grpc", "Get", "k"),
        "grpc-timeout",
        "soon",
    );
    assert_eq!(ended(&server, bad).await, failed(Reason::MetadataInvalid));
}

/// Runs `first` until it waits, then `second` to its end.
async fn meanwhile<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> B {
    tokio::select! {
        biased;
        _ = first => panic!("the first was to wait"),
        second = second => second,
    }
}

#[tokio::test]
async fn more_calls_than_there_are_places_are_refused() {
    let server = server();
    let waiting = || ended(&server, keyed("application/grpc", "Get", "wait"));
    let refused = ended(&server, keyed("application/grpc", "Get", "k"));
    let got = meanwhile(waiting(), meanwhile(waiting(), refused)).await;
    assert_eq!(got, failed(Reason::Overloaded));
    // Both callers have gone: their places are free again.
    assert_eq!(
        ended(&server, keyed("application/grpc", "Get", "k")).await,
        OK
    );
    assert_eq!(server.core.calls.available_permits(), PLACES);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_arrive_gives_its_place_back() {
    let server = server();
    let body = http_body_util::StreamBody::new(futures::stream::pending::<
        Result<http_body::Frame<Bytes>, std::convert::Infallible>,
    >());
    let late = keyed("application/grpc", "Get", "k").map(|_| body);
    let response = server.edge.serve(late).await;
    assert_eq!(response.headers()["grpc-status"], "4");
    drop(response);
    assert_eq!(server.core.calls.available_permits(), PLACES);
}

#[tokio::test]
async fn callers_without_a_credential_take_no_places_of_others() {
    let server = server();
    let body = || {
        http_body_util::StreamBody::new(futures::stream::pending::<
            Result<http_body::Frame<Bytes>, std::convert::Infallible>,
        >())
    };
    let store = || request("application/grpc", "/rpc.Cache/Store", Vec::new()).map(|_| body());
    let (first, second) = (server.edge.serve(store()), server.edge.serve(store()));
    let stranger = request(
        "application/grpc",
        "/rpc.Cache/Get",
        framed("application/grpc", b""),
    );
    let both = async {
        let refused = ended(&server, stranger).await;
        (
            refused,
            ended(&server, keyed("application/grpc", "Get", "k")).await,
        )
    };
    let got = meanwhile(first, meanwhile(second, both)).await;
    assert_eq!(got, (failed(Reason::Overloaded), OK));
}

#[tokio::test]
async fn replies_that_nobody_takes_are_bounded() {
    let server = server();
    let large = || keyed("application/grpc", "Get", "large");
    let untaken = server.edge.serve(large()).await;
    assert_eq!(ended(&server, large()).await, failed(Reason::Overloaded));
    drop(untaken);
    assert_eq!(ended(&server, large()).await, OK);
}

#[tokio::test]
async fn a_watch_of_health_ends_when_the_server_stops_serving() {
    let server = server();
    let watch = || {
        request(
            "application/grpc",
            "/grpc.health.v1.Health/Watch",
            framed("application/grpc", b""),
        )
    };
    let stop = async {
        tokio::task::yield_now().await;
        server.health.shutdown();
        std::future::pending::<()>().await;
    };
    let got = tokio::select! {
        got = ended(&server, watch()) => got,
        () = stop => unreachable!("it never ends"),
    };
    assert_eq!(got, OK);
    let soon = with(watch(), "grpc-timeout", "20m");
    // It has said NOT_SERVING: a new watch says so and ends.
    assert_eq!(ended(&server, soon).await, OK);
}

#[tokio::test]
async fn the_end_of_the_grace_ends_what_still_waits() {
    for request in [
        keyed("application/grpc", "Get", "wait"),
        dump("application/grpc", "wait"),
    ] {
        let server = server();
        let stop = async {
            tokio::task::yield_now().await;
            server.core.stop.cancel();
            std::future::pending::<()>().await;
        };
        let got = tokio::select! {
            got = ended(&server, request) => got,
            () = stop => unreachable!("it never ends"),
        };
        assert_eq!(got, failed(Reason::Draining));
    }
}

#[tokio::test]
async fn a_foreign_page_gets_nowhere_and_an_allowed_one_may_read() {
    let server = server();
    let json = || keyed("application/json", "Get", "k");
    let check = async |request: Request<Full<Bytes>>, expected: Ended| {
        assert_eq!(ended(&server, request).await, expected);
    };
    let mut rebound = json();
    *rebound.uri_mut() = "http://evil.example/larder.cache.v1.CacheService/Get"
        .parse()
        .expect("uri");
    check(rebound, failed(Reason::HostDenied)).await;
    check(
        with(json(), "origin", "https://evil.example"),
        failed(Reason::HostDenied),
    )
    .await;
    check(with(json(), "origin", "null"), failed(Reason::HostDenied)).await;
    check(with(json(), "origin", "https://app.example.com"), OK).await;
    check(with(json(), "origin", "http://localhost"), OK).await;

    let mut preflight = with(json(), "origin", "https://app.example.com");
    *preflight.method_mut() = Verb::OPTIONS;
    let preflight = with(preflight, "access-control-request-method", "POST");
    let response = server.edge.serve(preflight).await;
    assert_eq!(response.status(), 204);
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "https://app.example.com"
    );
}

#[tokio::test]
async fn a_dry_run_is_echoed_where_something_would_have_changed() {
    let server = server();
    for (method, value, echoed) in [
        ("Delete", "1", true),
        ("Delete", "true", true),
        ("Delete", "0", false),
        ("Get", "1", false),
    ] {
        let request = with(keyed("application/grpc", method, "k"), "dry-run", value);
        let response = server.edge.serve(request).await;
        assert_eq!(
            response.headers().contains_key("dry-run"),
            echoed,
            "{method} {value}"
        );
    }
    let typo = with(keyed("application/grpc", "Delete", "k"), "dry-run", "yes");
    assert_eq!(ended(&server, typo).await, failed(Reason::MetadataInvalid));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_bounded_by_the_deadline() {
    let server = server();
    let body = http_body_util::StreamBody::new(futures::stream::pending::<
        Result<http_body::Frame<Bytes>, std::convert::Infallible>,
    >());
    let request = keyed("application/grpc", "Get", "k").map(|_| body);
    let (mut head, body) = request.into_parts();
    head.headers
        .insert("grpc-timeout", "1S".parse().expect("a header value"));
    let began = crate::clock::instant();
    let response = server.edge.serve(Request::from_parts(head, body)).await;
    let trailers = response.into_body().collect().await.expect("a body");
    let trailers = trailers.trailers().expect("trailers").clone();
    assert_eq!(trailers["grpc-status"], "4");
    assert!(crate::clock::instant() - began < Duration::from_millis(1100));
}
