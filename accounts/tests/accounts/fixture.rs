//! A data directory with a repeatable source of randomness.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_accounts::{
    Account, AccountSettings, Accounts, CreatedToken, Entropy, NewToken, OpenError, PageRequest,
    Token, TokenName, UnixMillis,
};
use larder_model::{AccountName, Mode};
use tempfile::TempDir;

/// When the tests play.
pub(crate) const NOW: UnixMillis = UnixMillis::new(1_800_000_000_000);

/// Names the directory that a child process works on.
pub(crate) const CHILD_DIR: &str = "LARDER_ACCOUNTS_TEST_DIR";

/// splitmix64: every bit of the seed reaches every bit of the output.
#[derive(Debug, Clone)]
pub(crate) struct Random(Arc<AtomicU64>);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    pub(crate) fn next(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("it is below a usize")
    }

    /// True once in `times`.
    pub(crate) fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Changes with every byte drawn.
    pub(crate) fn position(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn entropy(&self) -> Entropy {
        let random = self.clone();
        Box::new(move |bytes| {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
            }
        })
    }
}

pub(crate) struct Fixture {
    dir: TempDir,
    pub(crate) random: Random,
}

impl Fixture {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dir: TempDir::new().expect("a temporary directory"),
            random: Random::seeded(seed),
        }
    }

    /// The data directory; made by the first open.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir().join(file)
    }

    pub(crate) fn database_bytes(&self) -> Vec<u8> {
        std::fs::read(self.path("accounts.redb")).expect("the database is there")
    }

    pub(crate) fn open(&self) -> Accounts {
        self.try_open().expect("the directory is good")
    }

    pub(crate) fn try_open(&self) -> Result<Accounts, OpenError> {
        self.open_at(&self.dir())
    }

    pub(crate) fn open_at(&self, dir: &Path) -> Result<Accounts, OpenError> {
        Accounts::open(dir, NOW, self.random.entropy())
    }

    /// What a crash would leave: the files as they are now, elsewhere.
    pub(crate) fn crash_image(&self) -> PathBuf {
        let image = self.dir.path().join("image");
        let _ = std::fs::remove_dir_all(&image);
        std::fs::create_dir(&image).expect("a directory");
        for file in ["accounts.redb", "admin-token"] {
            std::fs::copy(self.path(file), image.join(file)).expect("the file is there");
        }
        image
    }

    pub(crate) fn admin_secret(&self) -> String {
        let text = std::fs::read_to_string(self.path("admin-token")).expect("it is there");
        text.trim_end().to_owned()
    }

    /// Runs the ignored test `name` of this binary, in another process, on the
    /// data directory; `shell` goes before it.
    pub(crate) fn child(&self, name: &str, shell: &str) -> (Child, BufReader<ChildStdout>) {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().expect("this binary has a path"))
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(CHILD_DIR, self.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the process starts");
        let output = child.stdout.take().expect("it is piped");
        (child, BufReader::new(output))
    }
}

/// The directory of a child process; `None` where the test is run by hand.
pub(crate) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

pub(crate) fn account_name(text: &str) -> AccountName {
    AccountName::parse(text).expect("the test's names are good")
}

pub(crate) fn create(accounts: &Accounts, name: &str) -> Arc<Account> {
    accounts
        .create_account(account_name(name), AccountSettings::default(), Mode::Apply)
        .expect("there is room")
}

pub(crate) fn token(accounts: &Accounts, account: &str, new: NewToken) -> CreatedToken {
    accounts
        .create_token(&account_name(account), new, NOW, Mode::Apply)
        .expect("there is room")
}

pub(crate) fn token_name(resource: &str) -> TokenName {
    TokenName::parse("name", resource).expect("the test's names are good")
}

pub(crate) fn all_accounts(accounts: &Accounts) -> Vec<Arc<Account>> {
    let page = accounts.list_accounts(PageRequest::default());
    page.expect("the request is good").items
}

pub(crate) fn all_tokens(accounts: &Accounts, account: &AccountName) -> Vec<Arc<Token>> {
    let page = accounts.list_tokens(account, PageRequest::default());
    page.expect("the account is there").items
}

/// Everything that the API shows.
pub(crate) fn snapshot(accounts: &Accounts) -> String {
    let mut text = String::new();
    for account in all_accounts(accounts) {
        let tokens = all_tokens(accounts, &account.name);
        text.push_str(&format!("{account:?} {tokens:?}\n"));
    }
    text
}
