//! The lanes are twins: whatever a client asks, it gets the same from both.
//!
//! Two servers in the same state, with the same clock, are asked the same calls:
//! one on the typed lane, the other, by a `grpc-encoding` that no message uses,
//! on the general lane.

mod compression;
mod dry_run;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use buffa::Message as _;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use larder_accounts::{Accounts, UnixMillis};
use larder_api::errors::{Code, Reason};
use larder_api::google_rpc;
use larder_engine::{Engine, EngineConfig, Keyspace};
use larder_model::{AccountName, Limits, Store};
use larder_transport::connection::Connection as Http2;
use larder_transport::serve::{ConnectionInfo, Course, Driver, Peer, Serve as _};
use larder_transport::shared::Shared;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::authority::{Anonymous, Authority};
use crate::clock::Clock;
use crate::config::{Admission, Compression, Deadlines, Role};
use crate::core::Core;
use crate::edge::{Protocols, decode_options};
use crate::gauge::Gauge;
use crate::layers::origin::OriginPolicy;
use crate::listen::Listening;
use crate::methods::METHODS;
use crate::refusals::Refusals;
use crate::rpc;
use crate::telemetry::Telemetry;
use crate::telemetry::interceptor::{CallEnd, CallStart, Interceptor};
use crate::tenants::Tenants;

/// Numbers that are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("a small number")
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What a field of a request holds, with its number.
#[derive(Clone, Copy)]
enum Field {
    Bool(u32),
    Number(u32),
    Version(u32),
    Key(u32),
    Keys(u32),
    Namespace(u32),
    Text(u32),
    Value(u32),
    /// A `Duration` or a `Timestamp`: they have the same shape.
    Span(u32),
    Message(u32, &'static [Field]),
}

use Field::{Bool, Key, Keys, Namespace, Number, Span, Text, Value};

const PRECONDITION: &[Field] = &[Bool(1), Bool(2), Field::Version(3)];
const SET: &[Field] = &[
    Namespace(1),
    Key(2),
    Value(3),
    Span(4),
    Span(5),
    Bool(6),
    Field::Message(7, PRECONDITION),
    Text(9),
    Bool(10),
    Number(11),
];

/// The requests of the typed lane's methods.
const REQUESTS: &[(&str, &[Field])] = &[
    ("/rpc.Cache/Get", &[Key(1), Text(2)]),
    ("/rpc.Cache/Store", &[Key(1), Value(2), Text(3)]),
    ("/rpc.Cache/Dump", &[Text(1)]),
    ("Get", &[Namespace(1), Key(2), Bool(3), Bool(4)]),
    (
        "GetAndTouch",
        &[Namespace(1), Key(2), Span(3), Span(4), Bool(5), Bool(6)],
    ),
    ("Set", SET),
    (
        "Delete",
        &[
            Namespace(1),
            Key(2),
            Field::Message(3, PRECONDITION),
            Text(4),
            Bool(5),
        ],
    ),
    (
        "Touch",
        &[
            Namespace(1),
            Key(2),
            Span(3),
            Span(4),
            Bool(5),
            Text(6),
            Bool(7),
        ],
    ),
    ("BatchGet", &[Namespace(1), Keys(2)]),
    (
        "BatchSet",
        &[
            Field::Message(1, SET),
            Field::Message(1, SET),
            Text(2),
            Bool(3),
        ],
    ),
    ("BatchDelete", &[Namespace(1), Keys(2), Text(3), Bool(4)]),
    (
        "Increment",
        &[
            Namespace(1),
            Key(2),
            Number(3),
            Number(4),
            Span(5),
            Number(6),
            Number(7),
            Text(8),
            Bool(9),
        ],
    ),
    ("ListKeys", &[Namespace(1), Key(2), Number(3), Text(4)]),
    (
        "DeletePrefix",
        &[Namespace(1), Key(2), Bool(3), Text(4), Bool(5)],
    ),
    ("Dump", &[Namespace(1), Key(2), Text(3)]),
    ("GetUsage", &[]),
    ("GetServerInfo", &[]),
];

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).expect("seven bits"));
}

fn bytes(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    varint(out, u64::from(field << 3 | 2));
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field << 3));
    varint(out, value);
}

const NUMBERS: [u64; 7] = [0, 1, 2, 7, 1000, u64::MAX, i64::MAX as u64];

