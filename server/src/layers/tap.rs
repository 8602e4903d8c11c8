//! The talk's tap: before anything of a call is looked at but its head, whether there is
//! time for it. Refusing must cost far less than serving, or a server that is asked for
//! too much has no time for anything: the answer was encoded when the server began.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use larder_model::Store;
use larder_transport::rpc::Prepared;
use larder_transport::serve::pulse;

use super::admit::overloaded;
use super::shed::{Stage, UNKNOWN, Weight, of_thread};
use crate::clock;
use crate::connection::Identity;
use crate::core::Core;
use crate::failure::Failure;
use crate::methods::Method;
use crate::rpc::status::grpc_status;

/// Callers who are refused at the same time come back at different ones.
const DELAYS: usize = 8;
const DELAY_STEP: Duration = Duration::from_millis(25);

static REFUSALS: LazyLock<[Prepared; DELAYS]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        let (status, pushback) = grpc_status(&refusal(index));
        let trailers = pushback.map(|(name, delay)| (name.as_bytes(), delay.into_bytes()));
        let trailers: Vec<(&[u8], &[u8])> = trailers
            .iter()
            .map(|(name, delay)| (*name, &delay[..]))
            .collect();
        Prepared::new(&status, &trailers)
    })
});

fn refusal(index: usize) -> Failure {
    let failure = overloaded("the server has more calls than it can serve in time");
    let more = DELAY_STEP * u32::try_from(index).unwrap_or(0);
    let delay = failure.retry_after.unwrap_or_default() + more;
    failure.retry_after(delay)
}

thread_local! {
    static NEXT: Cell<usize> = const { Cell::new(0) };
}

fn next() -> usize {
    NEXT.with(|next| next.replace((next.get() + 1) % DELAYS))
}

/// What a call is told that there is no time for.
pub(crate) fn no_time() -> Failure {
    refusal(next())
}

/// The same, encoded.
pub(crate) fn no_time_prepared() -> &'static Prepared {
    &REFUSALS[next()]
}

/// Whether calls of this thread are to be asked about one by one ([`has_time`]). To be
/// asked at the beginning of each turn.
#[inline]
pub(crate) fn is_late<S: Store>(core: &Core<S>, now: Instant) -> bool {
    match core.admission.shedding {
        Some(settings) => of_thread(settings, |shedder| shedder.look(pulse(), now)),
        None => false,
    }
}

/// Whether there is time for a call of a thread that is late.
pub(crate) fn has_time<S: Store>(core: &Core<S>, method: &Method, slot: u8, stage: Stage) -> bool {
    match (core.admission.shedding, weight(method)) {
        (Some(settings), Some(weight)) => of_thread(settings, |shedder| {
            shedder.admits(pulse(), slot, weight, stage, clock::instant)
        }),
        _ => true,
    }
}

/// The slot of a caller, as far as they are known.
pub(crate) fn slot_of<S: Store>(caller: Option<&Identity<S>>) -> u8 {
    caller.map_or(UNKNOWN, |identity| identity.tenant.slot)
}

/// `None` for what is always answered: health, and whoever administers the accounts or
/// verifies tokens for another server.
fn weight(method: &Method) -> Option<Weight> {
    use crate::methods::Access::{Control, Open};
    match (method.access, method.typed) {
        (Control(_), _) => None,
        (Open, _) if method.path.starts_with("/grpc.health.") => None,
        (_, Some(typed)) if !typed.is_long() && !method.is_stream() => Some(Weight::Light),
        _ => Some(Weight::Heavy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::METHODS;

    #[test]
    fn what_is_always_answered_and_what_comes_last() {
        let weight_of = |path: &str| {
            let mut methods = METHODS.iter().filter(|method| method.path == path);
            weight(methods.next().expect("a method"))
        };
        let check = |expected: Option<Weight>, paths: &[&str]| {
            for path in paths {
                assert_eq!(weight_of(path), expected, "{path}");
            }
        };
        check(
            None,
            &[
                "/grpc.health.v1.Health/Check",
                "/larder.accounts.v1.AccountService/CreateAccount",
                "/larder.accounts.v1.AccountService/VerifyToken",
                "/rpc.Accounts/GetByToken",
            ],
        );
        check(
            Some(Weight::Light),
            &[
                "/larder.cache.v1.CacheService/Get",
                "/larder.cache.v1.CacheService/Increment",
                "/larder.cache.v1.CacheService/GetServerInfo",
                "/rpc.Cache/Store",
            ],
        );
        check(
            Some(Weight::Heavy),
            &[
                "/larder.cache.v1.CacheService/BatchGet",
                "/larder.cache.v1.CacheService/Dump",
                "/larder.cache.v1.CacheService/Load",
                "/larder.cache.v1.CacheService/ListKeys",
                "/rpc.Cache/Dump",
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            ],
        );
    }

    #[test]
    fn callers_are_sent_away_for_different_times() {
        let delays: std::collections::BTreeSet<_> =
            (0..DELAYS).map(|_| no_time().retry_after).collect();
        assert_eq!(delays.len(), DELAYS);
        assert!(no_time_prepared() != no_time_prepared());
    }
}
