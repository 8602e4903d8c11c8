//! A near cache before a server of its own in the same process, which answers when the test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use connectrpc::{ConnectError, RequestContext, Response, Router, Server, handler_fn};
use futures::future::join_all;
use larder_api::cache_v1::{self as wire, get_response, set_response};
use tokio::sync::{Semaphore, watch};

use crate::client::Client;
use crate::config::ClientConfig;
use crate::near::core::Boarded;
use crate::near::{NearCache, NearConfig, wall_clock};
use crate::options::SetOptions;

const SERVICE: &str = "larder.cache.v1.CacheService";
const HOUR: Duration = Duration::from_secs(60 * 60);
/// A call that nobody answers ends the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose version grows with each set.
struct Gate {
    version: AtomicUsize,
    gets: watch::Sender<usize>,
    sets: watch::Sender<usize>,
    /// What has not been answered may be, once for each permit.
    answers: Semaphore,
}

impl Gate {
    async fn get(&self, key: Vec<u8>) -> Result<wire::GetResponse, ConnectError> {
        let version = self.version.load(Ordering::SeqCst) as u64;
        self.gets.send_modify(|gets| *gets += 1);
        self.wait().await;
        if key == b"bad" {
            return Err(ConnectError::permission_denied("no"));
        }
        let entry = wire::Entry {
            key,
            version,
            ..wire::Entry::default()
        };
        Ok(wire::GetResponse {
            outcome: Some(get_response::Outcome::from(entry)),
            ..wire::GetResponse::default()
        })
    }

    async fn set(&self, key: Vec<u8>) -> Result<wire::SetResponse, ConnectError> {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.sets.send_modify(|sets| *sets += 1);
        match &key[..] {
            b"refused" => return Err(ConnectError::permission_denied("no")),
            // It was written all the same.
            b"lost" => return Err(ConnectError::internal("lost")),
            _ => self.wait().await,
        }
        Ok(wire::SetResponse {
            outcome: Some(set_response::Applied::default().into()),
            ..wire::SetResponse::default()
        })
    }

    async fn wait(&self) {
        let permit = self.answers.acquire().await;
        permit.expect("it is never closed").forget();
    }

    /// Waits for so many calls to be here.
    async fn has(calls: &watch::Sender<usize>, count: usize) {
        let mut seen = calls.subscribe();
        let seen = seen.wait_for(|&calls| calls >= count).await;
        seen.expect("the sender is alive");
    }
}

async fn start() -> (Arc<Gate>, NearCache) {
    let gate = Arc::new(Gate {
        version: AtomicUsize::new(1),
        gets: watch::Sender::default(),
        sets: watch::Sender::default(),
        answers: Semaphore::new(0),
    });
    let at = Arc::clone(&gate);
    let get = handler_fn(move |_: RequestContext, request: wire::GetRequest| {
        let gate = Arc::clone(&at);
        async move { Response::ok(gate.get(request.key).await?) }
    });
    let at = Arc::clone(&gate);
    let set = handler_fn(move |_: RequestContext, request: wire::SetRequest| {
        let gate = Arc::clone(&at);
        async move { Response::ok(gate.set(request.key).await?) }
    });
    let router = Router::new()
        .route(SERVICE, "Get", get)
        .route(SERVICE, "Set", set);
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve(router));
    let config = ClientConfig::new(&format!("http://{address}")).unwrap();
    let client = Client::lazy(config.with_timeout(PATIENCE)).unwrap();
    let near = client.near(NearConfig::new(HOUR, 1 << 20)).unwrap();
    (gate, near)
}

async fn version(near: &NearCache, key: &str) -> u64 {
    near.get(key).await.unwrap().unwrap().version
}

#[tokio::test]
async fn gets_of_one_key_share_a_call_and_what_is_kept_needs_none() {
    let (gate, near) = start().await;
    gate.answers.add_permits(1);
    let shared = join_all((0..50).map(|_| version(&near, "k"))).await;
    assert_eq!(shared, [1; 50]);
    assert_eq!(version(&near.clone(), "k").await, 1);
    assert_eq!(*gate.gets.borrow(), 1);
    let stats = near.stats();
    assert_eq!((stats.misses, stats.shared, stats.hits), (1, 49, 1));
    assert!(format!("{near:?}").contains("misses: 1"));
}

#[tokio::test]
async fn a_get_that_fails_or_is_dropped_leaves_the_others_to_ask() {
    let (gate, near) = start().await;
    gate.answers.add_permits(3);
    let all = join_all((0..3).map(|_| near.get("bad"))).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(*gate.gets.borrow(), 3);

    let first = tokio::spawn({
        let near = near.clone();
        async move { version(&near, "k").await }
    });
    Gate::has(&gate.gets, 4).await;
    let second = tokio::spawn({
        let near = near.clone();
        async move { version(&near, "k").await }
    });
    while near.stats().shared < 3 {
        tokio::task::yield_now().await;
    }
    first.abort();
    Gate::has(&gate.gets, 5).await;
    // One of them may still be for the first.
    gate.answers.add_permits(2);
    assert_eq!(second.await.unwrap(), 1);
}

