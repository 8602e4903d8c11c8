//! Many calls that wait, and many addresses that come and go: bounded, served in the end, and
//! nothing left of those that are gone.

use tokio::task::JoinSet;

use super::*;

/// Waits as the calls do, one place each (`MAX_WAITING_CALLS`).
const PLACES: usize = 10_000;

#[tokio::test]
async fn as_many_calls_as_may_wait_are_all_served_once_a_server_is_there() {
    let mut server = Server::echo().await;
    let address = server.address;
    server.kill().await;
    let server = Server::at(address, Manner::Mute, |_, _| Reply::Silence).await;
    let caller = Arc::new(Caller::to(&[&server]));
    let patient = How {
        wait: Wait::ForReady,
        within: Duration::from_secs(300),
        ..USUAL
    };
    let mut calls = JoinSet::new();
    for _ in 0..PLACES {
        let caller = Arc::clone(&caller);
        calls.spawn(async move { answer_of(caller.call(patient).await) });
    }
    until("the first attempt", || server.connections() > 0).await;
    // Whoever comes now finds every place taken, and is told at once.
    let why = answer_of(caller.call(patient).await).unwrap_err();
    assert_eq!(why, "10000 calls wait for a connection already");
    let mut server = server;
    server.kill().await;
    // It allows half of them at a time: the others get a connection of their own.
    let echo = |_: usize, seen: &server::Seen| Reply::Ok(seen.body.clone());
    let server = Server::at(address, Manner::Speaks(5000), echo).await;
    let mut served = 0;
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
        served += 1;
    }
    assert_eq!(served, PLACES);
    assert!(server.connections() <= 2, "{}", server.connections());
    // Their places are free again.
    caller.answer().await.unwrap();
}

/// Gives one of two addresses, and then the other.
struct Alternating(Vec<SocketAddr>, AtomicUsize);

impl Resolver for Alternating {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        let asked = self.1.fetch_add(1, Ordering::SeqCst);
        let address = self.0[asked % self.0.len()];
        Box::pin(async move { Ok(vec![address]) })
    }
}

/// Time is that of the test.
#[tokio::test(start_paused = true)]
async fn addresses_that_come_and_go_leave_no_connection_behind() {
    for balancing in [
        Balancing::pick_first(),
        Balancing::round_robin(),
        Balancing::ring_hash(RingHash::default()),
    ] {
        let alive = || {
            let metrics = tokio::runtime::Handle::current().metrics();
            metrics.num_alive_tasks()
        };
        let before = alive();
        let mut servers = [Server::echo().await, Server::echo().await];
        let addresses = servers.iter().map(|server| server.address).collect();
        let resolver = Alternating(addresses, AtomicUsize::new(0));
        let config = ClientConfig::new("dns:///cache:1").unwrap();
        let config = config.with_resolver(resolver);
        let caller = Caller::new(config.with_balancing(balancing.clone()));
        let mut most = 0;
        for turn in 0..40 {
            // Sent away, the client asks for addresses, and is given the other.
            caller.answer().await.unwrap();
            servers[turn % 2].send_away();
            tokio::time::sleep(Duration::from_secs(40)).await;
            caller.answer().await.unwrap();
            most = most.max(alive());
        }
        // Two listeners, the channel's driver; of the connection its task, its guard and the
        // server's; and of the one before, what is about to end.
        assert!(most <= before + 9, "{balancing:?}: {most} tasks");
        let made: usize = servers.iter().map(Server::connections).sum();
        assert!((20..=90).contains(&made), "{balancing:?}: {made}");
        drop(caller);
        until("the channel is gone", || alive() == before + 2).await;
        for server in &mut servers {
            server.kill().await;
        }
    }
}
