//! Three servers, of which one is killed while they are called: no call that may be repeated
//! fails, and the one that comes back is used again.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_client::{Balancing, Client, ClientConfig, RingHash, SetOptions};

/// A server that ends with the test.
struct Server {
    child: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Server {
    fn start(address: SocketAddr) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["serve", "--listen", &address.to_string(), "--data-dir"])
            .arg(data.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("listening on ")?.parse().ok())
            .unwrap();
        Self {
            child,
            address,
            _data: data,
        }
    }

    /// SIGKILL: it says goodbye to nobody.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes calls that may be repeated until it is told to end; how many.
async fn work(client: Client, name: u32, done: Arc<AtomicU64>) -> u64 {
    let mut calls = 0;
    while done.load(Ordering::Relaxed) == 0 {
        let key = format!("{name}-{}", calls % 50);
        let set = client.set(&key, "value", SetOptions::new()).await;
        set.expect("a set that may be repeated");
        let get = client.get(&key).await;
        get.expect("a get");
        calls += 2;
    }
    calls
}

async fn check(balancing: Balancing) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut servers = [any, any, any].map(Server::start);
    let all = servers.iter().map(|server| server.address.to_string());
    let target = format!("ipv4:{}", all.collect::<Vec<_>>().join(","));
    let config = ClientConfig::new(&target).unwrap();
    let config = config.with_balancing(balancing.clone());
    let client = Client::connect(config.with_timeout(Duration::from_secs(20)))
        .await
        .unwrap();
    let done = Arc::<AtomicU64>::default();
    let workers: Vec<_> = (0..16)
        .map(|name| tokio::spawn(work(client.clone(), name, Arc::clone(&done))))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    servers[0].kill();
    tokio::time::sleep(Duration::from_millis(700)).await;
    done.store(1, Ordering::Relaxed);
    let mut calls = 0;
    for worker in workers {
        calls += worker.await.unwrap();
    }
    assert!(calls > 500, "{balancing:?}: {calls} calls");

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

#[tokio::test]
async fn no_call_fails_when_the_first_server_is_killed() {
    check(Balancing::pick_first()).await;
}

#[tokio::test]
async fn no_call_fails_when_one_of_several_is_killed() {
    check(Balancing::round_robin()).await;
    check(Balancing::least_request()).await;
}

#[tokio::test]
async fn no_call_fails_when_the_server_of_some_keys_is_killed() {
    check(Balancing::ring_hash(RingHash::default())).await;
}