#[tokio::test]
async fn a_get_waits_no_longer_than_its_own_time() {
    let (gate, near) = start().await;
    let slow = tokio::spawn({
        let near = near.clone();
        async move { version(&near, "k").await }
    });
    Gate::has(&gate.gets, 1).await;
    let hasty = NearCache {
        client: near.client().with_timeout(Duration::from_millis(1)),
        core: Arc::clone(&near.core),
    };
    let error = hasty.get("k").await.unwrap_err();
    assert_eq!(error.code(), crate::Code::DeadlineExceeded);
    gate.answers.add_permits(1);
    assert_eq!(slow.await.unwrap(), 1);
    assert_eq!(*gate.gets.borrow(), 1);
}

#[tokio::test]
async fn a_get_that_was_under_way_during_a_write_is_not_kept() {
    let (gate, near) = start().await;
    let early = tokio::spawn({
        let near = near.clone();
        async move { version(&near, "k").await }
    });
    // The server has read for it, and its answer is late.
    Gate::has(&gate.gets, 1).await;
    let setting = tokio::spawn({
        let client = near.client().clone();
        async move { client.set("k", "new", SetOptions::new()).await }
    });
    Gate::has(&gate.sets, 1).await;
    // Semaphores are fair: the get is the first.
    gate.answers.add_permits(1);
    assert_eq!(early.await.unwrap(), 1);
    assert_eq!(near.stats().entries, 1);
    gate.answers.add_permits(2);
    setting.await.unwrap().unwrap();
    assert_eq!(version(&near, "k").await, 2);

    // The other way round: the answer comes after the write has ended.
    near.invalidations().forget_all();
    let early = tokio::spawn({
        let near = near.clone();
        async move { version(&near, "lost").await }
    });
    Gate::has(&gate.gets, 3).await;
    let lost = near.client().set("lost", "new", SetOptions::new()).await;
    assert!(lost.unwrap_err().may_have_applied());
    gate.answers.add_permits(1);
    assert_eq!(early.await.unwrap(), 2);
    gate.answers.add_permits(1);
    assert_eq!(version(&near, "lost").await, 3);
}

#[tokio::test]
async fn a_write_without_an_answer_keeps_its_key_away() {
    let (gate, near) = start().await;
    gate.answers.add_permits(1);
    version(&near, "refused").await;
    let refused = near.client().set("refused", "v", SetOptions::new()).await;
    assert!(!refused.unwrap_err().may_have_applied());
    version(&near, "refused").await;
    assert_eq!(*gate.gets.borrow(), 1);

    // Dropped under way: each get asks the server.
    let client = near.client().clone();
    let dropped = tokio::spawn(async move { client.set("k", "v", SetOptions::new()).await });
    Gate::has(&gate.sets, 2).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    gate.answers.add_permits(10);
    version(&near, "k").await;
    version(&near, "k").await;
    assert_eq!(*gate.gets.borrow(), 3);
    // Others are kept as ever.
    version(&near, "other").await;
    version(&near, "other").await;
    assert_eq!(*gate.gets.borrow(), 4);
}

#[tokio::test]
async fn a_source_says_what_has_changed() {
    let (gate, near) = start().await;
    gate.answers.add_permits(100);
    let source = near.invalidations();
    assert!(format!("{source:?}").contains("Invalidations"));
    let mut wanted = 0;
    for (name, say) in [
        ("changed", (&|| source.changed("k")) as &dyn Fn()),
        ("written", &|| source.written("k", 2)),
        ("removed", &|| source.removed("k", 1)),
        ("prefix", &|| source.prefix("k")),
        ("forget_all", &|| source.forget_all()),
    ] {
        near.get("k").await.unwrap();
        wanted += 1;
        assert_eq!(*gate.gets.borrow(), wanted, "before {name}");
        say();
    }
    // These say nothing new.
    near.get("k").await.unwrap();
    source.written("k", 1);
    source.removed("k", 0);
    source.changed("other");
    source.prefix("kk");
    near.get("k").await.unwrap();
    assert_eq!(*gate.gets.borrow(), wanted + 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_in_touch_lengthens_the_life_of_what_it_watches() {
    // No server: time stands still, and what is kept is put there by hand.
    let client = Client::lazy(ClientConfig::new("http://127.0.0.1:1").unwrap()).unwrap();
    let near = client.near(NearConfig::new(Duration::from_secs(2), 1 << 20));
    let near = near.unwrap();
    let keep = |key: &'static str| {
        let core = &near.core;
        let Boarded::Leads(ticket) = core.board(key.into(), core.now()) else {
            panic!("nobody else asks");
        };
        let entry = crate::Entry::new(key, "value");
        ticket.land(&Some(entry), core.now(), wall_clock());
    };
    let is_kept = |key: &str| near.core.look(key.as_bytes(), near.core.now()).is_some();
    let now = || tokio::time::Instant::now().into_std();

    keep("before");
    let source = near.invalidations();
    source.in_touch(now());
    keep("since");
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(1)).await;
        source.in_touch(now());
        assert!(is_kept("since"));
    }
    assert!(!is_kept("before"));
    tokio::time::advance(Duration::from_millis(1999)).await;
    assert!(is_kept("since"));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!is_kept("since"));
}