fn key(random: &mut Random) -> Vec<u8> {
    match random.below(30) {
        0 => Vec::new(),
        1 => vec![b'k'; 1025],
        2 => vec![0xff, 0xfe],
        other => format!("key-{}", other % 7).into_bytes(),
    }
}

fn message(random: &mut Random, fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        // Most flags and ids make a request another, and few make it better.
        let rare = matches!(
            field,
            Bool(_) | Text(_) | Span(_) | Field::Message(7 | 3, _)
        );
        if random.one_in(if rare { 2 } else { 12 }) != rare {
            continue;
        }
        match *field {
            Bool(at) => number(&mut out, at, random.next() & 1),
            Number(at) => number(&mut out, at, random.pick(&NUMBERS)),
            Field::Version(at) => {
                varint(&mut out, u64::from(at << 3 | 1));
                out.extend_from_slice(&(random.next() % 9).to_le_bytes());
            }
            Key(at) => bytes(&mut out, at, &key(random)),
            Keys(at) => {
                for _ in 0..random.below(5) {
                    bytes(&mut out, at, &key(random));
                }
            }
            Namespace(at) => bytes(
                &mut out,
                at,
                random.pick(&["", "", "", "ns", "Bad!"]).as_bytes(),
            ),
            Text(at) => {
                let id = format!("id-{}", random.below(300));
                let text = random.pick(&["", &id, &id, &id, "id", "\u{e9}"]);
                bytes(&mut out, at, text.as_bytes());
            }
            Value(at) => {
                let length = random.pick(&[0, 3, 3, 300, 20_000]);
                bytes(&mut out, at, &vec![b'7'; length]);
            }
            Span(at) => {
                let mut span = Vec::new();
                number(&mut span, 1, random.pick(&NUMBERS));
                number(&mut span, 2, random.pick(&[0, 0, 5, u64::MAX]));
                bytes(&mut out, at, &span);
            }
            Field::Message(at, fields) => {
                let inner = message(random, fields);
                bytes(&mut out, at, &inner);
            }
        }
    }
    out
}

/// A body: a message in its frame, and now and then what is none.
fn body(random: &mut Random, fields: &[Field]) -> Vec<u8> {
    let mut content = message(random, fields);
    if random.one_in(8) && !content.is_empty() {
        let at = random.below(content.len());
        match random.below(3) {
            0 => content.truncate(at),
            1 => content[at] ^= 1 << random.below(8),
            _ => content.insert(at, random.next().to_le_bytes()[0]),
        }
    }
    let length = u32::try_from(content.len()).expect("short");
    let mut framed = [&[0][..], &length.to_be_bytes(), &content].concat();
    match random.below(60) {
        0 => framed[0] = 2,
        1 => framed.clear(),
        2 => framed.truncate(3),
        3 => framed.extend_from_within(..),
        4 => framed[1] = 0x7f,
        5 => framed.push(0),
        6 => {
            framed.pop();
        }
        _ => {}
    }
    framed
}

fn metadata(random: &mut Random, admin: &str) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    match random.below(12) {
        0 => fields.push(("authorization", "Bearer nobody".into())),
        1 => fields.push(("authorization", "Basic abc".into())),
        2..5 => fields.push(("authorization", format!("Bearer {admin}"))),
        _ => {}
    }
    match random.below(12) {
        0 => fields.push(("dry-run", "1".into())),
        1 => fields.push(("dry-run", "maybe".into())),
        2 => fields.push(("dry-run", "false".into())),
        _ => {}
    }
    match random.below(12) {
        0 => fields.push(("grpc-timeout", "0n".into())),
        1 => fields.push(("grpc-timeout", "30S".into())),
        _ => {}
    }
    match random.below(16) {
        0 => fields.push(("grpc-previous-rpc-attempts", "1".into())),
        1 => fields.push(("grpc-previous-rpc-attempts", "0".into())),
        2 => fields.push(("grpc-previous-rpc-attempts", "two".into())),
        _ => {}
    }
    fields
}

struct Server {
    listening: Listening<Engine>,
    admin: String,
    _data: tempfile::TempDir,
}

fn server(clock: &Arc<Clock>) -> Server {
    watched(clock, Vec::new())
}

fn watched(clock: &Arc<Clock>, interceptors: Vec<Arc<dyn Interceptor>>) -> Server {
    set_to(clock, interceptors, Compression::default())
}

