//! Changes of the control plane: each runs where waiting for the disk holds up
//! nobody, and one that has a request id is carried out once.
//!
//! An answer is durable in the transaction of its change, as a receipt: a repeat
//! is told of it whether the server was drained or killed in between. What was told of
//! a secret is not kept.

use std::sync::Arc;

use buffa::Message;
use larder_accounts::limits::MAX_RECEIPTS;
use larder_accounts::{Accounts, Effect, Made, Receipt, UnixMillis};
use larder_api::accounts_v1 as wire;
use larder_api::errors::Reason;
use larder_model::{
    Claimed, Fingerprint, Mode, OnceError, Remembered, ReplayLimits, Request, RequestId, Store,
    Time, Window,
};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::accounts_v1::database_failure;
use super::request_id::{self, Repeat, check_attempt};
use crate::call::Call;
use crate::clock::{self, Clock};
use crate::core::Core;
use crate::failure::Failure;

/// Changes that are remembered; the oldest make room. An answer has 8 KiB at the
/// most, so all of them 32 MiB, in memory and on the disk.
const MAX_CHANGES: usize = MAX_RECEIPTS;

/// The accounts of this process, and the changes made to them lately.
pub(super) struct Control {
    accounts: Arc<Accounts>,
    window: Arc<Mutex<Window<Arc<[u8]>>>>,
}

/// What a request says of itself.
pub(super) struct Asked<'a> {
    /// Its id, or nothing.
    pub(super) id: &'a str,
    /// All of it but for its id, and whether it takes effect.
    pub(super) body: Vec<u8>,
    /// What carrying it out a second time would do.
    pub(super) repeat: Repeat,
    /// Whether it takes effect.
    pub(super) mode: Mode,
}

/// What a change comes to.
pub(super) struct Work<T, F> {
    /// Makes the change.
    pub(super) make: F,
    /// The answer as it is given again, but for [`Answer::again`].
    pub(super) kept: fn(Made<'_>) -> T,
}

/// An answer that can be given again.
pub(super) trait Answer: Message + Default + Clone + Send + 'static {
    /// Makes it one that was given before: it says so, and shows no secret.
    fn again(&mut self);

    /// Makes it one of a dry run.
    fn validated_only(&mut self);
}

macro_rules! answers {
    ($($answer:ident $({ $($secret:ident)+ })?;)+) => {
        $(impl Answer for wire::$answer {
            fn again(&mut self) {
                self.replayed = true;
                $($(self.$secret.clear();)+)?
            }

            fn validated_only(&mut self) {
                self.validated_only = true;
            }
        })+
    };
}

answers! {
    CreateAccountResponse;
    UpdateAccountResponse;
    DeleteAccountResponse;
    CreateTokenResponse { secret };
    RevokeTokenResponse;
}

/// A claim, given back unless it is recorded.
struct Claim {
    window: Arc<Mutex<Window<Arc<[u8]>>>>,
    id: ScopedId,
    fingerprint: Fingerprint,
    is_open: bool,
}

impl Claim {
    fn request(&self) -> Request<'_> {
        self.id.request(self.fingerprint)
    }

    fn receipt<T: Answer>(&self, kept: T) -> Receipt {
        let now_ms = clock::unix_millis();
        let lasts_ms = ReplayLimits::default().window.as_millis();
        let lasts_ms = u64::try_from(lasts_ms).unwrap_or(u64::MAX);
        Receipt {
            id: self.id.0.clone(),
            fingerprint: self.fingerprint.0,
            made_at: UnixMillis::new(now_ms),
            until: UnixMillis::new(now_ms.saturating_add(lasts_ms)),
            answer: again(kept),
        }
    }

    fn record<T: Answer>(mut self, now: Time, answer: &T) {
        self.is_open = false;
        let mut window = self.window.lock();
        window.record(now, self.request(), again(answer.clone()).into());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_open {
            self.window.lock().abandon(self.request());
        }
    }
}

/// An id of one caller's account: the same text of two accounts is two ids.
struct ScopedId(String);

