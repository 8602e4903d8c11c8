//! Writes with a request id, over connections that break: each takes effect once.
//!
//! A write is sent until it is acknowledged, by the same id. So however often it
//! arrived, and whatever became of the answers, what is there at the end is known
//! to the last count.

use std::net::SocketAddr;
use std::time::Duration;

use larder_client::{
    Client, ClientConfig, Condition, Error, IncrementOptions, RequestId, SetOptions, SetOutcome,
};
use larder_faults::{Proxy, Schedule};

use crate::server::{ANY_PORT, Server};

/// Longer than any answer takes that comes at all.
const TRY: Duration = Duration::from_millis(400);

async fn connect(address: SocketAddr) -> Client {
    let config = ClientConfig::new(&format!("http://{address}")).unwrap();
    loop {
        match Client::connect(config.clone().with_timeout(TRY)).await {
            Ok(client) => return client,
            Err(error) => assert!(is_broken(&error), "{error}"),
        }
    }
}

/// True for what a connection that breaks may come to; anything else is an answer.
fn is_broken(error: &Error) -> bool {
    use larder_client::Code;
    matches!(
        error.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
    )
}

/// A client that is made anew once its connection may be broken.
struct Stubborn {
    address: SocketAddr,
    client: Client,
    tries: u64,
}

impl Stubborn {
    async fn new(address: SocketAddr) -> Self {
        let client = connect(address).await;
        Self {
            address,
            client,
            tries: 0,
        }
    }

    /// Sends a call until it is answered.
    async fn until_answered<T>(&mut self, call: impl AsyncFn(&Client) -> Result<T, Error>) -> T {
        loop {
            self.tries += 1;
            match call(&self.client).await {
                Ok(answer) => return answer,
                Err(error) => assert!(is_broken(&error), "{error:?}"),
            }
            self.client = connect(self.address).await;
        }
    }

    async fn increment(&mut self, key: &str) -> i64 {
        let id = RequestId::generate().unwrap();
        let add = async |client: &Client| {
            let options = IncrementOptions::new().request_id(id.clone());
            client.increment(key, 1, options).await
        };
        self.until_answered(add).await.value
    }

    /// Writes under a condition that holds; the version of what was written.
    async fn write(&mut self, key: &str, condition: Condition) -> u64 {
        let id = RequestId::generate().unwrap();
        let set = async |client: &Client| {
            let options = SetOptions::new()
                .condition(condition)
                .request_id(id.clone());
            client.set(key, "value", options).await
        };
        let outcome = self.until_answered(set).await.outcome;
        let SetOutcome::Applied(entry) = &outcome else {
            unreachable!("its own success in the way: {outcome:?}")
        };
        entry.version
    }
}

/// What one client does: increments of a counter that all share, and a chain of
/// writes, each on condition that the one before it is still there.
async fn work(address: SocketAddr, name: String) -> (u64, u64) {
    let mut client = Stubborn::new(address).await;
    let key = format!("chain-{name}");
    let mut version = client.write(&key, Condition::IfAbsent).await;
    let mut last = 0;
    for _ in 0..ROUNDS {
        let value = client.increment("counter").await;
        assert!(value > last, "a counter that only grows");
        last = value;
        version = client.write(&key, Condition::IfVersion(version)).await;
    }
    (version, client.tries)
}

/// Clients at one proxy.
const CLIENTS: usize = 8;
/// Increments and chained writes of each.
const ROUNDS: usize = 125;

/// Lets clients work through a proxy with the faults of a seed, and looks at what
/// they leave; returns how often they sent something.
async fn through_faults(server: SocketAddr, direct: &Client, seed: u64) -> u64 {
    let any = "127.0.0.1:0".parse().unwrap();
    let proxy = Proxy::start(any, server, Schedule::random(seed))
        .await
        .unwrap();
    let name = |number: usize| format!("{seed}-{number}");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::task::spawn_local(work(proxy.address(), name(number))))
        .collect();
    let mut tries = 0;
    for (number, client) in clients.into_iter().enumerate() {
        let (version, tried) = client.await.unwrap();
        tries += tried;
        let key = format!("chain-{}", name(number));
        let entry = direct.get(&key).await.unwrap().unwrap();
        assert_eq!(
            entry.version, version,
            "what is there was acknowledged last"
        );
    }
    assert!(proxy.served().resets > 0, "{:?}", proxy.served());
    tries
}

#[tokio::test]
async fn writes_that_are_sent_until_acknowledged_take_effect_once() {
    const SEEDS: [u64; 2] = [1, 2];
    let server = Server::start(ANY_PORT);
    let direct = connect(server.address).await;
    let local = tokio::task::LocalSet::new();
    let mut tries = 0;
    for seed in SEEDS {
        tries += local
            .run_until(through_faults(server.address, &direct, seed))
            .await;
    }
    let increments = SEEDS.len() * CLIENTS * ROUNDS;
    let counter = direct.get("counter").await.unwrap().unwrap();
    assert_eq!(counter.value, increments.to_string().as_bytes());
    let writes = 2 * increments + SEEDS.len() * CLIENTS;
    assert!(tries > writes as u64, "nothing had to be sent again");
}
