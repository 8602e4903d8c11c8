//! The control plane's entry: opening, committing, verifying.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use larder_model::Mode;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::account::{Account, AccountSettings, default_account};
use crate::bootstrap::{self, AdminToken, AdminTokenState};
use crate::database::Database;
use crate::directory::{self, DirectoryLock};
use crate::error::{DatabaseError, OpenError, VerifyError};
use crate::limits::MAX_SECRET_BYTES;
use crate::random;
use crate::receipt::Receipt;
use crate::secret::SecretDigest;
use crate::state::{Change, State};
use crate::time::UnixMillis;
use crate::token::Token;

/// Fills a buffer with random bytes, fit for secrets.
pub type Entropy = Box<dyn Fn(&mut [u8]) + Send + Sync>;

/// Accounts and tokens of one data directory.
///
/// All of it is in memory, and every read is answered from there; a mutation
/// is first made durable (one sync of the disk, so call it where blocking is
/// allowed) and then becomes visible, to every reader at once. Mutations queue
/// for one another; reads wait only for the instant in which a finished
/// mutation is put into memory, never for the disk.
///
/// Held in memory: about 500 bytes for each account and each token, and the texts
/// in it.
pub struct Accounts {
    state: RwLock<State>,
    /// Mutations queue here.
    database: Mutex<Database>,
    /// Those of the processes before, and of commits that failed and are on the disk
    /// all the same, until somebody takes them.
    receipts: Mutex<Vec<Receipt>>,
    generation: AtomicU64,
    failed_writes: AtomicU64,
    is_failing: AtomicBool,
    /// What is in memory may not be what is on disk.
    is_doubtful: AtomicBool,
    pub(crate) entropy: Entropy,
    admin_token: AdminToken,
    /// Dropped last: the directory is free once the database is closed.
    _lock: DirectoryLock,
}

/// What a good secret stands for.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The token's account, with its limits.
    pub account: Arc<Account>,
    /// The token, with its rights.
    pub token: Arc<Token>,
    /// The [`Accounts::generation`] that this is true of.
    pub generation: u64,
}

/// How writing to the database goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Writes {
    /// Changes that could not be made durable, in this process.
    pub failed: u64,
    /// The last change could not: the disk may be full. The next one tries again.
    pub is_failing: bool,
}

impl Accounts {
    /// Opens a data directory, and makes it (mode 0700), its database (0600)
    /// and the account [`DEFAULT_ACCOUNT`](crate::DEFAULT_ACCOUNT) if they are not there. Sees to the
    /// administrator's token; see [`Accounts::admin_token`]. `now` is only
    /// asked which tokens have expired.
    ///
    /// Reads the whole database once and checks it.
    ///
    /// # Errors
    /// [`OpenError`]; nothing but the lock file and the directory itself has
    /// then been made, unless it was the administrator's token that failed.
    pub fn open(dir: &Path, now: UnixMillis, entropy: Entropy) -> Result<Self, OpenError> {
        directory::create(dir)?;
        let lock = directory::lock(dir)?;
        let (database, found) = Database::open(dir, &first_changes(&*entropy))?;
        let mut accounts = Self {
            state: RwLock::new(found.state),
            receipts: Mutex::new(found.receipts),
            database: Mutex::new(database),
            generation: AtomicU64::new(0),
            failed_writes: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            is_doubtful: AtomicBool::new(false),
            entropy,
            admin_token: AdminToken {
                path: bootstrap::path(dir),
                state: AdminTokenState::Kept,
            },
            _lock: lock,
        };
        accounts.admin_token.state = bootstrap::settle(&accounts, dir, now)?;
        Ok(accounts)
    }

    /// Where the administrator's token lies, and what [`open`](Self::open) did
    /// about it.
    pub const fn admin_token(&self) -> &AdminToken {
        &self.admin_token
    }

