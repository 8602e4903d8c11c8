//! A window that outlives its process: read out in steps, and put back.

use std::sync::Arc;

use super::{Known, State, Window};
use crate::once::{Fingerprint, Request, RequestId};
use crate::time::Time;

/// An outcome, as a window remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered<'a, T> {
    /// Of which write.
    pub request: Request<'a>,
    /// When it is forgotten.
    pub until: Time,
    /// What the write came to.
    pub outcome: T,
}

/// A place in a window, from which [`Window::walk`] goes on. Ordered; the default is
/// the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WindowPlace {
    /// Ids that came before, from the window's first to this one.
    ids: u64,
    /// The first write of the id to show.
    item: u32,
}

impl<T: Clone> Window<T> {
    /// The place behind every outcome that there is now.
    pub fn end(&self) -> WindowPlace {
        WindowPlace {
            ids: self.gone + self.settled.len() as u64,
            item: 0,
        }
    }

    /// Shows outcomes that are not over at `now`, from a place and before another,
    /// `budget` of them at the most; the oldest ids first. Returns where to go on,
    /// or `None` at the end. Claims are not shown.
    ///
    /// What is forgotten between two steps is left out. An id that is forgotten and
    /// used anew between them is shown twice, and the later one counts.
    pub fn walk(
        &self,
        now: Time,
        from: WindowPlace,
        end: WindowPlace,
        budget: usize,
        mut visit: impl FnMut(Remembered<'_, &T>),
    ) -> Option<WindowPlace> {
        let mut place = from;
        if place.ids < self.gone {
            place = WindowPlace {
                ids: self.gone,
                item: 0,
            };
        }
        let mut left = budget.max(1);
        while place < end {
            let at = usize::try_from(place.ids - self.gone).ok()?;
            let id = self.settled.get(at)?;
            if let Some(known) = self.known.get(id) {
                let first = known.items.partition_point(|(item, _)| *item < place.item);
                for (item, state) in &known.items[first..] {
                    if left == 0 {
                        place.item = *item;
                        return Some(place);
                    }
                    if let Some(shown) = known.show(id, *item, state, now) {
                        visit(shown);
                        left -= 1;
                    }
                }
            }
            place = WindowPlace {
                ids: place.ids + 1,
                item: 0,
            };
        }
        None
    }

    /// Puts an outcome back that another window remembered, to be forgotten when it
    /// would have been, and no later than if it were recorded now. To be called in the order in
    /// which they were shown. At the limit the oldest make room; an outcome of
    /// the same id for another request is older, and goes.
    pub fn restore(&mut self, now: Time, remembered: Remembered<'_, T>) {
        let Remembered {
            request,
            until,
            outcome,
        } = remembered;
        let until = until.min(self.end_of(now));
        if until <= now {
            return;
        }
        let id = request.id.as_str();
        let fingerprint = request.fingerprint;
        if self.stands_for_another(id, fingerprint) && !self.forget(id) {
            return;
        }
        while self.entries >= self.max_entries {
            if !self.forget_oldest() {
                return;
            }
        }
        self.changes += 1;
        let id: Arc<str> = match self.known.get_key_value(id) {
            Some((known, _)) => Arc::clone(known),
            None => id.into(),
        };
        let known = self.known.entry(Arc::clone(&id)).or_insert(Known {
            fingerprint,
            until: None,
            items: Vec::with_capacity(1),
        });
        match known.place(request.item) {
            Ok(at) => {
                let state = &mut known.items[at].1;
                // What is being carried out is newer.
                if matches!(state, State::Pending) {
                    return;
                }
                *state = State::Done(outcome);
            }
            Err(at) => {
                known.items.insert(at, (request.item, State::Done(outcome)));
                self.entries += 1;
            }
        }
        if known.until.is_none() {
            known.until = Some(until);
            self.settled.push_back(id);
        }
    }

    fn stands_for_another(&self, id: &str, fingerprint: Fingerprint) -> bool {
        let known = self.known.get(id);
        known.is_some_and(|known| known.fingerprint != fingerprint)
    }

    /// Forgets an id, unless a write of it is under way; a look at every id.
    fn forget(&mut self, id: &str) -> bool {
        let Some(known) = self.known.get(id).filter(|known| !known.is_pending()) else {
            return false;
        };
        self.entries -= known.items.len();
        self.known.remove(id);
        self.settled.retain(|settled| **settled != *id);
        true
    }
}

impl<T> Known<T> {
    fn show<'a>(
        &self,
        id: &'a str,
        item: u32,
        state: &'a State<T>,
        now: Time,
    ) -> Option<Remembered<'a, &'a T>> {
        let until = self.until.filter(|until| *until > now)?;
        let State::Done(outcome) = state else {
            return None;
        };
        let request = Request {
            id: RequestId::parse(id).ok()?,
            fingerprint: self.fingerprint,
            item,
        };
        Some(Remembered {
            request,
            until,
            outcome,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::once::OnceError;
    use crate::window::Claimed;

    const WINDOW: Duration = Duration::from_millis(1000);

    const fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn request(id: &str, fingerprint: u8, item: u32) -> Request<'_> {
        Request {
            id: RequestId::parse(id).expect("an id"),
            fingerprint: Fingerprint([fingerprint; 16]),
            item,
        }
    }

    fn put(window: &mut Window<u64>, now: u64, request: Request<'_>, outcome: u64) {
        assert_eq!(window.claim(at(now), request), Ok(Claimed::New));
        window.record(at(now), request, outcome);
    }

    /// What a walk in steps of `budget` shows: id, item, until, outcome.
    fn shown(window: &Window<u64>, now: u64, budget: usize) -> Vec<(String, u32, u64, u64)> {
        let mut shown = Vec::new();
        let mut from = Some(WindowPlace::default());
        while let Some(place) = from {
            let before = shown.len();
            from = window.walk(at(now), place, window.end(), budget, |it| {
                let id = it.request.id.as_str().to_owned();
                shown.push((id, it.request.item, it.until.as_millis(), *it.outcome));
            });
            assert!(shown.len() - before <= budget, "more than it may");
        }
        shown
    }

    #[test]
    fn a_walk_in_steps_of_any_size_shows_outcomes_in_order_and_no_claim() {
        let mut window = Window::new(WINDOW, 100);
        put(&mut window, 0, request("over", 1, 0), 0);
        for item in 0..7 {
            put(&mut window, 10, request("batch", 1, item), u64::from(item));
        }
        put(&mut window, 20, request("one", 1, 0), 9);
        let open = window.claim(at(20), request("batch", 1, 7));
        assert_eq!(open, Ok(Claimed::New));
        let expected: Vec<_> = (0..7)
            .map(|item| ("batch".to_owned(), item, 1010, u64::from(item)))
            .chain([("one".to_owned(), 0, 1020, 9)])
            .collect();
        for budget in 1..10 {
            assert_eq!(shown(&window, 1005, budget), expected, "{budget}");
        }
    }

    #[test]
    fn what_is_forgotten_between_two_steps_is_passed_over() {
        let mut window = Window::new(WINDOW, 100);
        for (now, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            put(&mut window, now as u64, request(id, 1, 0), 0);
        }
        let end = window.end();
        let next = window.walk(at(3), WindowPlace::default(), end, 1, |_| ());
        window.shrink(3);
        put(&mut window, 4, request("later", 1, 0), 0);
        let mut rest = Vec::new();
        let none = window.walk(at(4), next.expect("more"), end, 9, |it| {
            rest.push(it.request.id.as_str().to_owned());
        });
        assert_eq!((rest, none), (vec!["d".to_owned()], None));
    }

    #[test]
    fn an_outcome_that_comes_back_is_forgotten_when_it_would_have_been_and_never_later() {
        let check = |until: u64, expected: Option<u64>| {
            let mut window = Window::new(WINDOW, 10);
            let remembered = Remembered {
                request: request("a", 1, 0),
                until: at(until),
                outcome: 7,
            };
            window.restore(at(5000), remembered);
            let Some(last) = expected else {
                assert!(window.is_empty(), "{until}");
                return;
            };
            assert_eq!(window.look(at(last - 1), request("a", 1, 0)), Ok(Some(7)));
            assert_eq!(window.look(at(last), request("a", 1, 0)), Ok(None));
        };
        check(4000, None);
        check(5000, None);
        check(5001, Some(5001));
        check(5900, Some(5900));
        // A clock was set back, or the window has become shorter.
        check(9_999_999, Some(6000));
    }

    #[test]
    fn outcomes_come_back_within_the_bounds_and_the_later_one_of_an_id_counts() {
        let mut window = Window::new(WINDOW, 3);
        let mut put_back = |id: &str, fingerprint: u8, item: u32, outcome: u64| {
            let remembered = Remembered {
                request: request(id, fingerprint, item),
                until: at(500),
                outcome,
            };
            window.restore(at(0), remembered);
        };
        put_back("a", 1, 0, 1);
        put_back("b", 1, 0, 2);
        put_back("a", 2, 0, 3);
        put_back("c", 1, 0, 4);
        put_back("c", 1, 1, 5);
        assert_eq!(window.len(), 3);
        assert_eq!(window.look(at(1), request("b", 1, 0)), Ok(None));
        assert_eq!(window.look(at(1), request("a", 2, 0)), Ok(Some(3)));
        let reused = window.look(at(1), request("a", 1, 0));
        assert_eq!(reused, Err(OnceError::Reused));
        assert_eq!(window.look(at(1), request("c", 1, 1)), Ok(Some(5)));
        assert_eq!(window.usage(at(1)).forgotten_early, 1);
        window.expire(at(500));
        assert!(window.is_empty());
        assert_eq!(window.settled(), 0);
    }
}
