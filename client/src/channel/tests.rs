//! A channel over real sockets, whose servers behave in every way that matters.

mod chaos;
mod crowds;
mod hostile;
mod server;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_api::errors::Code;
use larder_transport::client::{Failed, RequestHead, Response};
use tokio::time::Instant;

use super::balancing::{Balancing, OutlierEjection, RingHash};
use super::call;
use super::call::{Balanced, Call, Done, Outcome, Unreached, Wait};
use super::ends::code_of;
use super::open::{head, open};
use super::pick::{Ring, To};
use super::resolver::{Addresses, Resolver};
use super::retry::Safety;
use crate::config::ClientConfig;
use crate::interceptor::{AttemptEnd, AttemptStart, Interceptor, Interceptors, Metadata, Watch};
use server::{Manner, Reply, Server};

const PATH: &str = "/a.B/C";

/// Once, and at most twice more after 10 ms; hedged for `/a.H/C`.
const CONFIG: &str = r#"{
    "connectionScaling": {"maxConnectionsPerSubchannel": 2},
    "retryThrottling": {"maxTokens": 1000, "tokenRatio": 1},
    "methodConfig": [
        {"name": [{"service": "a.B"}], "retryPolicy": {"maxAttempts": 3,
            "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1,
            "retryableStatusCodes": ["UNAVAILABLE"]}},
        {"name": [{"service": "a.H"}], "hedgingPolicy": {"maxAttempts": 3,
            "hedgingDelay": "0.02s", "nonFatalStatusCodes": ["UNAVAILABLE"]}}
    ]
}"#;

/// A channel, and how it is called.
struct Caller {
    channel: Arc<Balanced>,
    told: Interceptors,
    config: ClientConfig,
    attempts: Arc<Watcher>,
}

/// Counts attempts.
#[derive(Default)]
struct Watcher {
    started: AtomicUsize,
    ended: AtomicUsize,
    given_up: AtomicUsize,
}

impl Interceptor for Arc<Watcher> {
    fn attempt_start(&self, attempt: &AttemptStart<'_>, metadata: &mut Metadata<'_>) {
        assert!(attempt.address.starts_with("127.0.0.1:"));
        metadata.insert("x-attempt", "yes").unwrap();
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    fn attempt_end(&self, attempt: &AttemptEnd<'_>) {
        match attempt.code {
            Code::Cancelled => self.given_up.fetch_add(1, Ordering::SeqCst),
            _ => self.ended.fetch_add(1, Ordering::SeqCst),
        };
    }
}

struct Made(Vec<RequestHead>);

impl call::Heads for Made {
    fn head(&self, target: usize) -> &RequestHead {
        &self.0[target]
    }
}

/// What may differ from one call to the next.
#[derive(Debug, Clone, Copy)]
struct How {
    path: &'static str,
    safety: Safety,
    wait: Wait,
    within: Duration,
    to: To<'static>,
}

const USUAL: How = How {
    path: PATH,
    safety: Safety::Repeatable,
    wait: Wait::FailFast,
    within: Duration::from_secs(20),
    to: To::Any,
};

impl Caller {
    fn new(config: ClientConfig) -> Self {
        let config = config.with_service_config(CONFIG).unwrap();
        Self::with(config)
    }

    fn with(config: ClientConfig) -> Self {
        let attempts = Arc::<Watcher>::default();
        let mut told = Interceptors::default();
        told.push(Arc::new(Arc::clone(&attempts)));
        Self {
            channel: Arc::new(open(&config).unwrap()),
            told,
            config,
            attempts,
        }
    }

    fn to(servers: &[&Server]) -> Self {
        Self::new(config(servers))
    }

    async fn call(&self, how: How) -> Done {
        let heads = self.config.endpoints();
        let heads = heads.map(|it| head(&self.config, it, how.path));
        let heads = heads.collect::<Result<Vec<_>, _>>().unwrap();
        let mut unused = heads[0].clone();
        let watch = Watch::start(self.told.clone(), how.path, None, &mut unused);
        let method = self.config.service_config.methods.of(how.path);
        let call = Call {
            heads: &Made(heads),
            metadata: None,
            tries: &method.tries,
            safety: how.safety,
            deadline: Some(Instant::now() + how.within),
            wait: how.wait,
            to: how.to,
            reads: how.safety == Safety::Repeatable,
            told: Some(&watch.told()),
        };
        self.channel
            .unary(call, &mut |out: &mut Vec<u8>| {
                out.extend_from_slice(b"hello");
            })
            .await
    }

    async fn answer(&self) -> Result<Response, String> {
        answer_of(self.call(USUAL).await)
    }

