//! A thread whose time is made up: it goes round its connections as the transport does,
//! and each call costs what the test says.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use super::*;
use crate::clock;

/// Who calls, how often, and what a call costs.
#[derive(Debug, Clone, Copy)]
struct Caller {
    slot: u8,
    weight: Weight,
    /// Calls a millisecond.
    per_ms: f64,
    cost_us: u64,
}

const fn light(slot: u8, per_ms: f64) -> Caller {
    Caller {
        slot,
        weight: Weight::Light,
        per_ms,
        cost_us: 100,
    }
}

/// What came of the calls of each caller.
#[derive(Debug, Clone, Default)]
struct Came {
    served: u64,
    refused: u64,
    /// The longest that one that was served has waited, from its arrival.
    longest: Duration,
}

const WHOLE: Stage = Stage::Whole;

/// A refusal costs so much, microseconds.
const REFUSAL_US: u64 = 2;

const fn us(number: u64) -> Duration {
    Duration::from_micros(number)
}

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("short")
}

/// Runs a thread; what comes of the calls after `from` is returned. In each period
/// it gets the processor for no longer than its share, if there is one.
fn run(callers: &[Caller], from: Duration, to: Duration, quota: Option<(u64, u64)>) -> Vec<Came> {
    let mut shedder = Shedder::new(Shedding::default());
    let start = clock_start();
    let mut came = vec![Came::default(); callers.len()];
    let mut asked = vec![0_u64; callers.len()];
    let mut now = Duration::ZERO;
    let mut before = Duration::ZERO;
    while now < to {
        let began = now;
        let pulse = Pulse {
            began: start + began,
            before,
        };
        for (index, caller) in callers.iter().enumerate() {
            // All that has come until the round began is read in it.
            let due = |n: u64| ms(1).mul_f64(n as f64 / caller.per_ms);
            let is_late = shedder.look(Some(pulse), start + now);
            while due(asked[index]) <= began {
                let at = due(asked[index]);
                asked[index] += 1;
                let (slot, weight) = (caller.slot, caller.weight);
                let admits =
                    !is_late || shedder.admits(Some(pulse), slot, weight, WHOLE, || start + now);
                now += us(if admits { caller.cost_us } else { REFUSAL_US });
                if let Some((on, off)) = quota
                    && millis(now) % (on + off) >= on
                {
                    now = ms((millis(now) / (on + off) + 1) * (on + off));
                }
                if at < from {
                    continue;
                }
                let came = &mut came[index];
                match admits {
                    true => {
                        came.served += 1;
                        came.longest = came.longest.max(now - at);
                    }
                    false => came.refused += 1,
                }
            }
        }
        // It sleeps until the next call, if it has nothing to do.
        if now == began {
            now += us(50);
            before = Duration::ZERO;
        } else {
            before = now - began;
        }
    }
    came
}

fn clock_start() -> Instant {
    clock::instant()
}

/// Of what came, the part that was served.
fn part(came: &Came) -> f64 {
    came.served as f64 / (came.served + came.refused).max(1) as f64
}

#[test]
fn a_thread_that_can_serve_all_refuses_nothing() {
    // It can serve ten a millisecond.
    for load in [1.0, 5.0, 9.0] {
        let came = run(&[light(1, load)], ms(0), ms(3000), None);
        assert_eq!(came[0].refused, 0, "{load} a millisecond");
    }
}

#[test]
fn at_four_times_what_can_be_served_goodput_and_latency_hold() {
    for quota in [None, Some((50, 50)), Some((5, 15))] {
        let share = quota.map_or(1.0, |(on, off)| on as f64 / (on + off) as f64);
        let each = 20.0 * share;
        let callers = [light(1, each), light(2, each)];
        let came = run(&callers, ms(1000), ms(5000), quota);
        let served: u64 = came.iter().map(|came| came.served).sum();
        // What it does in four seconds if it refuses nothing, less what refusing costs.
        let best = 4000.0 * 10.0 * share;
        assert!(served as f64 > 0.85 * best, "{quota:?}: {served} of {best}");
        let longest = came.iter().map(|came| came.longest).max();
        let most = ms(20) + quota.map_or(ms(0), |(_, off)| ms(2 * off));
        assert!(longest < Some(most), "{quota:?}: {longest:?}");
        // Two who ask for the same get the same.
        let ratio = part(&came[0]) / part(&came[1]);
        assert!((0.7..1.4).contains(&ratio), "{quota:?}: {came:?}");
    }
}

#[test]
fn where_there_is_time_what_waited_for_the_processor_is_served() {
    let check = |sleeps: bool, served: bool| {
        let mut shedder = Shedder::new(Shedding::default());
        let start = clock_start();
        let mut call = |at: u64, before: u64| {
            let pulse = Pulse {
                began: start + ms(at),
                before: ms(before),
            };
            let is_late = shedder.look(Some(pulse), start + ms(at));
            let clock = || start + ms(at);
            !is_late || shedder.admits(Some(pulse), 1, Weight::Light, WHOLE, clock)
        };
        // Late for long enough.
        call(0, 50);
        call(101, 50);
        // Half of what comes has waited too long: for twelve milliseconds, or more than
        // anybody waits.
        let mut last = false;
        for round in 11..100 {
            call(round * 10 - 1, 150);
            last = call(round * 10, 12);
            let rest = if sleeps { 0 } else { 5 };
            call(round * 10 + 1, rest);
            call(round * 10 + 2, rest);
        }
        assert_eq!(last, served, "sleeps: {sleeps}");
    };
    check(true, true);
    // One that never comes to its end has others to serve, who have not waited.
    check(false, false);
}

