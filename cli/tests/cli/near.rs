//! A near cache before the program, and another client that writes beside it.

use std::time::{Duration, SystemTime};

use larder_client::{
    BatchSetItem, Client, ClientConfig, DeleteOptions, Entry, Expiry, IncrementOptions, NearCache,
    NearConfig, SetOptions, SetOutcome,
};
use tokio::time::Instant;

use crate::server::{ANY_PORT, Server};

/// Long enough that nothing in a test is too old by itself.
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn client(server: &Server) -> Client {
    let config = ClientConfig::new(&format!("http://{}", server.address)).unwrap();
    let config = config.with_timeout(Duration::from_secs(60));
    Client::connect(config).await.unwrap()
}

fn near(client: &Client, max_staleness: Duration) -> NearCache {
    let config = NearConfig::new(max_staleness, 1 << 20).with_clock_skew(Duration::ZERO);
    client.near(config).unwrap()
}

async fn value(near: &NearCache, key: &str) -> Option<String> {
    let entry = near.get(key).await.unwrap()?;
    Some(String::from_utf8_lossy(&entry.value).into_owned())
}

async fn set(client: &Client, key: &str, value: &'static str) -> u64 {
    let reply = client.set(key, value, SetOptions::new()).await.unwrap();
    match reply.outcome {
        SetOutcome::Applied(entry) => entry.version,
        SetOutcome::NotApplied(_) => unreachable!("it has no condition"),
    }
}

#[tokio::test]
async fn what_another_client_writes_is_hidden_no_longer_than_the_bound() {
    let server = Server::start(ANY_PORT);
    let (ours, theirs) = (client(&server).await, client(&server).await);
    let bound = Duration::from_millis(200);
    let near = near(&ours, bound);
    set(&theirs, "k", "old").await;

    assert_eq!(value(&near, "k").await.unwrap(), "old");
    set(&theirs, "k", "new").await;
    let written = Instant::now();
    let mut old = 0;
    loop {
        let begun = Instant::now();
        if value(&near, "k").await.unwrap() == "new" {
            break;
        }
        assert!(begun - written < bound, "{:?}", begun - written);
        old += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let stats = near.stats();
    assert_eq!((stats.hits, stats.misses, stats.stale), (old, 2, 1));
}

#[tokio::test]
async fn an_entry_is_not_given_out_after_its_ttl() {
    let server = Server::start(ANY_PORT);
    let client = client(&server).await;
    let near = near(&client, HOUR);
    let ttl = SetOptions::new().ttl(Duration::from_millis(300));
    client.set("k", "v", ttl).await.unwrap();
    loop {
        #[allow(
            clippy::disallowed_methods,
            reason = "when an entry expires is said by the wall clock"
        )]
        let begun = SystemTime::now();
        let Some(entry) = near.get("k").await.unwrap() else {
            break;
        };
        // The server counts in milliseconds, from a start that it rounded: it may be late by two.
        let end = entry.expire_time.unwrap() + Duration::from_millis(2);
        end.duration_since(begun).expect("it has not expired");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(near.stats().entries, 0, "nor is it kept");
}

/// Everything that changes an entry, by its name.
async fn write(client: &Client, name: &str) {
    let item = || BatchSetItem::new("k", "2", SetOptions::new());
    let expiry = Expiry::After(Duration::from_secs(60));
    match name {
        "set" => drop(set(client, "k", "2").await),
        "delete" => drop(client.delete("k", DeleteOptions::new()).await.unwrap()),
        "touch" => drop(client.touch("k", expiry).await.unwrap()),
        "get_and_touch" => drop(client.get_and_touch("k", expiry).await.unwrap()),
        "increment" => {
            let add = client.increment("k", 1, IncrementOptions::new());
            add.await.unwrap();
        }
        "batch_set" => drop(client.batch_set(vec![item()]).await.unwrap()),
        "batch_delete" => drop(client.batch_delete(&["k"]).await.unwrap()),
        "delete_prefix" => drop(client.delete_prefix("k").await.unwrap()),
        "delete_all" => drop(client.delete_all().await.unwrap()),
        "store" => client.talk().store("k", "2").await.unwrap(),
        "load" => {
            let mut load = client.load();
            load.push(Entry::new("k", "2")).await.unwrap();
            load.finish().await.unwrap();
        }
        other => unreachable!("{other} is no write"),
    }
}