    fn counts(&self) -> (usize, usize, usize) {
        let count = |cell: &AtomicUsize| cell.load(Ordering::SeqCst);
        let watcher = &*self.attempts;
        (
            count(&watcher.started),
            count(&watcher.ended),
            count(&watcher.given_up),
        )
    }
}

fn config(servers: &[&Server]) -> ClientConfig {
    let all = servers.iter().map(|server| server.address.to_string());
    let all = all.collect::<Vec<_>>().join(",");
    ClientConfig::new(&format!("ipv4:{all}")).unwrap()
}

fn answer_of(done: Done) -> Result<Response, String> {
    match done.outcome {
        Outcome::Ended(Ok(response)) if code_of(&response) == Code::Ok => Ok(response),
        Outcome::Ended(Ok(response)) => Err(code_of(&response).to_string()),
        Outcome::Ended(Err(failed)) => Err(failed.to_string()),
        Outcome::Unreached(unreached) => Err(unreached.to_string()),
    }
}

/// Waits until something is so; it has to be within 20 s.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "{what}");
}

/// Makes calls, one after the other, until something is so; all of them have to go well.
async fn calls_until(caller: &Caller, is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        caller.answer().await.unwrap();
        if is_so() {
            return;
        }
    }
    panic!("10,000 calls changed nothing");
}

#[tokio::test]
async fn a_call_goes_to_the_first_server_on_one_connection() {
    let (first, second) = (Server::echo().await, Server::echo().await);
    let caller = Caller::to(&[&first, &second]);
    for _ in 0..20 {
        assert_eq!(caller.answer().await.unwrap().message, &b"hello"[..]);
    }
    assert_eq!((first.connections(), second.connections()), (1, 0));
    let calls = first.calls();
    assert_eq!(calls[0].path, PATH);
    assert_eq!(calls[0].authority, first.address.to_string());
    assert_eq!(calls[0].headers["x-attempt"], "yes");
    assert!(!calls[0].headers.contains_key("grpc-previous-rpc-attempts"));
    assert_eq!(caller.counts(), (20, 20, 0));
}

