//! A model of the whole channel: servers that die, come back, send their clients away, say nothing
//! or fail their calls, as a seed says, in time that passes whenever nothing else happens. What is
//! promised is checked for every call: it ends by its deadline; one that may not be repeated
//! is carried out once at the most; once servers serve, calls go well; and nothing stays behind.
//!
//! The channel's own draws (jitter, choices) are not the seed's: what has to hold, holds with any.

use std::collections::HashMap;
use std::sync::Mutex;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::*;

/// Worlds that are tried, each with a seed.
const SEEDS: u64 = 60;

/// How long servers misbehave in each.
const CHAOS: Duration = Duration::from_secs(40);

/// The longest backoff (gRPC's connection-backoff.md: 120 s and a fifth), and an attempt.
const ONE_BACKOFF: Duration = Duration::from_secs(146);

/// How often calls were carried out, by their number.
#[derive(Default)]
struct Ledger(Mutex<HashMap<u64, u32>>);

impl Ledger {
    fn note(&self, body: &[u8]) {
        let number = u64::from_be_bytes(body.try_into().unwrap());
        *self.0.lock().unwrap().entry(number).or_default() += 1;
    }

    fn times(&self, number: u64) -> u32 {
        self.0.lock().unwrap().get(&number).copied().unwrap_or(0)
    }
}

struct World {
    servers: Vec<Server>,
    ledger: Arc<Ledger>,
    random: SmallRng,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut world = Self {
            servers: Vec::new(),
            ledger: Arc::default(),
            random: SmallRng::seed_from_u64(seed),
        };
        for _ in 0..world.random.random_range(1..=4) {
            let any_port = "127.0.0.1:0".parse().unwrap();
            let server = world.server(any_port).await;
            world.servers.push(server);
        }
        world
    }

    /// A server that behaves in any way.
    async fn server(&mut self, address: SocketAddr) -> Server {
        let manner = match self.random.random_range(0..8) {
            0 => Manner::Mute,
            1 => Manner::GoesAway,
            2 => Manner::Closes,
            _ => Manner::Speaks(self.random.random_range(1..6)),
        };
        let own = Mutex::new(SmallRng::seed_from_u64(self.random.random()));
        let ledger = Arc::clone(&self.ledger);
        Server::at(address, manner, move |_, seen| {
            let reply = reply(&mut own.lock().unwrap());
            // What was refused was not looked at.
            if !matches!(reply, Reply::Reset(h2::Reason::REFUSED_STREAM)) {
                ledger.note(&seen.body);
            }
            reply
        })
        .await
    }

    /// One that answers every call.
    async fn calm(&self, address: SocketAddr) -> Server {
        let ledger = Arc::clone(&self.ledger);
        Server::at(address, Manner::Speaks(100), move |_, seen| {
            ledger.note(&seen.body);
            Reply::Ok(seen.body.clone())
        })
        .await
    }

    async fn misbehave(&mut self) {
        let end = Instant::now() + CHAOS;
        while Instant::now() < end {
            let pause = Duration::from_millis(self.random.random_range(1..3000));
            tokio::time::sleep(pause).await;
            let at = self.random.random_range(0..self.servers.len());
            match self.random.random_range(0..3) {
                0 => self.servers[at].send_away(),
                _ => {
                    self.servers[at].kill().await;
                    self.servers[at] = self.server(self.servers[at].address).await;
                }
            }
        }
    }
}

/// What becomes of a call at a server that speaks.
fn reply(random: &mut SmallRng) -> Reply {
    let pause = Duration::from_millis(random.random_range(1..200));
    match random.random_range(0..20) {
        0 => Reply::Status(14, vec![]),
        1 => Reply::Status(14, vec![("grpc-retry-pushback-ms", "40")]),
        2 => Reply::Status(14, vec![("grpc-retry-pushback-ms", "600000")]),
        3 => Reply::Status(3, vec![]),
        4 => Reply::Reset(h2::Reason::REFUSED_STREAM),
        5 => Reply::Reset(h2::Reason::INTERNAL_ERROR),
        6 => Reply::HangUp,
        7 => Reply::Silence,
        8..12 => Reply::Slow(pause, b"late".to_vec()),
        _ => Reply::Ok(b"ok".to_vec()),
    }
}

fn any_call(random: &mut SmallRng) -> How {
    How {
        path: ["/a.B/C", "/a.H/C", "/a.X/C"][random.random_range(0..3)],
        safety: match random.random() {
            true => Safety::Repeatable,
            false => Safety::AtMostOnce,
        },
        wait: match random.random_range(0..3) {
            0 => Wait::ForReady,
            _ => Wait::FailFast,
        },
        within: Duration::from_millis(random.random_range(1..4000)),
        to: To::Key(random.random()),
    }
}