fn set_to(
    clock: &Arc<Clock>,
    interceptors: Vec<Arc<dyn Interceptor>>,
    compression: Compression,
) -> Server {
    let data = tempfile::tempdir().expect("a directory");
    // The same on every server, and never twice the same on one.
    let drawn = AtomicU64::new(0);
    let entropy = Box::new(move |buffer: &mut [u8]| {
        let mut random = Random(drawn.fetch_add(1, Ordering::Relaxed));
        buffer.fill_with(|| random.next().to_le_bytes()[0]);
    });
    let accounts = Accounts::open(data.path(), UnixMillis::new(0), entropy).expect("accounts");
    let admin = std::fs::read_to_string(&accounts.admin_token().path).expect("a token");
    let accounts = Arc::new(accounts);
    let store = Arc::new(Engine::new(EngineConfig {
        max_memory_bytes: 64 << 20,
        hash_seed: [1; 16],
        first_version: 1,
        keyspace: Keyspace::PerAccount,
    }));
    let core = Arc::new(Core {
        callers: crate::callers::Callers::new(),
        certificate_accounts: None,
        audit: crate::audit::Audit::open(&crate::config::AuditConfig::default()).expect("no file"),
        admission: Admission::default(),
        deadlines: Deadlines::default(),
        compression,
        refusals: Refusals::default(),
        tenants: Tenants::new(Arc::clone(&store)),
        store,
        authority: Authority::Local(Arc::clone(&accounts)),
        accounts: Some(accounts),
        anonymous: Some(Anonymous::new(
            AccountName::parse("default").expect("a name"),
        )),
        origins: OriginPolicy {
            allowed: crate::live::Live::new(Vec::new()),
            guard_host: true,
        },
        limits: crate::live::Live::new(Limits::default()),
        transport: crate::live::Live::new(larder_transport::serve::Config::default()),
        calls: Arc::new(Semaphore::new(10)),
        strangers: Arc::new(Semaphore::new(10)),
        receiving: Gauge::new(1 << 20),
        replying: Gauge::new(1 << 20),
        features: Vec::new(),
        clock: Arc::clone(clock),
        stop: CancellationToken::new(),
        access_log: None,
        telemetry: Telemetry {
            interceptors,
            ..Telemetry::new([0; 32])
        },
    });
    let (router, _) = rpc::router(&core, Role::Cache).expect("a router");
    Server {
        listening: Listening {
            protocols: Protocols::new(router, &core),
            core,
            decode: decode_options(),
            role: Role::Cache,
        },
        admin: admin.trim().into(),
        _data: data,
    }
}

/// A connection to a server, and what keeps it.
async fn connect(server: &Server) -> (SendRequest<Bytes>, watch::Sender<Course>) {
    connect_to(&server.listening, 1 << 24).await
}

/// The same by a client with so wide windows.
pub(crate) async fn connect_to<S: Store>(
    listening: &Listening<S>,
    window: u32,
) -> (SendRequest<Bytes>, watch::Sender<Course>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let peer = Peer::Tcp(([127, 0, 0, 1], 1).into());
    let rpc = listening.connection(&ConnectionInfo { peer, tls: None });
    let limits = larder_transport::limits::Limits {
        max_message_bytes: larder_api::wire::MAX_MESSAGE_BYTES,
        ..larder_transport::limits::Limits::default()
    };
    let shared = Arc::new(Shared::new(1 << 30));
    let now: Instant = tokio::time::Instant::now().into_std();
    let http2 = Http2::new(rpc, Arc::new(limits.in_range()), shared, now, 0);
    let (course, courses) = watch::channel(Course::Serving);
    tokio::spawn(Driver::new(far, http2, Vec::new(), courses));
    let (client, connection) = h2::client::Builder::new()
        .initial_connection_window_size(window)
        .initial_window_size(window)
        .handshake(near)
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    (client, course)
}