#[tokio::test]
async fn a_server_that_dies_is_left_for_the_next_without_a_failure() {
    let (mut first, second) = (Server::echo().await, Server::echo().await);
    let caller = Arc::new(Caller::to(&[&first, &second]));
    let callers = (0..8).map(|_| {
        let caller = Arc::clone(&caller);
        tokio::spawn(async move {
            for _ in 0..200 {
                caller.answer().await.unwrap();
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    until("the first has calls", || first.calls().len() > 100).await;
    first.kill().await;
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(second.connections(), 1);
    assert!(!second.calls().is_empty());
}

#[tokio::test]
async fn a_server_that_sends_its_clients_away_costs_no_call_though_none_may_be_repeated() {
    let server = Server::start(Manner::Speaks(100), |_, seen| {
        Reply::Slow(Duration::from_millis(1), seen.body.clone())
    })
    .await;
    let caller = Arc::new(Caller::to(&[&server]));
    let is_over = Arc::<AtomicUsize>::default();
    let callers = (0..8).map(|_| {
        let (caller, is_over) = (Arc::clone(&caller), Arc::clone(&is_over));
        tokio::spawn(async move {
            let once = How {
                safety: Safety::AtMostOnce,
                ..USUAL
            };
            while is_over.load(Ordering::SeqCst) == 0 {
                answer_of(caller.call(once).await).unwrap();
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for connections in 1..=3 {
        let calls = server.calls().len() + 40;
        until("calls go on", || server.calls().len() > calls).await;
        assert_eq!(server.connections(), connections);
        // Old enough that its end is no failure.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        server.send_away();
        until("there is another", || server.connections() > connections).await;
    }
    is_over.store(1, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(server.calls().len() > 120);
}

#[tokio::test]
async fn a_failure_is_tried_again_and_says_so() {
    let server = Server::start(Manner::Speaks(100), |number, seen| match number {
        1 => Reply::Status(14, vec![]),
        2 => Reply::Status(14, vec![("grpc-retry-pushback-ms", "1")]),
        _ => Reply::Ok(seen.body.clone()),
    })
    .await;
    let caller = Caller::to(&[&server]);
    let done = caller.call(USUAL).await;
    assert_eq!(done.earlier.len(), 2);
    answer_of(done).unwrap();
    let previous = server.calls().into_iter().map(|seen| {
        let value = seen.headers.get("grpc-previous-rpc-attempts").cloned();
        value.map(|value| value.to_str().unwrap().to_owned())
    });
    let previous: Vec<_> = previous.collect();
    assert_eq!(previous, [None, Some("1".into()), Some("2".into())]);
    assert_eq!(caller.counts(), (3, 3, 0));
}

#[tokio::test]
async fn what_may_not_be_repeated_is_sent_once() {
    let server = Server::start(Manner::Speaks(100), |number, seen| match number {
        1 => Reply::Reset(h2::Reason::REFUSED_STREAM),
        2 | 4 => Reply::Status(14, vec![]),
        3 => Reply::HangUp,
        5 => Reply::Status(14, vec![("grpc-retry-pushback-ms", "-1")]),
        _ => Reply::Ok(seen.body.clone()),
    })
    .await;
    let caller = Caller::to(&[&server]);
    let once = How {
        safety: Safety::AtMostOnce,
        ..USUAL
    };
    // A refusal is no attempt; the status after it ends the call.
    let done = caller.call(once).await;
    assert_eq!((done.transparent, done.earlier.len()), (1, 0));
    assert_eq!(answer_of(done).unwrap_err(), "UNAVAILABLE");
    let done = caller.call(once).await;
    assert!(
        matches!(done.outcome, Outcome::Ended(Err(Failed::Lost(_)))),
        "{done:?}"
    );
    for _ in 0..2 {
        let done = caller.call(once).await;
        assert_eq!(answer_of(done).unwrap_err(), "UNAVAILABLE");
    }
    assert_eq!(server.calls().len(), 5);
}

#[tokio::test]
async fn a_late_answer_is_overtaken_by_a_hedge_and_cancelled() {
    let server = Server::start(Manner::Speaks(100), |number, seen| match number {
        1 => Reply::Slow(Duration::from_secs(600), vec![]),
        _ => Reply::Ok(seen.body.clone()),
    })
    .await;
    let caller = Caller::to(&[&server]);
    let hedged = How {
        path: "/a.H/C",
        ..USUAL
    };
    answer_of(caller.call(hedged).await).unwrap();
    assert_eq!(caller.counts(), (2, 1, 1));
    until("the loser is cancelled", || server.cancelled() == 1).await;
    // What could do harm is not hedged.
    let server = Server::start(Manner::Speaks(100), |_, seen| {
        Reply::Slow(Duration::from_millis(80), seen.body.clone())
    })
    .await;
    let caller = Caller::to(&[&server]);
    let once = How {
        safety: Safety::AtMostOnce,
        ..hedged
    };
    answer_of(caller.call(once).await).unwrap();
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn hedges_that_all_fail_end_the_call_with_the_last_failure() {
    let server = Server::start(Manner::Speaks(100), |_, _| Reply::Status(14, vec![])).await;
    let caller = Caller::to(&[&server]);
    let hedged = How {
        path: "/a.H/C",
        ..USUAL
    };
    let done = caller.call(hedged).await;
    assert_eq!(done.earlier.len(), 2);
    assert_eq!(answer_of(done).unwrap_err(), "UNAVAILABLE");
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test]
async fn a_call_fails_or_waits_while_no_server_is_there() {
    let mut server = Server::echo().await;
    let address = server.address;
    server.kill().await;
    let caller = Arc::new(Caller::to(&[&server]));
    let error = caller.answer().await.unwrap_err();
    assert!(
        error.contains("refused") && error.contains(&address.to_string()),
        "{error}"
    );
    let short = How {
        wait: Wait::ForReady,
        within: Duration::from_millis(30),
        ..USUAL
    };
    let done = caller.call(short).await;
    assert!(
        matches!(
            done.outcome,
            Outcome::Unreached(Unreached::TimedOut(Some(_)))
        ),
        "{done:?}"
    );
    let patient = How {
        wait: Wait::ForReady,
        ..USUAL
    };
    let waiting = tokio::spawn({
        let caller = Arc::clone(&caller);
        async move { answer_of(caller.call(patient).await) }
    });
    let _server = Server::at(address, Manner::Speaks(100), |_, seen| {
        Reply::Ok(seen.body.clone())
    })
    .await;
    // Within one backoff, which is at most 1.2 s the first time.
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_are_spread_as_the_policy_says() {
    for balancing in [Balancing::round_robin(), Balancing::least_request()] {
        let servers = [
            Server::echo().await,
            Server::echo().await,
            Server::echo().await,
        ];
        let all: Vec<_> = servers.iter().collect();
        let caller = Caller::new(config(&all).with_balancing(balancing));
        calls_until(&caller, || {
            servers.iter().all(|server| server.calls().len() > 10)
        })
        .await;
        let connections = servers.each_ref().map(Server::connections);
        assert_eq!(connections, [1; 3]);
    }
}

#[tokio::test]
async fn a_key_goes_to_its_server_and_no_other_is_connected_to() {
    let servers = [
        Server::echo().await,
        Server::echo().await,
        Server::echo().await,
    ];
    let all: Vec<_> = servers.iter().collect();
    let ring = Balancing::ring_hash(RingHash::default());
    let caller = Caller::new(config(&all).with_balancing(ring));
    let keyed = How {
        to: To::Key(Ring::hash(b"key")),
        ..USUAL
    };
    for _ in 0..20 {
        answer_of(caller.call(keyed).await).unwrap();
    }
    let mut calls: Vec<_> = servers.iter().map(|server| server.calls().len()).collect();
    calls.sort_unstable();
    assert_eq!(calls, [0, 0, 20]);
    let connections: usize = servers.iter().map(Server::connections).sum();
    assert_eq!(connections, 1);
}

#[tokio::test]
async fn a_full_connection_gets_a_second_and_no_third() {
    let server = Server::start(Manner::Speaks(2), |_, seen| {
        Reply::Slow(Duration::from_millis(60), seen.body.clone())
    })
    .await;
    let caller = Arc::new(Caller::to(&[&server]));
    caller.answer().await.unwrap();
    let calls = (0..12).map(|_| {
        let caller = Arc::clone(&caller);
        tokio::spawn(async move { caller.answer().await.unwrap() })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(server.connections(), 2);
    assert_eq!(server.calls().len(), 13);
}

#[tokio::test]
async fn an_outlier_gets_no_calls_after_an_interval() {
    let bad = Server::start(Manner::Speaks(100), |_, _| Reply::Status(13, vec![])).await;
    let (good, other) = (Server::echo().await, Server::echo().await);
    let all = [&good, &bad, &other];
    let ejection = OutlierEjection::default().with_volume(2, 10);
    let balancing = Balancing::round_robin().with_outlier_ejection(ejection);
    let caller = Caller::new(config(&all).with_balancing(balancing));
    let mut calls = 0;
    while all.iter().any(|server| server.calls().len() < 15) {
        let _ = caller.call(USUAL).await;
        calls += 1;
        assert!(calls < 10_000, "not all are called");
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    // The driver has looked at them once a few calls in a row go well.
    let mut in_a_row = 0;
    while in_a_row < 10 {
        in_a_row = match answer_of(caller.call(USUAL).await) {
            Ok(_) => in_a_row + 1,
            Err(_) => 0,
        };
        calls += 1;
        assert!(calls < 20_000, "it goes on being called");
    }
    let before = bad.calls().len();
    for _ in 0..60 {
        caller.answer().await.unwrap();
    }
    assert_eq!(bad.calls().len(), before);
}

#[tokio::test]
async fn a_server_that_is_not_serving_gets_no_calls() {
    let health = |status: u8| {
        move |_: usize, seen: &server::Seen| match seen.path.as_str() {
            super::health::WATCH => Reply::Stream(vec![vec![8, status]]),
            _ => Reply::Ok(seen.body.clone()),
        }
    };
    let sick = Server::start(Manner::Speaks(100), health(2)).await;
    let well = Server::start(Manner::Speaks(100), health(1)).await;
    // One that has no health counts as well.
    let without = |code: u8| {
        move |_: usize, seen: &server::Seen| match seen.path.as_str() {
            super::health::WATCH => Reply::Status(code, vec![]),
            _ => Reply::Ok(seen.body.clone()),
        }
    };
    let plain = Server::start(Manner::Speaks(100), without(12)).await;
    // As does one that has no room for more who watch; one that fails otherwise does not.
    let busy = Server::start(Manner::Speaks(100), without(8)).await;
    let failing = Server::start(Manner::Speaks(100), without(13)).await;
    let json = r#"{"healthCheckConfig": {"serviceName": "a.B"},
                   "loadBalancingConfig": [{"round_robin": {}}]}"#;
    let config = config(&[&sick, &well, &plain, &busy, &failing]);
    let caller = Caller::with(config.with_service_config(json).unwrap());
    let calls = |server: &Server| {
        let calls = server.calls().into_iter();
        calls.filter(|seen| seen.path == PATH).count()
    };
    let used = [&well, &plain, &busy];
    calls_until(&caller, || used.iter().all(|server| calls(server) > 10)).await;
    assert_eq!(calls(&sick) + calls(&failing), 0);
    let watch = &well.calls()[0];
    assert_eq!(watch.body, b"\x0a\x03a.B");
}