    /// The account and the rights that a secret stands for.
    ///
    /// One hash of the secret and two look-ups under a read lock; no disk.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&self, secret: &str, now: UnixMillis) -> Result<Verified, VerifyError> {
        if secret.is_empty() || secret.len() > MAX_SECRET_BYTES {
            return Err(VerifyError::Unknown);
        }
        let digest = SecretDigest::of(secret);
        let state = self.state.read();
        let stored = state.token_by_digest(&digest).ok_or(VerifyError::Unknown)?;
        if stored.token.is_expired(now) {
            return Err(VerifyError::Expired);
        }
        let account = state
            .account(stored.token.name.account())
            .ok_or(VerifyError::Unknown)?;
        Ok(Verified {
            account: Arc::clone(account),
            token: Arc::clone(&stored.token),
            generation: self.generation.load(Ordering::Acquire),
        })
    }

    /// Grows with every mutation that took effect. An answer of
    /// [`verify`](Self::verify), or of any read, is still true while the
    /// generation is the one that was read *before* asking, or
    /// [`Verified::generation`]; but for tokens that expire, which is a matter
    /// of time. Begins at any number in each process. One atomic load.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// True after a change that failed and may have reached the disk all the same, until
    /// the next one, or [`settle`](Self::settle), reads what is there. One atomic load.
    pub fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::Acquire)
    }

    /// Reads what is on the disk if that is in doubt; [`take_receipts`](Self::take_receipts)
    /// then has the receipt of the change that is there. Waits for the disk, and for
    /// changes in progress.
    ///
    /// # Errors
    /// The database cannot be read. It stays in doubt.
    pub fn settle(&self) -> Result<(), DatabaseError> {
        self.begin(Mode::Apply).map(drop)
    }

    /// The receipts that the processes before have left, oldest first, and those of
    /// changes that seemed to fail and are there: once, then none. Some may be over.
    pub fn take_receipts(&self) -> Vec<Receipt> {
        std::mem::take(&mut *self.receipts.lock())
    }

    /// How writing to the database goes. Two atomic loads.
    pub fn writes(&self) -> Writes {
        Writes {
            failed: self.failed_writes.load(Ordering::Relaxed),
            is_failing: self.is_failing.load(Ordering::Relaxed),
        }
    }

    /// Notes that a change could not be made durable, or not even tried.
    fn failed(&self) {
        self.is_failing.store(true, Ordering::Relaxed);
        self.failed_writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads the state; no lock but its own may be waited for inside.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(&self.state.read())
    }

    /// Waits for its turn to mutate; the checks of a mutation hold until the
    /// guard is dropped. After a failed commit, reads what is really on disk.
    pub(crate) fn begin(&self, mode: Mode) -> Result<MutexGuard<'_, Database>, DatabaseError> {
        let mut database = self.database.lock();
        if mode == Mode::Apply && database.needs_reload() {
            // That it can be read again does not say that it can be written.
            let found = database.reload().inspect_err(|_| self.failed())?;
            self.receipts.lock().extend(found.receipts);
            let mut state = self.state.write();
            let old = std::mem::replace(&mut *state, found.state);
            self.generation.fetch_add(1, Ordering::Release);
            drop(state);
            self.is_doubtful.store(false, Ordering::Release);
            // Outside the lock: it may be large.
            drop(old);
        }
        Ok(database)
    }

    /// Makes the changes and their receipt durable, then visible.
    pub(crate) fn commit(
        &self,
        mut database: MutexGuard<'_, Database>,
        mut changes: Vec<Change>,
        receipt: Option<Receipt>,
    ) -> Result<(), DatabaseError> {
        let committed = database.commit(&mut changes, receipt);
        committed.inspect_err(|_| {
            self.is_doubtful.store(true, Ordering::Release);
            self.failed();
        })?;
        self.is_failing.store(false, Ordering::Relaxed);
        let mut state = self.state.write();
        for change in changes {
            state.apply(change);
        }
        // Under the lock: whoever reads the new number sees the new state.
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.read();
        f.debug_struct("Accounts")
            .field("accounts", &state.account_count())
            .field("tokens", &state.token_count())
            .field("generation", &self.generation())
            .field("admin_token", &self.admin_token)
            .finish_non_exhaustive()
    }
}

/// What a new database holds: the default account, without limits.
fn first_changes(entropy: &dyn Fn(&mut [u8])) -> Vec<Change> {
    let uid = random::uid(entropy);
    let account = Account::new(default_account(), uid, 1, AccountSettings::default());
    vec![Change::PutAccount(account.into())]
}

#[cfg(test)]
mod tests {
    use larder_model::{AccountName, AccountUid};

    use super::*;
    use crate::account::AccountSettings;

    fn open(dir: &Path) -> Accounts {
        let entropy = Box::new(|bytes: &mut [u8]| bytes.fill(7));
        Accounts::open(dir, UnixMillis::new(1), entropy).expect("the directory is good")
    }

    fn receipt(id: &str) -> Receipt {
        Receipt {
            id: id.to_owned(),
            fingerprint: [7; 16],
            made_at: UnixMillis::new(1),
            until: UnixMillis::new(9),
            answer: id.into(),
        }
    }

    /// Makes an account in a commit that does or does not reach the disk, and that is
    /// reported as failed either way.
    fn fail(accounts: &Accounts, name: &AccountName, id: &str, reaches_disk: bool) {
        let account = Account::new(
            name.clone(),
            AccountUid::new("uid"),
            1,
            AccountSettings::default(),
        );
        let mut changes = vec![Change::PutAccount(account.into())];
        let mut database = accounts.begin(Mode::Apply).expect("it can be read");
        if reaches_disk {
            let reached = database.commit(&mut changes, Some(receipt(id)));
            reached.expect("the disk has room");
        }
        database.doubt(Some(id.to_owned()));
        accounts
            .commit(database, changes, None)
            .expect_err("it is in doubt");
    }

    #[test]
    fn a_change_that_seemed_to_fail_and_reached_the_disk_is_told_with_its_receipt() {
        let dir = tempfile::tempdir().expect("a directory");
        let accounts = open(dir.path());
        let name = AccountName::parse("shop").expect("a name");
        fail(&accounts, &name, "first", false);
        assert!(accounts.is_doubtful());
        accounts.settle().expect("it can be read");
        assert!(!accounts.is_doubtful());
        assert_eq!(accounts.take_receipts(), []);
        assert_eq!(accounts.account(&name), None);

        fail(&accounts, &name, "second", true);
        assert_eq!(accounts.account(&name), None, "nobody knows yet");
        // Any change finds out, also one that comes to nothing.
        let again = accounts.create_account(name.clone(), AccountSettings::default(), Mode::Apply);
        again.expect_err("it is there");
        assert!(accounts.account(&name).is_some() && !accounts.is_doubtful());
        assert_eq!(accounts.take_receipts(), [receipt("second")]);

        // Those before it are known already.
        let other = AccountName::parse("other").expect("a name");
        fail(&accounts, &other, "third", true);
        accounts.settle().expect("it can be read");
        assert_eq!(accounts.take_receipts(), [receipt("third")]);
        drop(accounts);
        let ids: Vec<_> = open(dir.path()).take_receipts();
        assert_eq!(ids, [receipt("second"), receipt("third")]);
    }
}
