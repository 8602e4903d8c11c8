//! Pickers over lanes that are made up.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};

use super::*;

#[derive(Debug, Clone)]
struct Made {
    id: Id,
    load: Cell<u32>,
    room: Cell<Room>,
}

impl Lane for Made {
    fn id(&self) -> Id {
        self.id
    }

    fn in_flight(&self) -> u32 {
        self.load.get()
    }

    fn room(&self) -> Room {
        self.room.get()
    }
}

fn lane(id: u64, room: Room) -> Made {
    Made {
        id: Id(id),
        load: Cell::new(0),
        room: Cell::new(room),
    }
}

/// Lanes by a letter each: open, full, gone.
fn lanes(rooms: &str) -> Vec<Made> {
    let lanes = rooms.chars().zip(0..).map(|(room, id)| {
        lane(
            id,
            match room {
                'o' => Room::Open,
                'f' => Room::Full,
                'g' => Room::Gone,
                other => panic!("no room {other}"),
            },
        )
    });
    lanes.collect()
}

/// What a pick comes to, in a word.
fn word(pick: &Pick<'_, Made>) -> String {
    match pick {
        Pick::To(lane) => lane.id.0.to_string(),
        Pick::Wait { connect: None } => "wait".into(),
        Pick::Wait { connect: Some(id) } => format!("connect {}", id.0),
        Pick::Full(lane) => format!("full {}", lane.id.0),
        Pick::Fail(why) => format!("fail: {why}"),
        Pick::Unknown => "unknown".into(),
    }
}

#[test]
fn a_lane_is_used_only_while_it_takes_calls() {
    for (rooms, robin, least, one) in [
        ("o", "0", "0", "0"),
        ("f", "full 0", "full 0", "full 0"),
        ("g", "wait", "wait", "wait"),
        ("fo", "1", "1", "full 0"),
        ("go", "1", "1", "wait"),
        ("gf", "full 1", "full 1", "wait"),
    ] {
        let picker = Picker::RoundRobin(RoundRobin::new(lanes(rooms), 0));
        assert_eq!(word(&picker.pick(1, To::Any)), robin, "{rooms}");
        let picker = Picker::LeastRequest(LeastRequest::new(lanes(rooms), 2));
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..20 {
            assert_eq!(
                word(&picker.pick(rng.next_u64(), To::Any)),
                least,
                "{rooms}"
            );
        }
        let picker = Picker::One(lanes(rooms).remove(0));
        assert_eq!(word(&picker.pick(1, To::Any)), one, "{rooms}");
    }
    let failing = Picker::<Made>::Failing("refused".into());
    assert_eq!(word(&failing.pick(1, To::Any)), "fail: refused");
    assert_eq!(word(&Picker::<Made>::Idle.pick(1, To::Any)), "wait");
}

#[test]
fn round_robin_gives_each_its_turn() {
    let picker = Picker::RoundRobin(RoundRobin::new(lanes("ooo"), usize::MAX - 1));
    let picks: Vec<_> = (0..4).map(|_| word(&picker.pick(0, To::Any))).collect();
    let mut distinct = picks[..3].to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    // Where the counter begins anew, a turn may be skipped.
    assert!(distinct.len() >= 2, "{picks:?}");

    let picker = Picker::RoundRobin(RoundRobin::new(lanes("ooo"), 5));
    let picks: Vec<_> = (0..6).map(|_| word(&picker.pick(0, To::Any))).collect();
    assert_eq!(picks, ["2", "0", "1", "2", "0", "1"]);
}

#[test]
fn least_request_keeps_loads_even_where_one_is_slow() {
    let mut rng = SmallRng::seed_from_u64(48);
    let picker = Picker::LeastRequest(LeastRequest::new(lanes("oooo"), 2));
    let mut under_way = Vec::new();
    let mut counts = [0u32; 4];
    for turn in 0..4000u32 {
        let Pick::To(lane) = picker.pick(rng.next_u64(), To::Any) else {
            panic!("all are open");
        };
        lane.load.set(lane.load.get() + 1);
        counts[usize::try_from(lane.id.0).unwrap()] += 1;
        // The calls of lane 3 take ten times as long.
        let time = if lane.id.0 == 3 { 80 } else { 8 };
        under_way.push((turn + time, lane));
        under_way.retain(|(end, lane)| {
            if *end <= turn {
                lane.load.set(lane.load.get() - 1);
            }
            *end > turn
        });
    }
    assert!(counts[3] < counts[0] / 2, "{counts:?}");
    assert!(counts[..3].iter().all(|count| *count > 900), "{counts:?}");
}

fn names(count: u16) -> Vec<String> {
    (0..count).map(|at| format!("10.0.0.{at}:5051")).collect()
}

fn ring(count: u16) -> Arc<Ring> {
    Arc::new(Ring::new(&names(count), 1024, 4096))
}

