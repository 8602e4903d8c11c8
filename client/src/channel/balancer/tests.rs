//! Event by event, and a world in which anything happens.

use std::collections::{HashMap, HashSet};

use super::super::address::Socket;
use super::super::balancing::{OutlierEjection, RingHash};
use super::*;

fn address(number: u16) -> Address {
    Address {
        socket: Socket::Tcp(([127, 0, 0, 1], number).into()),
        target: 0,
    }
}

fn addresses(numbers: &[u16]) -> Vec<Address> {
    numbers.iter().copied().map(address).collect()
}

fn balancer(balancing: Balancing) -> Balancer {
    let settings = Settings {
        balancing,
        watches_health: false,
        max_connections: 1,
    };
    Balancer::new(settings, 7)
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A script: `time event` each, and what is done and seen after it.
///
/// Events: `ask`, `ask N`, `resolve A B C` (ports), `unresolved`, `up N`, `fail N`, `lost N`,
/// `full N`, `serving N`, `sick N`, `tick`. `N` counts subchannels from 1 as they were made.
#[track_caller]
fn check(mut balancer: Balancer, script: &[(u64, &str, &str, &str)]) {
    for (time, event, actions, view) in script {
        let now = at(*time);
        let mut words = event.split(' ');
        let word = words.next().unwrap();
        let numbers: Vec<u16> = words.map(|number| number.parse().unwrap()).collect();
        let id = Id(numbers.first().copied().unwrap_or_default().into());
        let event = match word {
            "ask" => Event::Asked((id.0 > 0).then_some(id)),
            "resolve" => Event::Resolved(addresses(&numbers)),
            "unresolved" => Event::ResolveFailed("no such name".into()),
            "up" => Event::Connected(id),
            "fail" => Event::ConnectFailed(id, "refused".into()),
            "lost" => Event::Lost(id, "closed".into()),
            "full" => Event::Full(id),
            "serving" => Event::Health(id, Health::Serving),
            "sick" => Event::Health(id, Health::NotServing),
            "tick" => {
                balancer.tick(now, Vec::new);
                compare(&mut balancer, actions, view, &format!("{time} tick"));
                continue;
            }
            other => panic!("no event {other}"),
        };
        let shown = format!("{time} {event:?}");
        balancer.handle(event, now);
        compare(&mut balancer, actions, view, &shown);
    }
}

#[track_caller]
fn compare(balancer: &mut Balancer, actions: &str, view: &str, event: &str) {
    let done = balancer.actions().into_iter().map(|action| match action {
        Action::Connect(id, _) => format!("+{}", id.0),
        Action::Close(id) => format!("-{}", id.0),
        Action::Resolve => "resolve".into(),
        Action::Publish => "publish".into(),
    });
    assert_eq!(done.collect::<Vec<_>>().join(" "), actions, "{event}");
    let ids = |ids: &[Id]| ids.iter().map(|id| id.0.to_string()).collect::<String>();
    let seen = match balancer.view() {
        View::Idle => "idle".into(),
        View::Connecting => "connecting".into(),
        View::Failing(why) => format!("failing: {why}"),
        View::One(id) => format!("one {}", id.0),
        View::RoundRobin(all) => format!("each {}", ids(&all)),
        View::LeastRequest(all, _) => format!("least {}", ids(&all)),
        View::Ring(_, seats, _) => {
            let seat = |seat: &RingSeat| match seat {
                RingSeat::Idle(_) => 'i',
                RingSeat::Connecting => 'c',
                RingSeat::Ready(_) => 'r',
                RingSeat::Failing(_) => 'x',
            };
            seats.iter().map(seat).collect()
        }
    };
    assert_eq!(seen, view, "{event}");
}

#[test]
fn pick_first_connects_when_asked_and_stands_by() {
    check(
        balancer(Balancing::pick_first()),
        &[
            (0, "ask", "resolve", "connecting"),
            (0, "ask", "", "connecting"),
            (5, "resolve 1 2 3", "+1", "connecting"),
            (6, "fail 1", "+2", "connecting"),
            (9, "up 2", "", "one 2"),
            // The same addresses, and one that nobody needs.
            (99, "resolve 2 4", "-1 -3", "one 2"),
            (5000, "lost 2", "resolve", "idle"),
            (6000, "tick", "", "idle"),
            (6000, "ask", "+2", "connecting"),
            (6001, "fail 2", "+4", "connecting"),
            (6002, "up 4", "", "one 4"),
            // The selected one is gone: the others are tried, without being asked.
            (9000, "resolve 5", "-2 -4 +5", "connecting"),
        ],
    );
}

#[test]
fn attempts_overlap_by_a_quarter_of_a_second() {
    check(
        balancer(Balancing::pick_first()),
        &[
            (0, "ask", "resolve", "connecting"),
            (0, "resolve 1 2 3", "+1", "connecting"),
            (249, "tick", "", "connecting"),
            (250, "tick", "+2", "connecting"),
            (500, "tick", "+3", "connecting"),
            (900, "tick", "", "connecting"),
            (901, "fail 2", "", "connecting"),
            (902, "up 1", "-3", "one 1"),
        ],
    );
}

#[test]
fn pick_first_fails_once_all_have_and_then_each_is_tried_after_its_backoff() {
    let mut balancer = balancer(Balancing::pick_first());
    for event in [Event::Asked(None), Event::Resolved(addresses(&[1, 2]))] {
        balancer.handle(event, at(0));
    }
    for id in [1, 2] {
        balancer.handle(Event::ConnectFailed(Id(id), "refused".into()), at(id));
    }
    let want = [
        Action::Resolve,
        Action::Connect(Id(1), address(1)),
        Action::Connect(Id(2), address(2)),
        Action::Resolve,
    ];
    assert_eq!(balancer.actions(), want);
    assert_eq!(balancer.view(), View::Failing("refused".into()));
    balancer.handle(Event::Asked(None), at(10));
    assert_eq!(balancer.actions(), [], "a call does not shorten a backoff");
    let wake = balancer.wake_at().unwrap();
    assert!((at(800)..at(1205)).contains(&wake), "{wake:?}");
    balancer.tick(wake, Vec::new);
    let actions = balancer.actions();
    assert!(
        matches!(actions[..], [Action::Connect(..)]),
        "one of them: {actions:?}"
    );
    assert_eq!(balancer.view(), View::Failing("refused".into()));
    balancer.tick(at(1300), Vec::new);
    assert!(matches!(balancer.actions()[..], [Action::Connect(..)]));
    balancer.handle(Event::Connected(Id(2)), at(1400));
    assert_eq!(balancer.actions(), [Action::Close(Id(1))]);
    assert_eq!(balancer.view(), View::One(Id(2)));
}

#[test]
fn round_robin_uses_what_is_ready_and_connects_to_the_rest() {
    check(
        balancer(Balancing::round_robin()),
        &[
            (0, "ask", "resolve", "connecting"),
            (0, "resolve 1 2 3", "+1 +2 +3", "connecting"),
            (1, "up 2", "", "each 2"),
            (2, "fail 1", "resolve", "each 2"),
            (3, "up 3", "", "each 23"),
            (500, "tick", "", "each 23"),
            (1300, "tick", "+1", "each 23"),
            (1301, "up 1", "", "each 123"),
            (4000, "lost 2", "resolve +2", "each 13"),
            // Lost as soon as it was there, twice: not without a pause again.
            (4001, "up 2", "", "each 123"),
            (4002, "lost 2", "resolve +2", "each 13"),
            (4003, "up 2", "", "each 123"),
            (4004, "lost 2", "resolve", "each 13"),
            (4005, "resolve 3 1", "-2", "each 31"),
            (5000, "unresolved", "", "each 31"),
            (5000, "resolve", "", "each 31"),
        ],
    );
}

#[test]
fn all_that_fail_make_calls_fail_until_one_is_reached() {
    check(
        balancer(Balancing::least_request()),
        &[
            (0, "ask", "resolve", "connecting"),
            (0, "unresolved", "", "failing: no such name"),
            (0, "resolve 1 2", "+1 +2", "connecting"),
            (1, "fail 1", "resolve", "connecting"),
            (2, "fail 2", "resolve", "failing: refused"),
            (1300, "tick", "+1 +2", "failing: refused"),
            (1301, "up 1", "", "least 1"),
            (9000, "lost 1", "resolve +1", "connecting"),
        ],
    );
}

#[test]
fn a_ring_connects_to_what_keys_lead_to() {
    check(
        balancer(Balancing::ring_hash(RingHash::default())),
        &[
            (0, "ask", "resolve", "connecting"),
            (0, "resolve 1 2 3", "", "iii"),
            (1, "ask 2", "+2", "ici"),
            (2, "ask 2", "", "ici"),
            (3, "fail 2", "resolve", "ixi"),
            (4, "ask 2", "", "ixi"),
            (1300, "tick", "+2", "ixi"),
            (1301, "up 2", "", "iri"),
            (3000, "lost 2", "resolve", "iii"),
            (3001, "tick", "", "iii"),
        ],
    );
}

#[test]
fn health_is_watched_but_for_pick_first() {
    let watching = |balancing: Balancing| {
        let settings = Settings {
            balancing,
            watches_health: true,
            max_connections: 1,
        };
        Balancer::new(settings, 7)
    };
    assert!(!watching(Balancing::pick_first()).watches_health());
    check(
        watching(Balancing::round_robin()),
        &[
            (0, "ask", "resolve", "connecting"),
            (0, "resolve 1 2", "+1 +2", "connecting"),
            (1, "up 1", "", "connecting"),
            (2, "serving 1", "", "each 1"),
            (3, "up 2", "", "each 1"),
            (4, "serving 2", "", "each 12"),
            (5, "sick 1", "", "each 2"),
            (
                6,
                "sick 2",
                "",
                "failing: the server says that it is not serving",
            ),
            (7, "serving 1", "", "each 1"),
        ],
    );
}

#[test]
fn a_full_connection_gets_another_beside_it() {
    let settings = Settings {
        balancing: Balancing::pick_first(),
        watches_health: false,
        max_connections: 2,
    };
    check(
        Balancer::new(settings, 7),
        &[
            (0, "ask", "resolve", "connecting"),
            (0, "resolve 1 2", "+1", "connecting"),
            (1, "up 1", "", "one 1"),
            (2, "full 1", "+1", "one 1"),
            (3, "full 1", "", "one 1"),
            (4, "up 1", "", "one 1"),
            (5, "full 1", "", "one 1"),
            (6, "lost 1", "", "one 1"),
            (5000, "lost 1", "resolve", "idle"),
        ],
    );
}

#[test]
fn another_connection_that_failed_may_be_asked_for_again_after_its_backoff() {
    let settings = Settings {
        balancing: Balancing::pick_first(),
        watches_health: false,
        max_connections: 2,
    };
    check(
        Balancer::new(settings, 7),
        &[
            (0, "ask", "resolve", "connecting"),
            (0, "resolve 1", "+1", "connecting"),
            (1, "up 1", "", "one 1"),
            (2, "full 1", "+1", "one 1"),
            (3, "fail 1", "", "one 1"),
            (4, "full 1", "", "one 1"),
            (500, "tick", "", "one 1"),
            // 1 s, a fifth more or less: calls that wait are told to ask.
            (1300, "tick", "publish", "one 1"),
            (1301, "full 1", "+1", "one 1"),
            (1302, "up 1", "", "one 1"),
        ],
    );
}

#[test]
fn an_outlier_is_left_out_and_comes_back() {
    let ejection = OutlierEjection::default().with_volume(2, 10);
    let mut balancer = balancer(Balancing::round_robin().with_outlier_ejection(ejection));
    balancer.handle(Event::Asked(None), at(0));
    balancer.handle(Event::Resolved(addresses(&[1, 2, 3])), at(0));
    (1..=3).for_each(|id| balancer.handle(Event::Connected(Id(id)), at(0)));
    let calls = |id: u64, failed: u32| Calls {
        id: Id(id),
        succeeded: 100 - failed,
        failed,
    };
    assert_eq!(balancer.wake_at(), Some(at(10_000)));
    balancer.tick(at(9_999), || panic!("the interval is not over"));
    balancer.tick(at(10_000), || vec![calls(1, 0), calls(2, 100), calls(3, 1)]);
    assert_eq!(balancer.view(), View::RoundRobin(vec![Id(1), Id(3)]));
    for interval in 2..=4 {
        balancer.tick(at(interval * 10_000), Vec::new);
    }
    assert_eq!(balancer.view(), View::RoundRobin(vec![Id(1), Id(2), Id(3)]));
}

/// A world of servers that come and go, in which the actions of a balancer are carried out.
struct World {
    balancer: Balancer,
    rng: SmallRng,
    now: Duration,
    up: HashSet<u16>,
    /// Attempts under way: when they end.
    attempts: HashMap<Id, (Duration, u16)>,
    connections: HashMap<Id, u16>,
    /// Not before this may one in backoff be tried.
    earliest: HashMap<Id, Duration>,
    connects: u32,
}

impl World {
    fn new(balancing: Balancing, seed: u64) -> Self {
        Self {
            balancer: balancer(balancing),
            rng: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
            up: HashSet::new(),
            attempts: HashMap::new(),
            connections: HashMap::new(),
            earliest: HashMap::new(),
            connects: 0,
        }
    }

    fn event(&mut self, event: Event) {
        self.balancer.handle(event, self.now);
        self.act();
    }

    fn act(&mut self) {
        for action in self.balancer.actions() {
            match action {
                Action::Connect(id, address) => {
                    let Socket::Tcp(socket) = address.socket else {
                        panic!("all are TCP");
                    };
                    let earliest = self.earliest.get(&id).copied().unwrap_or_default();
                    assert!(self.now >= earliest, "one in backoff was connected to");
                    let end = self.now + at(self.rng.random_range(0..400));
                    let before = self.attempts.insert(id, (end, socket.port()));
                    assert!(before.is_none(), "two attempts at a time");
                    assert!(!self.connections.contains_key(&id));
                    self.connects += 1;
                }
                Action::Close(id) => {
                    self.attempts.remove(&id);
                    self.connections.remove(&id);
                }
                Action::Resolve | Action::Publish => {}
            }
        }
        self.check_view();
    }

    /// Whatever calls may go to is connected.
    fn check_view(&self) {
        let ready = match self.balancer.view() {
            View::One(id) => vec![id],
            View::RoundRobin(ids) | View::LeastRequest(ids, _) => {
                assert!(!ids.is_empty());
                ids
            }
            View::Ring(_, seats, _) => {
                let ready = seats.iter().filter_map(|seat| match seat {
                    RingSeat::Ready(id) => Some(*id),
                    _ => None,
                });
                ready.collect()
            }
            View::Connecting => {
                let has_addresses = self.balancer.subchannels().next().is_some();
                assert!(
                    !has_addresses || !self.attempts.is_empty(),
                    "calls wait for nothing"
                );
                Vec::new()
            }
            View::Idle | View::Failing(_) => Vec::new(),
        };
        for id in ready {
            assert!(
                self.connections.contains_key(&id),
                "{id:?} is not connected"
            );
        }
    }

    /// Lets time pass, to the next thing that happens or until `end`.
    fn step(&mut self, end: Duration) {
        let attempt = self.attempts.iter().map(|(id, (at, _))| (*at, *id)).min();
        let wake = self.balancer.wake_at();
        let next = attempt.map(|(at, _)| at).into_iter().chain(wake).min();
        self.now = next.map_or(end, |next| next.clamp(self.now, end));
        if let Some((due, id)) = attempt
            && due <= self.now
        {
            let (_, port) = self.attempts.remove(&id).unwrap();
            if self.up.contains(&port) {
                self.connections.insert(id, port);
                self.earliest.remove(&id);
                self.event(Event::Connected(id));
            } else {
                self.earliest.insert(id, self.now + at(800));
                self.event(Event::ConnectFailed(id, "refused".into()));
            }
        }
        self.balancer.tick(self.now, Vec::new);
        self.act();
    }

    fn happen(&mut self) {
        let port = self.rng.random_range(1..=5);
        match self.rng.random_range(0..6) {
            0 => drop(self.up.insert(port)),
            1 => {
                self.up.remove(&port);
                let mut lost = self.connections.iter();
                if let Some((&id, _)) = lost.find(|(_, at)| **at == port) {
                    self.connections.remove(&id);
                    self.event(Event::Lost(id, "closed".into()));
                }
            }
            2 => {
                let mut ports: Vec<u16> = (1..=5).collect();
                ports.shuffle(&mut self.rng);
                let some = ports.split_off(self.rng.random_range(0..=5));
                self.event(Event::Resolved(addresses(&some)));
            }
            3 => self.event(Event::ResolveFailed("no such name".into())),
            _ => self.ask(),
        }
    }

    fn ask(&mut self) {
        let idle = match self.balancer.view() {
            View::Ring(_, seats, _) => seats.iter().find_map(|seat| match seat {
                RingSeat::Idle(id) => Some(*id),
                _ => None,
            }),
            _ => None,
        };
        self.event(Event::Asked(idle));
    }
}

#[test]
fn whatever_happens_calls_go_to_what_is_there_and_come_back_in_time() {
    for seed in 0..120 {
        let balancing = match seed % 4 {
            0 => Balancing::pick_first(),
            1 => Balancing::pick_first_shuffled(),
            2 => Balancing::round_robin(),
            _ => Balancing::ring_hash(RingHash::default()),
        };
        let mut world = World::new(balancing, seed);
        world.ask();
        for _ in 0..150 {
            let end = world.now + at(world.rng.random_range(0..3000));
            while world.now < end {
                world.step(end);
            }
            world.happen();
        }
        let minutes = u32::try_from(world.now.as_secs() / 60 + 1).unwrap();
        assert!(
            world.connects < 150 * minutes,
            "{} attempts",
            world.connects
        );
        // From now on all is well: the longest backoff is over in 144 s.
        world.up = (1..=5).collect();
        world.event(Event::Resolved(addresses(&[1, 2, 3])));
        let end = world.now + at(150_000);
        while world.now < end {
            world.step(end);
        }
        for _ in 0..4 {
            world.ask();
            let end = world.now + at(1000);
            while world.now < end {
                world.step(end);
            }
        }
        let is_ready = match world.balancer.view() {
            View::One(_) => true,
            View::RoundRobin(ids) => ids.len() == 3,
            View::Ring(_, seats, _) => {
                let ready = |seat: &RingSeat| matches!(seat, RingSeat::Ready(_));
                seats.iter().all(ready)
            }
            _ => false,
        };
        assert!(is_ready, "seed {seed}: {:?}", world.balancer.view());
    }
}