/// What a client sees of a call.
#[derive(Debug, PartialEq)]
struct Seen {
    http_status: u16,
    messages: Vec<u8>,
    status: Option<String>,
    message: Option<String>,
    details: Option<google_rpc::Status>,
    /// Metadata of ours, wherever it stands.
    metadata: Vec<(&'static str, String)>,
}

const OURS: [&str; 3] = ["dry-run", "larder-skipped", "grpc-retry-pushback-ms"];

async fn ask(
    client: &SendRequest<Bytes>,
    path: &str,
    metadata: &[(&'static str, String)],
    body: &[u8],
) -> Seen {
    let mut request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, value);
    }
    let mut client = client.clone().ready().await.expect("a connection");
    let request = request.body(()).expect("a request");
    let (response, mut sender) = client.send_request(request, false).expect("a stream");
    // The answer may come before the end of a request that is refused.
    let _ = sender.send_data(Bytes::copy_from_slice(body), true);
    let response = response.await.expect("an answer");
    let (head, mut received) = response.into_parts();
    let mut messages = Vec::new();
    while let Some(data) = received.data().await {
        let data = data.expect("content");
        let _ = received.flow_control().release_capacity(data.len());
        messages.extend_from_slice(&data);
    }
    let trailers = received
        .trailers()
        .await
        .expect("trailers")
        .unwrap_or_default();
    seen(head.status.as_u16(), &messages, &head.headers, &trailers)
}

fn seen(http_status: u16, messages: &[u8], headers: &HeaderMap, trailers: &HeaderMap) -> Seen {
    let find = |name: &str| {
        let value = trailers.get(name).or_else(|| headers.get(name))?;
        Some(value.to_str().expect("text").to_owned())
    };
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let base64 = GeneralPurpose::new(&STANDARD, lenient);
    let details = find("grpc-status-details-bin").map(|text| {
        let bytes = base64.decode(text).expect("base64");
        google_rpc::Status::decode(&mut bytes.as_slice()).expect("a status")
    });
    Seen {
        http_status,
        messages: compression::whole(messages, find("grpc-encoding").as_deref()),
        status: find("grpc-status"),
        message: find("grpc-message").map(|text| {
            percent_encoding::percent_decode_str(&text)
                .decode_utf8_lossy()
                .into_owned()
        }),
        details,
        metadata: OURS
            .into_iter()
            .filter_map(|name| Some((name, find(name)?)))
            .collect(),
    }
}

impl Seen {
    /// Every error carries one `ErrorInfo`, with a reason of the catalogue.
    fn check_reason(&self) {
        if self.status.as_deref() == Some("0") {
            return;
        }
        let details = self.details.as_ref().expect("details");
        let info = details
            .details
            .iter()
            .find(|any| any.type_url.ends_with("/google.rpc.ErrorInfo"))
            .expect("ErrorInfo");
        let info = google_rpc::ErrorInfo::decode(&mut &info.value[..]).expect("ErrorInfo");
        assert!(Reason::from_name(&info.reason).is_some(), "{}", info.reason);
    }

