//! The window against a list of all that happened, and the stories that it is
//! made for.

use super::*;
use crate::once::RequestId;

const WINDOW: Duration = Duration::from_millis(1000);

fn request(id: &str, fingerprint: u8, item: u32) -> Request<'_> {
    Request {
        id: RequestId::parse(id).expect("an id"),
        fingerprint: Fingerprint([fingerprint; 16]),
        item,
    }
}

const fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

#[test]
fn a_write_is_claimed_carried_out_and_replayed_until_its_time_is_over() {
    let mut window = Window::new(WINDOW, 10);
    let one = request("a", 1, 0);
    assert_eq!(window.claim(at(0), one), Ok(Claimed::New));
    assert_eq!(window.claim(at(1), one), Err(OnceError::InProgress));
    assert_eq!(
        window.claim(at(1), request("a", 2, 0)),
        Err(OnceError::Reused)
    );
    window.record(at(5), one, 7);
    assert_eq!(window.claim(at(1004), one), Ok(Claimed::Known(7)));
    assert_eq!(
        window.claim(at(1004), request("a", 2, 0)),
        Err(OnceError::Reused)
    );
    let other = request("a", 2, 9);
    assert_eq!(window.look(at(1004), other), Err(OnceError::Reused));
    assert_eq!(window.look(at(1005), one), Ok(None));
    assert_eq!(window.claim(at(1005), request("a", 2, 0)), Ok(Claimed::New));
}

#[test]
fn what_came_to_nothing_is_not_recorded() {
    let mut window: Window<u8> = Window::new(WINDOW, 10);
    assert_eq!(window.claim(at(0), request("a", 1, 0)), Ok(Claimed::New));
    window.abandon(request("a", 1, 0));
    assert!(window.is_empty());
    // Nor is it bound to what it stood for.
    assert_eq!(window.claim(at(0), request("a", 2, 0)), Ok(Claimed::New));
}

#[test]
fn the_oldest_make_room_and_claims_never_do() {
    let mut window = Window::new(WINDOW, 2);
    for id in ["a", "b"] {
        assert_eq!(window.claim(at(0), request(id, 1, 0)), Ok(Claimed::New));
    }
    assert_eq!(
        window.claim(at(0), request("c", 1, 0)),
        Err(OnceError::Full)
    );
    window.record(at(0), request("b", 1, 0), 'b');
    assert_eq!(window.claim(at(0), request("c", 1, 0)), Ok(Claimed::New));
    assert_eq!(window.look(at(0), request("b", 1, 0)), Ok(None));
    assert_eq!(window.usage(at(0)).forgotten_early, 1);
    assert_eq!(window.usage(at(0)).recorded, 2);
}

/// What a plain list says: every claim and outcome there is, in the order in which
/// ids got their first outcome.
#[derive(Default)]
struct Plain {
    entries: Vec<Entry>,
    /// Ids with outcomes, the oldest first, and when they are forgotten.
    settled: Vec<(String, u64)>,
    forgotten_early: u64,
}

struct Entry {
    id: String,
    fingerprint: u8,
    item: u32,
    outcome: Option<u64>,
}

impl Plain {
    fn forget(&mut self, id: &str) -> u64 {
        let before = self.entries.len();
        self.entries
            .retain(|it| it.id != id || it.outcome.is_none());
        self.settled.retain(|(settled, _)| settled != id);
        (before - self.entries.len()) as u64
    }

    fn pass(&mut self, now: u64) {
        let over = |(_, until): &&(String, u64)| *until <= now;
        while let Some((id, _)) = self.settled.first().filter(over).cloned() {
            self.forget(&id);
        }
    }

    fn look(&self, id: &str, fingerprint: u8, item: u32) -> Result<Option<u64>, OnceError> {
        let of_id = || self.entries.iter().filter(|it| it.id == id);
        if of_id().any(|it| it.fingerprint != fingerprint) {
            return Err(OnceError::Reused);
        }
        match of_id().find(|it| it.item == item).map(|it| it.outcome) {
            None => Ok(None),
            Some(None) => Err(OnceError::InProgress),
            Some(done) => Ok(done),
        }
    }
}

/// Numbers that are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Drives a window and the list by the same steps.
fn drive(seed: u64, max_entries: usize) -> u64 {
    let mut random = Random(seed);
    let mut window = Window::new(WINDOW, max_entries);
    let mut plain = Plain::default();
    let mut claims: Vec<(String, u8, u32)> = Vec::new();
    let mut now = 0;
    let mut replayed = 0;
    for step in 0..20_000_u64 {
        now += [0, 0, 1, 7, 90][usize::try_from(random.below(5)).expect("small")];
        plain.pass(now);
        if claims.is_empty() || random.below(2) == 0 {
            let id = format!("id-{}", random.below(40));
            let fingerprint = u8::from(random.below(12) == 0);
            let item = u32::try_from(random.below(3)).expect("small");
            let mut expected = plain.look(&id, fingerprint, item);
            if expected == Ok(None) {
                while plain.entries.len() >= max_entries {
                    let Some((oldest, _)) = plain.settled.first().cloned() else {
                        expected = Err(OnceError::Full);
                        break;
                    };
                    plain.forgotten_early += plain.forget(&oldest);
                }
            }
            let expected = expected.map(|known| known.map_or(Claimed::New, Claimed::Known));
            let claimed = window.claim(at(now), request(&id, fingerprint, item));
            assert_eq!(claimed, expected, "seed {seed}, step {step}");
            match claimed {
                Ok(Claimed::Known(_)) => replayed += 1,
                Ok(Claimed::New) => {
                    claims.push((id.clone(), fingerprint, item));
                    plain.entries.push(Entry {
                        id,
                        fingerprint,
                        item,
                        outcome: None,
                    });
                }
                Err(_) => {}
            }
        } else {
            let chosen = random.below(claims.len() as u64);
            let chosen = usize::try_from(chosen).expect("small");
            let (id, fingerprint, item) = claims.swap_remove(chosen);
            let claimed = request(&id, fingerprint, item);
            let is_it = |it: &Entry| it.id == id && it.item == item;
            let place = plain.entries.iter().position(is_it).expect("a claim stays");
            if random.below(4) == 0 {
                window.abandon(claimed);
                plain.entries.remove(place);
            } else {
                window.record(at(now), claimed, step);
                plain.entries[place].outcome = Some(step);
                if !plain.settled.iter().any(|(settled, _)| *settled == id) {
                    plain.settled.push((id, now + 1000));
                }
            }
        }
        if random.below(2) == 0 {
            window.expire(at(now));
            let entries = plain.entries.len();
            assert_eq!(window.len(), entries, "seed {seed}, step {step}");
        }
        let used = window.usage(at(now));
        assert_eq!(
            used.recorded,
            plain.entries.len() as u64,
            "seed {seed}, step {step}"
        );
        assert_eq!(
            used.forgotten_early, plain.forgotten_early,
            "seed {seed}, step {step}"
        );
    }
    replayed
}

#[test]
fn a_window_does_as_a_list_of_all_that_happened() {
    let mut replayed = 0;
    for seed in 0..8 {
        for max_entries in [3, 20, 1000] {
            replayed += drive(seed, max_entries);
        }
    }
    assert!(replayed > 1000, "only {replayed} of 480,000 steps replayed");
}