impl ScopedId {
    fn of<S: Store>(call: &Call<S>, id: RequestId<'_>) -> Result<Self, Failure> {
        let account = call.known()?.tenant.id();
        let digest = Sha256::new()
            .chain_update(account.name.as_str())
            .chain_update([0])
            .chain_update(account.uid.as_str())
            .chain_update([0])
            .chain_update(id.as_str())
            .finalize();
        Ok(Self(format!("{digest:x}")))
    }

    fn request(&self, fingerprint: Fingerprint) -> Request<'_> {
        Request {
            id: RequestId::parse(&self.0).expect("64 digits are an id"),
            fingerprint,
            item: 0,
        }
    }
}

/// An answer as it is given again.
fn again(mut answer: impl Answer) -> Vec<u8> {
    answer.again();
    answer.encode_to_vec()
}

impl Control {
    /// Remembers what the processes before have left receipts of.
    pub(super) fn new(accounts: &Arc<Accounts>, clock: &Clock) -> Self {
        let mut window = Window::new(ReplayLimits::default().window, MAX_CHANGES);
        let (now, now_unix_ms) = (clock.now(), clock::unix_millis());
        for receipt in accounts.take_receipts() {
            restore(&mut window, now, now_unix_ms, receipt);
        }
        Self {
            accounts: Arc::clone(accounts),
            window: Arc::new(Mutex::new(window)),
        }
    }

    /// Learns of changes whose caller was told of a failure, and which are on the disk all
    /// the same: a repeat is to get the answer that the first one should have had.
    async fn settle(&self, now: Time) -> Result<(), Failure> {
        if self.accounts.is_doubtful() {
            let accounts = Arc::clone(&self.accounts);
            let settled = tokio::task::spawn_blocking(move || accounts.settle()).await;
            let settled = settled.map_err(|_| Failure::new(Reason::Internal, "not read"))?;
            settled.map_err(|error| database_failure(&error))?;
        }
        // Under the lock: nobody is to look between the two.
        let mut window = self.window.lock();
        for receipt in self.accounts.take_receipts() {
            restore(&mut window, now, clock::unix_millis(), receipt);
        }
        Ok(())
    }