#[test]
fn a_greedy_account_takes_nothing_from_a_modest_one() {
    let callers = [light(1, 60.0), light(2, 1.0), light(3, 2.0)];
    let came = run(&callers, ms(1000), ms(4000), None);
    assert!(part(&came[1]) > 0.99, "{came:?}");
    assert!(part(&came[2]) > 0.99, "{came:?}");
    assert!(came[0].served > 3000 * 5, "{came:?}");
    // Of two that are greedy, the one that is more so gets no more.
    let callers = [light(1, 60.0), light(2, 15.0)];
    let came = run(&callers, ms(1000), ms(4000), None);
    let ratio = came[0].served as f64 / came[1].served as f64;
    assert!((0.6..1.7).contains(&ratio), "{came:?}");
}

#[test]
fn calls_of_few_entries_come_before_those_of_many() {
    let heavy = Caller {
        weight: Weight::Heavy,
        cost_us: 2000,
        ..light(2, 1.0)
    };
    // Together too much; the light ones alone are not.
    let came = run(&[light(1, 8.0), heavy], ms(1000), ms(5000), None);
    assert!(part(&came[0]) > 0.95, "{came:?}");
    assert!(came[1].refused > 0, "{came:?}");
    // Where there is nothing else, they are served.
    let came = run(&[heavy], ms(1000), ms(5000), None);
    assert!(came[0].served > 1500, "{came:?}");
}

#[test]
fn what_is_always_late_is_served_in_part() {
    // Each takes longer than any round may.
    let slow = Caller {
        cost_us: 60_000,
        ..light(1, 0.1)
    };
    let came = run(&[slow], ms(1000), ms(10_000), None);
    assert!(came[0].served > 30, "{came:?}");
}

#[test]
fn one_hiccup_is_no_overload_and_overload_passes() {
    let settings = Shedding::default();
    let mut shedder = Shedder::new(settings);
    let start = clock_start();
    let mut look = |at: u64, waited: u64| {
        let pulse = Pulse {
            began: start + ms(at),
            before: ms(waited),
        };
        let is_late = shedder.look(Some(pulse), start + ms(at));
        let clock = || start + ms(at);
        is_late.then(|| shedder.admits(Some(pulse), 1, Weight::Light, WHOLE, clock))
    };
    assert_eq!(look(100, 90), None, "late for the first time");
    assert_eq!(look(150, 0), None);
    assert_eq!(look(200, 90), None, "it was not late in between");
    assert_eq!(look(260, 90), None);
    assert_eq!(
        look(301, 90),
        Some(true),
        "late all the while; others may be served"
    );
    assert_eq!(look(320, 150), Some(false));
    assert_eq!(look(330, 1), Some(true));
    assert_eq!(look(400, 1), Some(true));
    assert_eq!(look(521, 1), None, "nobody was refused for long enough");
    assert_eq!(look(530, 90), None);
}

#[test]
fn a_call_that_is_asked_about_twice_counts_once() {
    let settings = Shedding::default();
    let now = clock_start();
    let pulse = |before| Pulse {
        began: now,
        before: ms(before),
    };
    let mut over = Over::new(now, settings.target);
    let mut check = |stage: Stage, before: u64, admits: bool, counted: (u32, u32, u32)| {
        let got = over.admits(&settings, &pulse(before), 1, Weight::Light, stage);
        let slot = over.slots[1];
        assert_eq!((got, over.offered), (admits, slot.offered), "{stage:?}");
        assert_eq!(
            (slot.offered, slot.served, over.stale),
            counted,
            "{stage:?}"
        );
    };
    check(Stage::Head, 0, true, (0, 0, 0));
    check(Stage::Whole, 0, true, (1, 1, 0));
    // One that is refused is not asked about again.
    check(Stage::Head, 1000, false, (2, 1, 1));
    check(Stage::Whole, 1000, false, (3, 1, 2));
}

#[test]
fn shares_are_max_min_fair() {
    let check = |asked: &[(u32, u32)], expected: u32| {
        let mut slots = [Slot::default(); SLOTS];
        for (slot, (offered, served)) in slots.iter_mut().zip(asked) {
            (slot.offered, slot.served) = (*offered, *served);
        }
        assert_eq!(fair_share(&slots), expected, "{asked:?}");
    };
    check(&[], u32::MAX);
    check(&[(10, 10), (20, 20)], u32::MAX);
    check(&[(100, 30)], 30);
    check(&[(100, 30), (100, 10)], 20);
    check(&[(5, 5), (100, 35), (100, 10)], 22);
    check(&[(5, 1), (10, 1), (100, 98)], 85);
}
