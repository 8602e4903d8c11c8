//! The durable form: one redb file, written in whole transactions, and read
//! only when it is opened.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use larder_model::AccountName;
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::account::DEFAULT_ACCOUNT;
use crate::directory;
use crate::error::{DatabaseError, OpenError};
use crate::limits::{DATABASE_CACHE_BYTES, MAX_RECEIPT_BYTES, MAX_RECORD_BYTES};
use crate::receipt::{self, Receipt, Receipts};
use crate::record;
use crate::state::{Change, State};

/// The file in the data directory.
const FILE: &str = "accounts.redb";

/// The format that this version writes. A change of a record's form that an
/// older version would misread raises it.
const FORMAT: u64 = 1;

const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts");
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
/// By request id. A version that does not know them leaves them alone.
const RECEIPTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("receipts");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Row of [`META`]: [`FORMAT`] in decimal.
const META_FORMAT: &str = "format";
/// Row of [`META`]: the key of the administrator's token of the directory.
const META_BOOTSTRAP: &str = "bootstrap_token";

/// The open database file.
#[derive(Debug)]
pub(crate) struct Database {
    /// `None` after a failed commit, because redb then refuses all that
    /// follows until it is opened again.
    redb: Option<redb::Database>,
    path: PathBuf,
    receipts: Receipts,
    /// The id of the receipt of a failed commit: it may have reached the disk.
    doubtful: Option<String>,
}

/// What was in the file.
pub(crate) struct Found {
    pub(crate) state: State,
    /// Those that go first at the front.
    pub(crate) receipts: Vec<Receipt>,
}

impl Database {
    /// Opens the database of `dir`, and reads all of it. `first` is what a new
    /// one holds.
    pub(crate) fn open(dir: &Path, first: &[Change]) -> Result<(Self, Found), OpenError> {
        let path = dir.join(FILE);
        let found = path
            .try_exists()
            .map_err(directory::io_error("read", &path))?;
        if !found {
            create(&path, first)?;
        }
        let (redb, found) = open_and_load(&path)?;
        let database = Self {
            redb: Some(redb),
            path,
            receipts: Receipts::of(&found.receipts),
            doubtful: None,
        };
        Ok((database, found))
    }

    /// Makes the changes durable, all or none.
    pub(crate) fn commit(
        &mut self,
        changes: &mut Vec<Change>,
        receipt: Option<Receipt>,
    ) -> Result<(), DatabaseError> {
        let Some(redb) = &self.redb else {
            return Err(DatabaseError::new("an earlier write failed"));
        };
        let mut id = None;
        if let Some(receipt) = receipt.filter(|it| it.answer.len() <= MAX_RECEIPT_BYTES) {
            id = Some(receipt.id.clone());
            changes.extend(self.receipts.add(receipt));
        }
        let written = write(redb, changes);
        if written.is_err() {
            self.doubt(id);
        }
        written
    }

    /// Trusts nothing but what is on the disk.
    pub(crate) fn doubt(&mut self, receipt: Option<String>) {
        self.redb = None;
        self.doubtful = receipt;
    }

    /// True after a failed commit: what is on disk is then not known.
    pub(crate) const fn needs_reload(&self) -> bool {
        self.redb.is_none()
    }

    /// Opens the file again after a failed commit, and reads what is there. Of the
    /// receipts only that of this commit is told, if it is there: the others are known.
    pub(crate) fn reload(&mut self) -> Result<Found, DatabaseError> {
        let (redb, mut found) = open_and_load(&self.path).map_err(DatabaseError::new)?;
        self.redb = Some(redb);
        self.receipts = Receipts::of(&found.receipts);
        let doubtful = self.doubtful.take();
        found
            .receipts
            .retain(|it| Some(&it.id) == doubtful.as_ref());
        Ok(found)
    }
}

/// Makes a database aside and moves it to its place when it is whole, so that
/// an empty or half-made file in that place is always damage.
fn create(path: &Path, first: &[Change]) -> Result<(), OpenError> {
    let new = directory::new_path(path);
    drop(directory::create_file(&new)?);
    let redb = builder()
        .create(&new)
        .map_err(|error| open_error(&new, error))?;
    let transaction = || -> Result<(), redb::Error> {
        let transaction = redb.begin_write()?;
        transaction.open_table(ACCOUNTS)?;
        transaction.open_table(TOKENS)?;
        transaction
            .open_table(META)?
            .insert(META_FORMAT, FORMAT.to_string().as_bytes())?;
        transaction.commit()?;
        Ok(())
    };
    transaction().map_err(DatabaseError::new)?;
    write(&redb, first)?;
    drop(redb);
    directory::replace(&new, path)
}

/// Every page's checksum is checked first: all of the file is read anyway, and
/// damage must not pass for data.
fn open_and_load(path: &Path) -> Result<(redb::Database, Found), OpenError> {
    let damaged = |reason: String| OpenError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let length = std::fs::metadata(path)
        .map_err(directory::io_error("read", path))?
        .len();
    if length == 0 {
        return Err(damaged("it is empty".to_owned()));
    }
    // redb asserts some of what it reads; a damaged file must not end the
    // process without saying which file it was.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let redb = builder()
            .open(path)
            .map_err(|error| open_error(path, error))?;
        let found = load(&redb).map_err(|error| error.at(path))?;
        Ok((redb, found))
    }));
    opened.unwrap_or_else(|_| Err(damaged("its structure is broken".to_owned())))
}

