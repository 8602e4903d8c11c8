//! What is remembered of requests with an id: walked beside the entries, and put
//! back.

use larder_model::{Outcome, Remembered, Time, WindowPlace};

use super::walk::{Owner, Walk};
use crate::engine::{Account, Engine};

/// Outcomes of one step: some 10 µs under the lock of one account's window.
const STEP_OUTCOMES: usize = 128;

/// Where a walk over the windows is.
#[derive(Debug, Default)]
pub(super) struct RequestPosition {
    /// The place of an account.
    account: usize,
    /// In its window: here, and where that ended when the walk came to it.
    window: Option<(WindowPlace, WindowPlace)>,
}

impl Walk {
    /// One step over the outcomes that windows remember at `now`: shows some to
    /// `visit`, which should only copy, the oldest of an account first. Holds one
    /// lock. False at the end.
    ///
    /// A snapshot takes all these steps before the first [`step`](Self::step): then the
    /// effect of every outcome that is shown is in the entries that are. Outcomes that
    /// are recorded after the walk came to their account are left out.
    pub fn step_requests(
        &mut self,
        now: Time,
        mut visit: impl FnMut(Owner<'_>, Remembered<'_, Outcome>),
    ) -> bool {
        let position = &mut self.request_position;
        let Some((id, account)) = self.accounts.get(position.account) else {
            return false;
        };
        let owner = Owner {
            number: position.account,
            id,
        };
        let next = account.0.requests.read(|window| {
            let (from, end) = position
                .window
                .unwrap_or_else(|| (WindowPlace::default(), window.end()));
            let next = window.walk(now, from, end, STEP_OUTCOMES, |it| {
                let Remembered {
                    request,
                    until,
                    outcome,
                } = it;
                let outcome = *outcome;
                visit(
                    owner,
                    Remembered {
                        request,
                        until,
                        outcome,
                    },
                );
            });
            next.map(|next| (next, end))
        });
        position.window = next;
        position.account += usize::from(next.is_none());
        true
    }
}

impl Engine {
    /// Puts an outcome back into an account's window, until it would have been
    /// forgotten, within the limits of this engine. To be called in the order of the walk.
    pub fn restore_request(
        &self,
        account: &Account,
        now: Time,
        remembered: Remembered<'_, Outcome>,
    ) {
        self.make_room_for_requests();
        account.0.requests.restore(now, remembered);
    }
}