/// Makes a call, and checks what is promised of every one.
async fn checked(caller: &Caller, how: How, number: u64, ledger: &Ledger) -> Done {
    let heads = caller.config.endpoints();
    let heads = heads.map(|it| head(&caller.config, it, how.path));
    let method = caller.config.service_config.methods.of(how.path);
    let begun = Instant::now();
    let call = Call {
        heads: &Made(heads.collect::<Result<_, _>>().unwrap()),
        metadata: None,
        tries: &method.tries,
        safety: how.safety,
        deadline: Some(begun + how.within),
        wait: how.wait,
        to: how.to,
        reads: how.safety == Safety::Repeatable,
        told: None,
    };
    let mut message = |out: &mut Vec<u8>| out.extend_from_slice(&number.to_be_bytes());
    let done = caller.channel.unary(call, &mut message).await;
    // The timer's grain is a millisecond, and a call may take one for its server and one for its
    // own.
    let late = begun.elapsed().saturating_sub(how.within);
    assert!(
        late <= Duration::from_millis(2),
        "{how:?} ended {late:?} late: {done:?}"
    );
    if how.safety == Safety::AtMostOnce {
        assert!(ledger.times(number) <= 1, "{how:?} was carried out twice");
    }
    done
}

/// Calls without a pause, of which some are given up on the way.
async fn keep_calling(caller: Arc<Caller>, ledger: Arc<Ledger>, seed: u64) -> (u64, u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let end = Instant::now() + CHAOS;
    let (mut once, mut good) = (Vec::new(), 0);
    while Instant::now() < end {
        let (how, number) = (any_call(&mut random), random.random());
        let patience = match random.random_range(0..5) {
            0 => Duration::from_millis(random.random_range(0..50)),
            _ => Duration::MAX,
        };
        let call = checked(&caller, how, number, &ledger);
        if let Ok(done) = tokio::time::timeout(patience, call).await {
            good += u64::from(answer_of(done).is_ok());
        }
        if how.safety == Safety::AtMostOnce {
            once.push(number);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
    }
    // Also of those that were given up, and whose servers were slow to see them.
    for number in &once {
        assert!(ledger.times(*number) <= 1);
    }
    (once.len() as u64, good)
}

async fn check(seed: u64) -> (u64, u64) {
    let alive = || {
        let metrics = tokio::runtime::Handle::current().metrics();
        metrics.num_alive_tasks()
    };
    let before = alive();
    let mut world = World::new(seed).await;
    let balancing = match seed % 4 {
        0 => Balancing::pick_first(),
        1 => Balancing::round_robin(),
        2 => Balancing::least_request(),
        _ => Balancing::ring_hash(RingHash::default()),
    };
    let all: Vec<&Server> = world.servers.iter().collect();
    let config = config(&all).with_balancing(balancing);
    let caller = Caller::new(config.with_connect_timeout(Duration::from_millis(500)));
    let caller = Arc::new(caller);
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (caller, ledger) = (Arc::clone(&caller), Arc::clone(&world.ledger));
        callers.spawn(keep_calling(caller, ledger, world.random.random()));
    }
    world.misbehave().await;
    let mut sums = (0, 0);
    while let Some(ended) = callers.join_next().await {
        let (once, good) = ended.unwrap_or_else(|panic| panic!("seed {seed}: {panic}"));
        sums = (sums.0 + once, sums.1 + good);
    }

    // All of them serve again: whoever waits is served within one backoff, and after that each.
    for at in 0..world.servers.len() {
        world.servers[at].kill().await;
        world.servers[at] = world.calm(world.servers[at].address).await;
    }
    let patient = How {
        wait: Wait::ForReady,
        within: ONE_BACKOFF,
        ..USUAL
    };
    for number in 0..20 {
        let how = match number {
            0 => patient,
            _ => USUAL,
        };
        let done = checked(&caller, how, number, &world.ledger).await;
        answer_of(done).unwrap_or_else(|why| panic!("seed {seed}, call {number}: {why}"));
    }

    drop(caller);
    let listeners = before + world.servers.len();
    until("the channel leaves nothing behind", || alive() == listeners).await;
    for server in &mut world.servers {
        server.kill().await;
    }
    until("nor do the servers", || alive() == before).await;
    sums
}

#[tokio::test(start_paused = true)]
async fn whatever_servers_do_calls_end_in_time_and_are_carried_out_as_often_as_they_may_be() {
    let (mut once, mut good) = (0, 0);
    for seed in 0..SEEDS {
        let (more_once, more_good) = check(seed).await;
        once += more_once;
        good += more_good;
    }
    // The worlds are neither empty nor all ruin.
    assert!(once > 50 * SEEDS && good > 50 * SEEDS, "{once}, {good}");
}