fn builder() -> redb::Builder {
    let mut builder = redb::Database::builder();
    builder
        .set_cache_size(DATABASE_CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

fn open_error(path: &Path, error: redb::DatabaseError) -> OpenError {
    use redb::{DatabaseError as Open, StorageError as Storage};
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        Open::DatabaseAlreadyOpen | Open::LockProtocolMismatch => OpenError::InUse {
            path: path.parent().unwrap_or(path).to_owned(),
        },
        Open::Storage(Storage::Io(source))
            if !matches!(source.kind(), InvalidData | UnexpectedEof) =>
        {
            directory::io_error("open", path)(source)
        }
        other => OpenError::Damaged {
            path: path.to_owned(),
            reason: other.to_string(),
        },
    }
}

/// Why a file that redb could open is of no use.
enum LoadError {
    /// It was written by a later version, in this format.
    Newer(u64),
    /// It breaks a rule.
    Damaged(String),
}

impl From<String> for LoadError {
    fn from(reason: String) -> Self {
        Self::Damaged(reason)
    }
}

impl LoadError {
    fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Newer(found) => OpenError::NewerFormat {
                path,
                found,
                known: FORMAT,
            },
            Self::Damaged(reason) => OpenError::Damaged { path, reason },
        }
    }
}

fn load(redb: &redb::Database) -> Result<Found, LoadError> {
    let transaction = redb.begin_read().map_err(|error| error.to_string())?;
    let mut state = State::default();
    let mut format = None;
    let mut bootstrap = None;
    for_each_row(&transaction, META, |key, value| {
        let text = str::from_utf8(value).map_err(|error| error.to_string())?;
        match key {
            META_FORMAT => format = text.parse().ok(),
            META_BOOTSTRAP => bootstrap = Some(record::decode_token_key(text)?),
            // A later version of the same format may add rows that this one
            // can do without.
            _ => {}
        }
        Ok(())
    })?;
    match format {
        Some(1..=FORMAT) => {}
        Some(later) if later > FORMAT => return Err(LoadError::Newer(later)),
        _ => return Err("its format is missing".to_owned().into()),
    }
    if let Some(name) = bootstrap {
        state.load(Change::SetBootstrap(name))?;
    }
    for_each_row(&transaction, ACCOUNTS, |key, value| {
        let account = record::decode_account(key, value)?;
        state.load(Change::PutAccount(account.into()))
    })?;
    for_each_row(&transaction, TOKENS, |key, value| {
        state.load(Change::AddToken(record::decode_token(key, value)?))
    })?;
    if !state.has_default_account() {
        return Err(format!("the account {DEFAULT_ACCOUNT} is missing").into());
    }
    let mut receipts = Vec::new();
    for_each_row(&transaction, RECEIPTS, |key, value| {
        receipts.push(receipt::decode(key, value)?);
        Ok(())
    })?;
    receipts.sort_by_key(|it| it.until);
    Ok(Found { state, receipts })
}

fn for_each_row(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<'_, &str, &[u8]>,
    mut visit: impl FnMut(&str, &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let table = match transaction.open_table(table) {
        // It came later than this database.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        opened => opened.map_err(|error| error.to_string())?,
    };
    for row in table.iter().map_err(|error| error.to_string())? {
        let (key, value) = row.map_err(|error| error.to_string())?;
        let bytes = value.value().len();
        if bytes > MAX_RECORD_BYTES {
            return Err(format!("a record has {bytes} bytes"));
        }
        visit(key.value(), value.value())?;
    }
    Ok(())
}

/// One transaction; on disk when this returns.
fn write(redb: &redb::Database, changes: &[Change]) -> Result<(), DatabaseError> {
    let mut transaction = redb.begin_write().map_err(DatabaseError::new)?;
    transaction
        .set_durability(redb::Durability::Immediate)
        .map_err(DatabaseError::new)?;
    for change in changes {
        write_change(&transaction, change)?;
    }
    transaction.commit().map_err(DatabaseError::new)
}

fn write_change(
    transaction: &redb::WriteTransaction,
    change: &Change,
) -> Result<(), DatabaseError> {
    let put = |table: TableDefinition<'_, &str, &[u8]>, key: &str, value: &[u8]| {
        let mut table = transaction.open_table(table)?;
        table.insert(key, value)?;
        Ok::<_, redb::Error>(())
    };
    let outcome = match change {
        Change::PutAccount(account) => {
            let value = record::encode_account(account).map_err(DatabaseError::new)?;
            put(ACCOUNTS, account.name.as_str(), &value)
        }
        Change::AddToken(stored) => {
            let value = record::encode_token(stored).map_err(DatabaseError::new)?;
            put(TOKENS, &record::token_key(&stored.token.name), &value)
        }
        Change::SetBootstrap(name) => put(META, META_BOOTSTRAP, record::token_key(name).as_bytes()),
        Change::DropToken(name) => drop_row(transaction, TOKENS, &record::token_key(name)),
        Change::DropAccount(name) => drop_account(transaction, name),
        Change::PutReceipt(it) => put(RECEIPTS, &it.id, &receipt::encode(it)),
        Change::DropReceipt(id) => drop_row(transaction, RECEIPTS, id),
    };
    outcome.map_err(DatabaseError::new)
}

fn drop_row(
    transaction: &redb::WriteTransaction,
    table: TableDefinition<'_, &str, &[u8]>,
    key: &str,
) -> Result<(), redb::Error> {
    transaction.open_table(table)?.remove(key)?;
    Ok(())
}

fn drop_account(
    transaction: &redb::WriteTransaction,
    name: &AccountName,
) -> Result<(), redb::Error> {
    drop_row(transaction, ACCOUNTS, name.as_str())?;
    // '0' follows '/': the range holds the keys that begin with "NAME/".
    let (from, to) = (format!("{name}/"), format!("{name}0"));
    transaction
        .open_table(TOKENS)?
        .retain_in(from.as_str()..to.as_str(), |_, _| false)?;
    Ok(())
}