#[tokio::test]
async fn no_write_of_the_client_is_hidden() {
    let server = Server::start(ANY_PORT);
    let ours = client(&server).await;
    let near = near(&ours, HOUR);
    for name in [
        "set",
        "delete",
        "touch",
        "get_and_touch",
        "increment",
        "batch_set",
        "batch_delete",
        "delete_prefix",
        "delete_all",
        "store",
        "load",
    ] {
        set(&ours, "k", "1").await;
        set(&ours, "z", "1").await;
        near.get("z").await.unwrap();
        let before = near.get("k").await.unwrap().unwrap();
        // A clone, with settings of its own.
        let other = ours.with_timeout(Duration::from_secs(30));
        write(&other, name).await;
        let after = near.get("k").await.unwrap();
        assert_eq!(after, ours.get("k").await.unwrap(), "{name}");
        assert_ne!(after.as_ref(), Some(&before), "{name}");
        // What it does not write stays, but for a walk over everything.
        let hits = near.stats().hits;
        near.get("z").await.unwrap();
        let stays = u64::from(name != "delete_all");
        assert_eq!(near.stats().hits - hits, stays, "{name}");
    }
}

#[tokio::test]
async fn a_near_cache_has_one_namespace() {
    let server = Server::start(ANY_PORT);
    let ours = client(&server).await;
    let other = ours.in_namespace("other");
    let (here, there) = (near(&ours, HOUR), near(&other, HOUR));
    set(&ours, "k", "here").await;
    set(&other, "k", "there").await;
    assert_eq!(value(&here, "k").await.unwrap(), "here");
    assert_eq!(value(&there, "k").await.unwrap(), "there");

    other.delete_all().await.unwrap();
    assert_eq!(value(&here, "k").await.unwrap(), "here");
    assert_eq!(value(&there, "k").await, None);
    assert_eq!((here.stats().hits, there.stats().hits), (1, 0));
    // `default` is the name of no name.
    set(&ours.in_namespace("default"), "k", "named").await;
    assert_eq!(value(&here, "k").await.unwrap(), "named");
    // The talk's contract has that namespace only.
    ours.in_namespace("other")
        .talk()
        .store("k", "talk")
        .await
        .unwrap();
    assert_eq!(value(&here, "k").await.unwrap(), "talk");
}

#[tokio::test]
async fn misses_are_asked_again_unless_they_are_kept() {
    let server = Server::start(ANY_PORT);
    let (ours, theirs) = (client(&server).await, client(&server).await);
    let asks = near(&ours, HOUR);
    let keeps = NearConfig::new(HOUR, 1 << 20).with_misses(HOUR);
    let keeps = ours.near(keeps).unwrap();
    assert_eq!(value(&asks, "k").await, None);
    assert_eq!(value(&keeps, "k").await, None);
    set(&theirs, "k", "v").await;
    assert_eq!(value(&asks, "k").await.unwrap(), "v");
    assert_eq!(value(&keeps, "k").await, None);
    set(&ours, "k", "ours").await;
    assert_eq!(value(&keeps, "k").await.unwrap(), "ours");
}

#[tokio::test]
async fn a_value_is_made_once_and_then_near() {
    let server = Server::start(ANY_PORT);
    let ours = client(&server).await;
    let near = near(&ours, HOUR);
    let fill = |value: &'static str| {
        near.get_or_fill("k", None, async move || Ok::<_, std::fmt::Error>(value))
    };
    assert_eq!(fill("made").await.unwrap().value, "made");
    assert_eq!(fill("no").await.unwrap().value, "made");
    let misses = near.stats().misses;
    assert_eq!(fill("no").await.unwrap().value, "made");
    assert_eq!(near.stats().misses, misses, "it is here");
    ours.delete("k", DeleteOptions::new()).await.unwrap();
    assert_eq!(fill("again").await.unwrap().value, "again");
}

#[tokio::test]
async fn a_source_that_tells_versions_keeps_it_true() {
    let server = Server::start(ANY_PORT);
    let (ours, theirs) = (client(&server).await, client(&server).await);
    let near = near(&ours, HOUR);
    let source = near.invalidations();
    source.in_touch(Instant::now().into_std());

    let mut last = 0;
    for round in 0..5 {
        let version = set(&theirs, "k", if round % 2 == 0 { "a" } else { "b" }).await;
        assert!(version > last, "versions grow, also over a delete");
        source.written("k", version);
        assert_eq!(near.get("k").await.unwrap().unwrap().version, version);
        // An echo of what is known.
        source.written("k", version);
        source.removed("k", last);
        let hits = near.stats().hits;
        near.get("k").await.unwrap();
        assert_eq!(near.stats().hits, hits + 1);
        theirs.delete("k", DeleteOptions::new()).await.unwrap();
        source.removed("k", version);
        assert_eq!(value(&near, "k").await, None);
        last = version;
    }
}
