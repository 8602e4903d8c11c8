//! The rules of asking elsewhere, in paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use larder_model::{AccountId, AccountName, AccountUid, Quota};

use super::*;
use crate::authority::whole_account;
use crate::telemetry::trace_context::TraceContext;
use crate::tenants::AccountGrant;

const MAX_AGE: Duration = Duration::from_secs(10);

/// What the Accounts server does at one asking.
#[derive(Clone, Copy)]
enum Answering {
    /// Says yes, after a time.
    Yes(Duration),
    /// Says that it knows no such token.
    No,
    /// Cannot be reached.
    Away,
    /// Says that the time is up as soon as its own is.
    Punctual,
}

#[derive(Default)]
struct Seen {
    asked: AtomicUsize,
    cancelled: AtomicUsize,
    limits: Mutex<Vec<Duration>>,
}

/// An Accounts server that follows a script; the last line goes on for ever.
struct Script {
    lines: Mutex<Vec<Answering>>,
    seen: Arc<Seen>,
}

/// Counts askings that were dropped before they had their answer.
struct Asking(Arc<Seen>, bool);

impl Asking {
    fn answered(mut self) {
        self.1 = true;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.1 {
            self.0.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Ask for Script {
    fn ask(
        &self,
        _: String,
        limit: Duration,
        _: Option<&TraceContext>,
    ) -> BoxFuture<'static, Result<Verdict, AskError>> {
        let mut lines = self.lines.lock();
        let line = if lines.len() > 1 {
            lines.remove(0)
        } else {
            lines[0]
        };
        self.seen.asked.fetch_add(1, Ordering::Relaxed);
        self.seen.limits.lock().push(limit);
        let asking = Asking(Arc::clone(&self.seen), false);
        async move {
            let answer = async {
                match line {
                    Answering::Yes(after) => {
                        tokio::time::sleep(after).await;
                        Ok(Verdict::Granted {
                            grant: grant(),
                            max_age: MAX_AGE,
                        })
                    }
                    Answering::No => Ok(Verdict::Unknown),
                    Answering::Away => Err(AskError::Unavailable("away".into())),
                    Answering::Punctual => {
                        tokio::time::sleep(limit - margin(limit)).await;
                        Err(AskError::TimedOut)
                    }
                }
            };
            let answer = tokio::time::timeout(limit, answer).await;
            asking.answered();
            answer.unwrap_or(Err(AskError::TimedOut))
        }
        .boxed()
    }
}

fn grant() -> Arc<Grant> {
    Arc::new(Grant {
        account: AccountGrant {
            id: AccountId {
                name: AccountName::parse("team-a").expect("a name"),
                uid: AccountUid::new("1"),
            },
            quota: Quota::UNLIMITED,
            max_requests_per_second: None,
        },
        rights: whole_account(),
        holder: crate::authority::Holder::Anonymous,
        verified_at: clock::instant(),
    })
}

fn remote(lines: &[Answering]) -> (Arc<Remote>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let script = Script {
        lines: Mutex::new(lines.to_vec()),
        seen: Arc::clone(&seen),
    };
    (Arc::new(Remote::new(script)), seen)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn reason(result: &Result<Vouched, Failure>) -> Option<Reason> {
    result.as_ref().err().map(|failure| failure.reason)
}

/// A caller with this much time.
async fn ask(remote: &Remote, time: Duration) -> Result<Vouched, Failure> {
    remote
        .verify("secret", Some(clock::instant() + time), None)
        .await
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_one_flight() {
    let (remote, seen) = remote(&[Answering::Yes(ms(100))]);
    let callers = (0..50).map(|_| ask(&remote, ms(1000)));
    for result in futures::future::join_all(callers).await {
        assert_eq!(reason(&result), None);
    }
    assert_eq!(seen.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_serves_for_its_max_age() {
    let (remote, seen) = remote(&[Answering::Yes(ms(1))]);
    for (wait, asked) in [(ms(0), 1), (ms(9_900), 1), (ms(200), 2)] {
        tokio::time::advance(wait).await;
        assert_eq!(reason(&ask(&remote, ms(1000)).await), None);
        assert_eq!(
            seen.asked.load(Ordering::Relaxed),
            asked,
            "after {wait:?} more"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_token_is_remembered_shortly() {
    let (remote, seen) = remote(&[Answering::No]);
    for (wait, asked) in [(ms(0), 1), (ms(900), 1), (ms(200), 2)] {
        tokio::time::advance(wait).await;
        let result = ask(&remote, ms(1000)).await;
        assert_eq!(reason(&result), Some(Reason::TokenInvalid));
        assert_eq!(
            seen.asked.load(Ordering::Relaxed),
            asked,
            "after {wait:?} more"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_serves_while_accounts_is_away_and_not_for_ever() {
    let (remote, _) = remote(&[Answering::Yes(ms(1)), Answering::Away]);
    assert_eq!(reason(&ask(&remote, ms(1000)).await), None);
    tokio::time::advance(MAX_AGE + MAX_STALE - ms(100)).await;
    assert_eq!(
        reason(&ask(&remote, ms(1000)).await),
        None,
        "stale, within its bound"
    );
    tokio::time::advance(ms(200)).await;
    let result = ask(&remote, ms(1000)).await;
    assert_eq!(
        reason(&result),
        Some(Reason::AccountsUnavailable),
        "past its bound"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_accounts_server_makes_no_call_slow_that_has_a_stale_answer() {
    let slow = Answering::Yes(ms(1500));
    let (remote, seen) = remote(&[Answering::Yes(ms(1)), slow]);
    assert_eq!(reason(&ask(&remote, ms(1000)).await), None);
    tokio::time::advance(MAX_AGE).await;
    let began = clock::instant();
    assert_eq!(reason(&ask(&remote, ms(500)).await), None);
    assert!(clock::instant() - began <= STALE_PATIENCE + ms(10));
    // The flight went on by itself, and brought a fresh answer.
    tokio::time::sleep(ms(1500)).await;
    assert_eq!(reason(&ask(&remote, ms(500)).await), None);
    assert_eq!(seen.asked.load(Ordering::Relaxed), 2);
    assert_eq!(seen.cancelled.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_forgotten_at_once_when_accounts_says_so() {
    let (remote, _) = remote(&[Answering::Yes(ms(1)), Answering::No, Answering::Away]);
    assert_eq!(reason(&ask(&remote, ms(1000)).await), None);
    tokio::time::advance(MAX_AGE).await;
    assert_eq!(
        reason(&ask(&remote, ms(1000)).await),
        Some(Reason::TokenInvalid)
    );
    tokio::time::advance(NEGATIVE_AGE).await;
    let result = ask(&remote, ms(1000)).await;
    assert_eq!(
        reason(&result),
        Some(Reason::AccountsUnavailable),
        "no stale answer is left"
    );
}

#[tokio::test(start_paused = true)]
async fn each_caller_waits_only_its_own_time() {
    let (remote, seen) = remote(&[Answering::Yes(ms(500))]);
    let began = clock::instant();
    let patient = ask(&remote, ms(1000));
    let hasty = async {
        let result = ask(&remote, ms(50)).await;
        (result, clock::instant() - began)
    };
    let (patient, (hasty, took)) = futures::future::join(patient, hasty).await;
    assert_eq!(reason(&patient), None);
    assert_eq!(reason(&hasty), Some(Reason::NotStarted));
    assert!(took < ms(60), "the hasty caller waited {took:?}");
    assert_eq!(seen.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_time_left_starts_a_flight_again_that_ended_for_another() {
    let slow = Answering::Yes(ms(300));
    let (remote, seen) = remote(&[slow]);
    // The hasty one comes first: the flight has its 100 ms.
    let hasty = ask(&remote, ms(100));
    let patient = ask(&remote, ms(1500));
    let (hasty, patient) = futures::future::join(hasty, patient).await;
    assert_eq!(reason(&hasty), Some(Reason::NotStarted));
    assert_eq!(reason(&patient), None);
    assert_eq!(seen.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn an_accounts_server_that_says_the_time_is_up_is_not_asked_again() {
    for time in [ms(500), ms(100), ms(7)] {
        let (remote, seen) = remote(&[Answering::Punctual]);
        let result = ask(&remote, time).await;
        assert_eq!(reason(&result), Some(Reason::NotStarted), "{time:?}");
        assert_eq!(seen.asked.load(Ordering::Relaxed), 1, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_would_not_wait_asks_nobody() {
    let (remote, seen) = remote(&[Answering::Yes(ms(500))]);
    assert!(ask(&remote, ms(1000)).now_or_never().is_none());
    assert_eq!(seen.asked.load(Ordering::Relaxed), 0);
    assert!(ask(&remote, ms(1000)).await.is_ok());
    // The answer is kept, and there at once.
    assert!(ask(&remote, ms(1000)).now_or_never().is_some());
    assert_eq!(seen.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flight_nobody_waits_for_is_cancelled() {
    let (remote, seen) = remote(&[Answering::Yes(ms(500))]);
    {
        let mut first = Box::pin(ask(&remote, ms(1000)));
        let mut second = Box::pin(ask(&remote, ms(1000)));
        // The first poll asks nobody yet.
        for _ in 0..2 {
            assert!(futures::poll!(first.as_mut()).is_pending());
            assert!(futures::poll!(second.as_mut()).is_pending());
        }
        assert_eq!(seen.asked.load(Ordering::Relaxed), 1);
        drop(first);
        assert_eq!(seen.cancelled.load(Ordering::Relaxed), 0, "one still waits");
    }
    assert_eq!(seen.cancelled.load(Ordering::Relaxed), 1);
    assert!(remote.known.lock().flights.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_to_accounts_takes_two_seconds_at_most() {
    let (remote, seen) = remote(&[Answering::Yes(ms(60_000))]);
    let began = clock::instant();
    let result = remote.verify("secret", None, None).await;
    assert_eq!(reason(&result), Some(Reason::AccountsUnavailable));
    let took = clock::instant() - began;
    assert!(
        took >= ACCOUNTS_TIMEOUT && took < ACCOUNTS_TIMEOUT + ms(10),
        "{took:?}"
    );
    assert!(
        seen.limits
            .lock()
            .iter()
            .all(|limit| *limit <= ACCOUNTS_TIMEOUT)
    );
}

#[tokio::test(start_paused = true)]
async fn guessed_tokens_hold_no_memory_without_a_bound() {
    let (remote, _) = remote(&[Answering::No]);
    for guess in 0..MAX_REFUSALS + 10 {
        let result = remote.verify(&guess.to_string(), None, None).await;
        assert_eq!(reason(&result), Some(Reason::TokenInvalid));
    }
    let known = remote.known.lock();
    assert!(known.refusals.len() <= MAX_REFUSALS);
    assert!(known.flights.is_empty());
}