    pub(super) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Makes a change, unless the same one was made before. It runs to its end
    /// even if the caller goes away meanwhile.
    pub(super) async fn change<S: Store, T: Answer>(
        &self,
        core: &Arc<Core<S>>,
        call: &Call<S>,
        asked: Asked<'_>,
        work: Work<T, impl FnOnce(&Accounts, Effect<'_>) -> Result<T, Failure> + Send + 'static>,
    ) -> Result<T, Failure> {
        if !asked.id.is_empty() && asked.mode == Mode::Apply {
            self.settle(call.store_call(false).now).await?;
        }
        let claim = match self.known(call, &asked)? {
            Known::Answer(answer) => return Ok(answer),
            Known::Nothing(claim) => claim,
        };
        call.begin_mutation()?;
        let (accounts, core) = (Arc::clone(&self.accounts), Arc::clone(core));
        let mode = asked.mode;
        let Work { make, kept } = work;
        let work = move || {
            let receipt = claim
                .as_ref()
                .map(|claim| move |made: Made<'_>| claim.receipt(kept(made)));
            let effect = Effect {
                mode,
                receipt: receipt.as_ref().map(|it| it as _),
            };
            let answer = make(&accounts, effect)?;
            if let Some(claim) = claim {
                claim.record(core.clock.now(), &answer);
            }
            Ok(answer)
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|_| Err(Failure::new(Reason::Internal, "the change failed")))
    }

    /// What is known of a change; of one that takes effect, a claim on it.
    fn known<S: Store, T: Answer>(
        &self,
        call: &Call<S>,
        asked: &Asked<'_>,
    ) -> Result<Known<T>, Failure> {
        if asked.id.is_empty() {
            return check_attempt(call, asked.repeat).map(|()| Known::Nothing(None));
        }
        let id = ScopedId::of(call, request_id::parse(asked.id)?)?;
        let fingerprint = request_id::fingerprint(call, &asked.body);
        let now = call.store_call(false).now;
        let request = id.request(fingerprint);
        let failed = |error: OnceError| request_id::failure(call, &error);
        if asked.mode == Mode::DryRun {
            let known = self.window.lock().look(now, request).map_err(failed)?;
            let Some(bytes) = known else {
                return Ok(Known::Nothing(None));
            };
            let mut answer = decode::<T>(&bytes)?;
            answer.validated_only();
            return Ok(Known::Answer(answer));
        }
        let claimed = self.window.lock().claim(now, request).map_err(failed)?;
        Ok(match claimed {
            Claimed::Known(bytes) => Known::Answer(decode(&bytes)?),
            Claimed::New => Known::Nothing(Some(Claim {
                window: Arc::clone(&self.window),
                id,
                fingerprint,
                is_open: true,
            })),
        })
    }
}

/// What is known of a change.
enum Known<T> {
    /// It was made, and this was the answer.
    Answer(T),
    /// It is to be made, under a claim if it has an id and takes effect.
    Nothing(Option<Claim>),
}

/// Puts a receipt into the window, for as long as it would have been there.
fn restore(window: &mut Window<Arc<[u8]>>, now: Time, now_unix_ms: u64, receipt: Receipt) {
    let Ok(id) = RequestId::parse(&receipt.id) else {
        return;
    };
    // A clock that was set back gives it no more time than it had.
    let now_unix_ms = now_unix_ms.max(receipt.made_at.get());
    let left_ms = receipt.until.get().saturating_sub(now_unix_ms);
    let remembered = Remembered {
        request: Request {
            id,
            fingerprint: Fingerprint(receipt.fingerprint),
            item: 0,
        },
        until: Time::from_millis(now.as_millis().saturating_add(left_ms)),
        outcome: receipt.answer.into(),
    };
    window.restore(now, remembered);
}

fn decode<T: Answer>(bytes: &[u8]) -> Result<T, Failure> {
    // The fingerprint holds the method, so it is of this type.
    T::decode(&mut &*bytes)
        .map_err(|_| Failure::new(Reason::Internal, "the answer is of another change"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_accounts::AccountSettings;
    use larder_model::AccountName;

    use super::*;

    /// The answer of a change that seemed to fail comes as that of an earlier process
    /// does: from the accounts, when they have read the disk.
    #[tokio::test]
    async fn an_answer_that_is_found_on_the_disk_later_is_given_to_the_next_repeat() {
        let folder = tempfile::tempdir().expect("a directory");
        let open = || {
            let entropy = Box::new(|bytes: &mut [u8]| bytes.fill(7));
            let accounts = Accounts::open(folder.path(), UnixMillis::new(0), entropy);
            Arc::new(accounts.expect("accounts"))
        };
        let now_ms = clock::unix_millis();
        let receipt = |_: Made<'_>| Receipt {
            id: "id".to_owned(),
            fingerprint: [7; 16],
            made_at: UnixMillis::new(now_ms),
            until: UnixMillis::new(now_ms + 600_000),
            answer: b"answer".to_vec(),
        };
        let effect = Effect {
            mode: Mode::Apply,
            receipt: Some(&receipt),
        };
        let name = AccountName::parse("shop").expect("a name");
        let made = open().create_account(name, AccountSettings::default(), effect);
        made.expect("there is room");

        let control = Control {
            accounts: open(),
            window: Arc::new(Mutex::new(Window::new(Duration::from_secs(600), 8))),
        };
        let now = Time::from_millis(5);
        let request = Request {
            id: RequestId::parse("id").expect("an id"),
            fingerprint: Fingerprint([7; 16]),
            item: 0,
        };
        let known = || {
            control
                .window
                .lock()
                .look(now, request)
                .expect("one request")
        };
        assert_eq!(known(), None);
        control.settle(now).await.expect("the disk is good");
        assert_eq!(known().as_deref(), Some(&b"answer"[..]));
        // What is known stays.
        control.settle(now).await.expect("the disk is good");
        assert_eq!(known().as_deref(), Some(&b"answer"[..]));
    }
}
