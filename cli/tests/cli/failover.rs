//! Three servers, of which one is killed while they are called: no call that may be repeated
//! fails, and the one that comes back is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder_client::{Balancing, Client, ClientConfig, IncrementOptions, RingHash, SetOptions};

use crate::server::{ANY_PORT, Server};

/// Calls that may be repeated, as many tasks make them.
#[derive(Default)]
struct Work {
    calls: AtomicU64,
    is_over: AtomicBool,
}

impl Work {
    async fn run(&self, client: Client, name: u32) {
        for number in 0u64.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("{name}-{}", number % 50);
            let set = client.set(&key, "value", SetOptions::new()).await;
            set.expect("a set that may be repeated");
            let get = client.get(&key).await;
            get.expect("a get");
            self.calls.fetch_add(2, Ordering::Relaxed);
        }
    }

    /// Increments, each of which may be sent to a server once.
    async fn count(&self, client: Client, name: u32) {
        while !self.is_over.load(Ordering::Relaxed) {
            let add = client.increment(format!("count-{name}"), 1, IncrementOptions::new());
            add.await
                .expect("an increment that reached a server at most once");
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for so many calls more.
    async fn goes_on(&self, calls: u64) {
        let wanted = self.calls.load(Ordering::Relaxed) + calls;
        while self.calls.load(Ordering::Relaxed) < wanted {
            assert!(!self.is_over.load(Ordering::Relaxed), "a call has failed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Says so when its task ends, also by a panic.
struct Ends(Arc<Work>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

async fn check(balancing: Balancing) {
    let mut servers = [ANY_PORT; 3].map(Server::start);
    let all = servers.iter().map(|server| server.address.to_string());
    let target = format!("ipv4:{}", all.collect::<Vec<_>>().join(","));
    let config = ClientConfig::new(&target).unwrap();
    let config = config.with_balancing(balancing);
    let client = Client::connect(config.with_timeout(Duration::from_secs(20)))
        .await
        .unwrap();
    let work = Arc::<Work>::default();
    let workers: Vec<_> = (0..16)
        .map(|name| {
            let (client, ends) = (client.clone(), Ends(Arc::clone(&work)));
            tokio::spawn(async move { ends.0.run(client, name).await })
        })
        .collect();
    work.goes_on(500).await;
    servers[0].kill();
    work.goes_on(1000).await;
    work.is_over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }

    // Back at its place; the others go. Whoever waits is served within one backoff.
    servers[0] = Server::start(servers[0].address);
    servers[1].kill();
    servers[2].kill();
    let patient = client.wait_for_ready();
    patient
        .set("after", "value", SetOptions::new())
        .await
        .unwrap();
    assert!(patient.get("after").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_the_first_server_is_killed() {
    check(Balancing::pick_first()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_one_of_several_is_killed() {
    check(Balancing::round_robin()).await;
    check(Balancing::least_request()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_the_server_of_some_keys_is_killed() {
    check(Balancing::ring_hash(RingHash::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_a_server_is_drained_though_none_may_be_repeated() {
    let mut servers = [ANY_PORT; 2].map(Server::start);
    let all = servers.iter().map(|server| server.address.to_string());
    let target = format!("ipv4:{}", all.collect::<Vec<_>>().join(","));
    let config = ClientConfig::new(&target).unwrap();
    let config = config.with_balancing(Balancing::round_robin());
    let client = Client::connect(config).await.unwrap();
    let work = Arc::<Work>::default();
    let workers: Vec<_> = (0..16)
        .map(|name| {
            let (client, ends) = (client.clone(), Ends(Arc::clone(&work)));
            tokio::spawn(async move { ends.0.count(client, name).await })
        })
        .collect();
    work.goes_on(500).await;
    tokio::task::block_in_place(|| servers[0].drain());
    work.goes_on(500).await;
    work.is_over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
}
