//! The load against servers on loopback.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::task::{Context, Poll};

use clap::Parser as _;
use http_body_util::Full;
use larder_transport::general::Body;
use larder_transport::message::Head;
use larder_transport::rpc::{
    Code, Handler, Outcome, Reply, Request, Rpc, Status, Step, Waiting as WaitingCall,
};
use larder_transport::serve::{
    Config, ConnectionInfo, Proof, Rewind, Running, Serve, Socket, serve,
};
use tokio::sync::watch;

use super::super::LoadAlone;
use super::super::stats::Stats;
use super::super::wire::{field, write_bytes};
use super::run::SharedRun;
use super::worker::Worker;
use super::*;

/// `rpc.Cache` over a map; keys whose number ends in 7 are refused if asked to.
#[derive(Default)]
struct Cache {
    entries: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// Calls that came.
    calls: Mutex<u64>,
    refuses_sevens: bool,
    /// Answers nothing.
    is_silent: bool,
}

struct Methods(Arc<Cache>);

/// Never ready.
struct Silence;

impl WaitingCall for Silence {
    fn poll(&mut self, _: &mut Context<'_>, _: &mut Reply<'_>) -> Poll<Step> {
        Poll::Pending
    }
}

impl Handler for Methods {
    type Method = bool;
    type Waiting = Silence;

    fn route(&mut self, head: &Head) -> Option<bool> {
        assert!(head.value(b"authorization") == Some(b"Bearer s3cret"));
        match head.path() {
            b"/rpc.Cache/Get" => Some(false),
            b"/rpc.Cache/Store" => Some(true),
            _ => None,
        }
    }

    fn call(&mut self, request: Request<'_, bool>, reply: &mut Reply<'_>) -> Outcome<Silence> {
        assert!(request.deadline.is_some());
        *self.0.calls.lock().unwrap() += 1;
        if self.0.is_silent {
            return Outcome::Waits(Silence);
        }
        let key = field(request.message, 1).unwrap_or_default();
        if self.0.refuses_sevens && key.ends_with(b"7") {
            return Outcome::Done(Status::new(Code::RESOURCE_EXHAUSTED, "no sevens"));
        }
        let mut entries = self.0.entries.lock().unwrap();
        if *request.method {
            let value = field(request.message, 2).unwrap_or_default();
            entries.insert(key.to_vec(), value.to_vec());
            reply.message(|_| {});
        } else {
            let Some(value) = entries.get(key) else {
                return Outcome::Done(Status::new(Code::NOT_FOUND, "no such key"));
            };
            reply.message(|out| write_bytes(1, value, out));
        }
        Outcome::Done(Status::OK)
    }
}

/// The general lane, which is not asked.
#[derive(Clone, Copy)]
struct Nothing;

impl tower_service::Service<http::Request<Body>> for Nothing {
    type Response = http::Response<Full<bytes::Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok(http::Response::default()))
    }
}

struct Service(Arc<Cache>);

impl Serve for Service {
    type Handler = Methods;
    type General = Nothing;

    fn connection(&self, _: &ConnectionInfo) -> Rpc<Methods, Nothing> {
        Rpc::new(Methods(Arc::clone(&self.0)), Nothing)
    }