    /// The entries of a map come in any order.
    fn sort(&mut self) {
        self.messages.sort_unstable();
    }
}

const CALLS: usize = 6000;

#[tokio::test(start_paused = true)]
async fn both_lanes_say_the_same() {
    let clock = Arc::new(Clock::start_steady());
    let servers = [server(&clock), server(&clock)];
    ask_both(&servers, &[]).await;
    let [one, other] = servers.map(|server| counted(&server));
    assert_eq!(one, other);
}

/// Asks both the same, the second on the general lane.
async fn ask_both(servers: &[Server; 2], offer: &[(&'static str, &str)]) {
    let (typed, _typed_course) = connect(&servers[0]).await;
    let (general, _general_course) = connect(&servers[1]).await;
    let mut random = Random(1);
    let mut refused = 0;
    let mut asked = None;
    for call in 0..CALLS {
        // Some are sent again, for request ids to be known.
        let again = asked.take().filter(|_| random.one_in(3));
        let (method, body) = again.unwrap_or_else(|| {
            let (method, fields) = random.pick(REQUESTS);
            (method, body(&mut random, fields))
        });
        let path = match method.starts_with('/') {
            true => method.to_owned(),
            false => format!("/larder.cache.v1.CacheService/{method}"),
        };
        let mut plain = metadata(&mut random, &servers[0].admin);
        plain.extend(offer.iter().map(|&(name, value)| (name, value.into())));
        let mut forced = plain.clone();
        forced.push(("grpc-encoding", "gzip".into()));
        let mut one = ask(&typed, &path, &plain, &body).await;
        let mut other = ask(&general, &path, &forced, &body).await;
        if method == "GetServerInfo" {
            one.sort();
            other.sort();
        }
        assert_eq!(one, other, "call {call}: {path} {plain:?} {body:?}");
        one.check_reason();
        asked = Some((method, body));
        refused += usize::from(one.status.as_deref() != Some("0"));
        tokio::time::advance(std::time::Duration::from_millis(random.next() % 3)).await;
    }
    assert!(
        (CALLS / 10..CALLS * 9 / 10).contains(&refused),
        "{refused} of {CALLS} refused"
    );
}

/// Calls by method and status, those of all, and those by account.
type Counted = (Vec<(&'static str, Code, [u64; 4])>, Vec<u64>, Vec<[u64; 4]>);

/// What a server counted of its calls, each of which has ended: method, status, calls, bytes in and
/// out; the reasons of those that failed; and what the accounts did.
fn counted(server: &Server) -> Counted {
    let totals = server.listening.core.telemetry.meters.totals();
    let (succeeded, failed) = totals.calls_ended();
    assert_eq!(totals.calls_started(), succeeded + failed);
    assert_eq!(totals.calls_started(), CALLS as u64);
    let of_series = totals.series.iter().map(|it| {
        // The general lane refuses some calls before it has read their messages.
        let received = match it.code {
            Code::Ok => it.received.sum,
            _ => 0,
        };
        let counts = [it.duration.count(), it.sent.count(), it.sent.sum, received];
        (it.method.path, it.code, counts)
    });
    let mut accounts: Vec<[u64; 4]> = totals
        .accounts
        .values()
        .map(|it| [it.calls, it.failures, it.sent_bytes, it.sets])
        .collect();
    accounts.sort_unstable();
    let failures = totals.failures.iter().map(|(_, calls)| *calls);
    (of_series.collect(), failures.collect(), accounts)
}

/// Told of every call; counts.
#[derive(Default)]
struct Watcher {
    started: AtomicUsize,
    tries: AtomicUsize,
    ended: AtomicUsize,
}

impl Interceptor for Watcher {
    fn started(&self, _: &CallStart) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self, call: &CallEnd<'_>) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let tries = usize::try_from(call.previous_attempts).expect("a small number");
        self.tries.fetch_add(tries, Ordering::Relaxed);
        assert_eq!(call.trace_id.is_some(), call.previous_attempts == 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_is_told_of_each_call_once_with_its_tries_and_trace() {
    let watcher = Arc::new(Watcher::default());
    let server = watched(&Arc::new(Clock::start()), vec![Arc::clone(&watcher) as _]);
    let (client, _course) = connect(&server).await;
    let body = [0, 0, 0, 0, 3, 10, 1, b'k'];
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let tries = |tries: &str| ("grpc-previous-rpc-attempts", tries.to_owned());
    let traced = ("traceparent", parent.to_owned());
    let general = ("grpc-encoding", "gzip".to_owned());
    for (metadata, sum) in [
        (vec![], 0),
        (vec![tries("2")], 2),
        (vec![], 2),
        (vec![tries("3"), traced.clone()], 5),
        (vec![tries("nonsense")], 5),
        (vec![tries("3"), traced, general.clone()], 8),
        (vec![tries("1"), general], 9),
    ] {
        let started = watcher.started.load(Ordering::Relaxed);
        ask(&client, "/rpc.Cache/Get", &metadata, &body).await;
        assert_eq!(watcher.started.load(Ordering::Relaxed), started + 1);
        assert_eq!(watcher.ended.load(Ordering::Relaxed), started + 1);
        assert_eq!(watcher.tries.load(Ordering::Relaxed), sum, "{metadata:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_authorization_is_not_none() {
    let server = server(&Arc::new(Clock::start()));
    let (client, _course) = connect(&server).await;
    let body = [0, 0, 0, 0, 3, 10, 1, b'k'];
    let empty = [("authorization", String::new())];
    for (metadata, status) in [(&[][..], "5"), (&empty[..], "3"), (&[], "5"), (&empty, "3")] {
        let seen = ask(&client, "/rpc.Cache/Get", metadata, &body).await;
        assert_eq!(seen.status.as_deref(), Some(status), "{metadata:?}");
    }
}

#[test]
fn every_typed_method_has_a_twin() {
    for method in METHODS.iter().filter(|method| method.typed.is_some()) {
        let name = method.path.rsplit('/').next().expect("a name");
        let tested = |(path, _): &&(&str, &[Field])| *path == method.path || *path == name;
        assert!(REQUESTS.iter().any(|row| tested(&row)), "{}", method.path);
    }
}