#[test]
fn the_ring_is_the_one_of_the_specification() {
    // XXH64's published values.
    assert_eq!(Ring::hash(b""), 0xef46_db37_51d8_e999);
    assert_eq!(Ring::hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
    assert_eq!(Ring::hash(b"abc"), 0x44bc_2cf5_ad77_0999);

    let ring = Ring::new(&names(3), 8, 4096);
    // ceil(8 / 3) for each.
    assert_eq!(ring.entries().len(), 9);
    for (at, name) in names(3).iter().enumerate() {
        for place in 0..3 {
            let entry = (Ring::hash(format!("{name}_{place}").as_bytes()), at);
            assert!(ring.entries().contains(&entry), "{name}_{place}");
        }
    }
    assert!(ring.entries().is_sorted());
    // The order that a resolver gives changes nothing.
    let mut reversed = names(3);
    reversed.reverse();
    let other = Ring::new(&reversed, 8, 4096);
    let by_name = |ring: &Ring, names: &[String]| -> Vec<_> {
        let entries = ring.entries().iter();
        entries
            .map(|(at, index)| (*at, names[*index].clone()))
            .collect()
    };
    assert_eq!(by_name(&ring, &names(3)), by_name(&other, &reversed));
    // The most holds where there are more servers than entries.
    assert_eq!(Ring::new(&names(200), 100, 100).entries().len(), 100);
    assert!(Ring::new(&[], 1, 10).entries().is_empty());
}

#[test]
fn a_server_that_goes_moves_only_its_own_keys() {
    let seats = |count: u16| (0..count).map(|id| Seat::Ready(lane(id.into(), Room::Open)));
    // As many entries for each, whatever their number.
    let ring = |count: u16| Arc::new(Ring::new(&names(count), u32::from(count) * 256, 4096));
    let before = RingHash::new(ring(5), seats(5).collect(), 0);
    let after = RingHash::new(ring(4), seats(4).collect(), 0);
    let mut counts = HashMap::<String, u32>::new();
    for key in 0..5000 {
        let hash = Ring::hash(format!("key-{key}").as_bytes());
        let (old, new) = (word(&before.pick(hash)), word(&after.pick(hash)));
        assert!(old == new || old == "4", "key-{key}: {old} to {new}");
        *counts.entry(old).or_default() += 1;
    }
    assert!(
        counts.values().all(|count| (700..1300).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn the_first_on_the_ring_that_is_not_failing_decides() {
    // One entry each, in the order of the ring.
    let ring = Arc::new(Ring::new(&names(4), 4, 4));
    let order: Vec<usize> = ring.entries().iter().map(|(_, index)| *index).collect();
    // r(eady), i(dle), c(onnecting), x (failing), f(ull), g(one)
    for (states, percent, wanted) in [
        ("rrrr", 0, "0"),
        ("irrr", 0, "connect 0"),
        ("crrr", 0, "wait"),
        ("xrrr", 0, "1"),
        ("xxir", 0, "connect 2"),
        ("xxxc", 0, "wait"),
        ("xxxx", 0, "fail: 0"),
        ("frrr", 0, "full 0"),
        ("frrr", 125, "1"),
        ("ffff", 125, "full 0"),
        ("ficc", 125, "full 0"),
        ("grrr", 0, "wait"),
    ] {
        let mut seats: Vec<_> = (0..4).map(|_| Seat::Connecting).collect();
        for (id, (state, index)) in (0u64..).zip(states.chars().zip(&order)) {
            seats[*index] = match state {
                'r' => Seat::Ready(lane(id, Room::Open)),
                'f' => Seat::Ready(lane(id, Room::Full)),
                'g' => Seat::Ready(lane(id, Room::Gone)),
                'i' => Seat::Idle(Id(id)),
                'x' => Seat::Failing(id.to_string().into()),
                _ => Seat::Connecting,
            };
        }
        let picker = RingHash::new(Arc::clone(&ring), seats, percent);
        assert_eq!(word(&picker.pick(0)), wanted, "{states} {percent}");
        // A call for one server goes there or nowhere, whatever the others are.
        for (id, (state, index)) in states.chars().zip(&order).enumerate() {
            let wanted = match state {
                'r' => id.to_string(),
                'f' => format!("full {id}"),
                'i' => format!("connect {id}"),
                'x' => format!("fail: {id}"),
                _ => "wait".into(),
            };
            let name = &names(4)[*index];
            assert_eq!(word(&picker.server(name)), wanted, "{states} {name}");
        }
        assert_eq!(word(&picker.server("10.9.9.9:1")), "unknown");
    }
}

#[test]
fn bounded_load_moves_a_hot_key_on_and_keeps_each_below_its_share() {
    for percent in [100, 125, 200] {
        let seats = (0..5).map(|id| Seat::Ready(lane(id, Room::Open)));
        let picker = RingHash::new(ring(5), seats.collect(), percent);
        let hot = Ring::hash(b"hot");
        let mut total = 0u32;
        for _ in 0..500 {
            let Pick::To(lane) = picker.pick(hot) else {
                panic!("all are open");
            };
            total += 1;
            lane.load.set(lane.load.get() + 1);
            let most = (total * percent).div_ceil(500);
            assert!(lane.load.get() <= most, "{} of {total}", lane.load.get());
        }
    }
}