    fn http1(
        &self,
        _: Rewind<Socket>,
        _: ConnectionInfo,
        _: Proof,
        _: watch::Receiver<bool>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

fn started(cache: &Arc<Cache>, listener: TcpListener) -> Running {
    let config = Config {
        threads: 2,
        ..Config::default()
    };
    serve(
        vec![listener.into()],
        &Arc::new(Service(Arc::clone(cache))),
        config,
    )
    .unwrap()
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A load of `rpc.Cache` with these options, and all that it runs on.
fn load(address: SocketAddr, options: &str, timeout: &str) -> (LoadArgs, Setting) {
    #[derive(clap::Parser)]
    struct Where {
        #[command(flatten)]
        connection: Connection,
    }
    let server = address.to_string();
    let arguments = [
        "x",
        "--server",
        &server,
        "--token",
        "s3cret",
        "--timeout",
        timeout,
    ];
    let connection = Where::parse_from(arguments).connection;
    let options = options.split_whitespace();
    let args = ["bench", "--api", "rpc"].into_iter().chain(options);
    let args = LoadAlone::parse_from(args).load;
    let plan = Arc::new(Plan::new(&args).unwrap());
    let route = config(&connection).unwrap().route().unwrap();
    let setting = setting(&args, &connection, &route, &plan).unwrap();
    (args, setting)
}

/// Makes so many calls on one thread, after writing all entries.
fn run(setting: &Setting, requests: u64) -> Stats {
    let mut worker = Worker::new(setting, 0, 1).unwrap();
    worker.connect(Duration::from_secs(10)).unwrap();
    let all = Budget::Requests(setting.plan.keys);
    let written = worker.run(&SharedRun::new(all, Work::Preload, 0));
    assert_eq!(written.unwrap().requests(), setting.plan.keys);
    let run = SharedRun::new(Budget::Requests(requests), Work::Mix, 1);
    worker.run(&run).unwrap()
}

#[test]
fn every_call_is_made_and_counted_once() {
    let cache = Arc::new(Cache::default());
    let (listener, address) = listener();
    let server = started(&cache, listener);
    for (options, requests) in [
        ("--connections 1 --streams 1 --keys 10", 500),
        ("--connections 3 --streams 7 --keys 100", 5_000),
        ("--connections 2 --streams 1000 --keys 100", 20_000),
        ("--connections 2 --streams 4 --keys 10 --rate 5000", 500),
        // Larger than any window, both ways.
        (
            "--connections 2 --streams 2 --keys 10 --value-bytes 1500KiB",
            100,
        ),
        ("--connections 1 --streams 2 --keys 10 --value-bytes 0", 100),
    ] {
        let before = *cache.calls.lock().unwrap();
        let (args, setting) = load(address, options, "20s");
        let stats = run(&setting, requests);
        assert_eq!(
            stats.succeeded(),
            requests,
            "{options}: {:?}",
            stats.errors()
        );
        assert_eq!((stats.failed(), stats.misses()), (0, 0), "{options}");
        let read = u64::try_from(args.value_bytes).unwrap() * stats.hits();
        assert_eq!(stats.bytes_read(), read, "{options}");
        let calls = *cache.calls.lock().unwrap() - before;
        assert_eq!(calls, requests + setting.plan.keys, "{options}");
    }
    server.drain();
    server.join();
}

#[test]
fn errors_are_counted_by_their_kind() {
    let cache = Arc::new(Cache {
        refuses_sevens: true,
        ..Cache::default()
    });
    let (listener, address) = listener();
    let server = started(&cache, listener);
    let (_, setting) = load(address, "--connections 2 --streams 9 --keys 10", "20s");
    let stats = run(&setting, 2_000);
    assert_eq!(stats.requests(), 2_000);
    let refused = stats.errors()[&("RESOURCE_EXHAUSTED", None)];
    assert!((100..300).contains(&refused), "a tenth of them: {refused}");
    assert_eq!(stats.failed(), refused);

    // Values of another length than this load's.
    let (_, other) = load(address, "--keys 10 --value-bytes 9 --mix get:1", "20s");
    let mut worker = Worker::new(&other, 0, 1).unwrap();
    worker.connect(Duration::from_secs(10)).unwrap();
    let some = SharedRun::new(Budget::Requests(200), Work::Mix, 1);
    let stats = worker.run(&some).unwrap();
    assert_eq!((stats.requests(), stats.succeeded()), (200, 0));
    let wrong = ("DATA_LOSS", Some("VALUE_LENGTH".to_owned()));
    assert!(stats.errors().contains_key(&wrong), "{:?}", stats.errors());
    server.drain();
    server.join();
}

/// A server that drains lets the calls in flight end; the load then goes to the
/// next one that listens there, and no call is lost or counted twice.
#[test]
fn a_server_that_drains_costs_no_call() {
    let cache = Arc::new(Cache::default());
    let (listener, address) = listener();
    let again = listener.try_clone().unwrap();
    let first = started(&cache, listener);
    let (_, setting) = load(address, "--connections 4 --streams 8 --keys 100", "20s");
    let mut worker = Worker::new(&setting, 0, 1).unwrap();
    worker.connect(Duration::from_secs(10)).unwrap();
    let all = SharedRun::new(Budget::Requests(100), Work::Preload, 0);
    assert_eq!(worker.run(&all).unwrap().succeeded(), 100);
    let run = SharedRun::new(Budget::Requests(50_000), Work::Mix, 1);
    let (stats, second) = std::thread::scope(|scope| {
        let working = scope.spawn(|| worker.run(&run).unwrap());
        while *cache.calls.lock().unwrap() < 5_000 {
            std::thread::yield_now();
        }
        let second = started(&cache, again);
        first.drain();
        (working.join().unwrap(), second)
    });
    assert_eq!(stats.succeeded(), 50_000, "{:?}", stats.errors());
    assert_eq!(*cache.calls.lock().unwrap(), 50_100);
    first.join();
    second.drain();
    second.join();
}

#[test]
fn calls_that_are_not_answered_are_given_up() {
    let cache = Arc::new(Cache {
        is_silent: true,
        ..Cache::default()
    });
    let (listener, address) = listener();
    let _server = started(&cache, listener);
    let (_, setting) = load(
        address,
        "--connections 1 --streams 2 --deadline 20s",
        "50ms",
    );
    let mut worker = Worker::new(&setting, 0, 1).unwrap();
    worker.connect(Duration::from_secs(10)).unwrap();
    let run = SharedRun::new(Budget::Requests(3), Work::Mix, 1);
    let stats = worker.run(&run).unwrap();
    assert_eq!(stats.errors()[&("DEADLINE_EXCEEDED", None)], 3);
}

#[test]
fn a_connection_that_is_cut_fails_its_calls() {
    let (listener, address) = listener();
    let (_, setting) = load(address, "--connections 1 --streams 5", "20s");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The probe of the address, which says nothing.
        assert_eq!(stream.read(&mut [0; 64]).unwrap(), 0);
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, &[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
        // Into the calls, and away.
        stream.read_exact(&mut [0; 200]).unwrap();
    });
    let mut worker = Worker::new(&setting, 0, 1).unwrap();
    worker.connect(Duration::from_secs(10)).unwrap();
    let run = SharedRun::new(Budget::Requests(12), Work::Mix, 1);
    let stats = worker.run(&run).unwrap();
    server.join().unwrap();
    assert_eq!((stats.requests(), stats.failed()), (12, 12));
    let codes: Vec<_> = stats.errors().keys().map(|(code, _)| *code).collect();
    assert!(codes.iter().all(|code| *code == "UNAVAILABLE"), "{codes:?}");
}

#[test]
fn nobody_listens() {
    let (listener, address) = listener();
    let (_, setting) = load(address, "", "20s");
    drop(listener);
    let mut worker = Worker::new(&setting, 0, 1).unwrap();
    let error = worker.connect(Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.to_string(), "ConnectionRefused");
}
