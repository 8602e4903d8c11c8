//! The administrator's token of a data directory.
//!
//! Whoever may read the directory may read the database, so a file in it that
//! opens the control plane gives nothing away. What must not happen is that a
//! token lives on which nobody holds, or that one comes back which an
//! administrator took away.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_model::Mode;

use crate::account::default_account;
use crate::accounts::Accounts;
use crate::directory::{self, io_error};
use crate::error::{DatabaseError, OpenError};
use crate::limits::MAX_SECRET_BYTES;
use crate::random;
use crate::secret::Secret;
use crate::state::Change;
use crate::time::UnixMillis;
use crate::token::{Action, Actions, StoredToken, Token, TokenName, TokenRights};

/// The file in the data directory.
const FILE: &str = "admin-token";

/// The administrator's token of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// The file that holds its secret and a line feed, mode 0600.
    pub path: PathBuf,
    /// What opening the directory did about it.
    pub state: AdminTokenState,
}

/// What [`Accounts::open`] did about the administrator's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminTokenState {
    /// The directory had none yet: one was made and written to the file.
    Created,
    /// The file holds a secret with the right [`Action::Admin`].
    Kept,
    /// The file was gone, or what it holds is no administrator's secret: the
    /// token that was in it was revoked, and a new one was made and written.
    Replaced,
    /// The token was revoked through the API, and another administrator's
    /// token is good: nothing was made or written, so that what was taken away
    /// does not come back. If no other were good, it would have been replaced.
    Retired,
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Sees to it that an administrator can get in.
pub(crate) fn settle(
    accounts: &Accounts,
    dir: &Path,
    now: UnixMillis,
) -> Result<AdminTokenState, OpenError> {
    let path = path(dir);
    if let Some(secret) = read(&path)?
        && let Ok(verified) = accounts.verify(&secret, now)
        && verified.token.rights.allows(Action::Admin)
    {
        return Ok(AdminTokenState::Kept);
    }
    let (old, old_is_good, another_is_good) = accounts.read(|state| {
        let old = state.bootstrap().cloned();
        let old_is_good = old.as_ref().is_some_and(|name| state.token(name).is_some());
        let another_is_good = state.tokens().any(|stored| {
            stored.token.rights.allows(Action::Admin) && !stored.token.is_expired(now)
        });
        (old, old_is_good, another_is_good)
    });
    let state = match &old {
        None => AdminTokenState::Created,
        Some(_) if !old_is_good && another_is_good => return Ok(AdminTokenState::Retired),
        Some(_) => AdminTokenState::Replaced,
    };
    make(accounts, &path, old.filter(|_| old_is_good))?;
    Ok(state)
}

/// Makes a token in the place of `old`. The database goes first: a crash in
/// between leaves a token that nobody holds, which the next start replaces.
fn make(accounts: &Accounts, path: &Path, old: Option<TokenName>) -> Result<(), OpenError> {
    let id = random::token_id(&*accounts.entropy);
    let name = TokenName::in_account(default_account(), &id).map_err(DatabaseError::new)?;
    let secret = Secret::generate(&*accounts.entropy);
    let token = Token {
        name: name.clone(),
        rights: TokenRights {
            actions: Actions::ALL,
            namespaces: Box::default(),
            key_prefixes: Box::default(),
        },
        expire_time: None,
    };
    let stored = StoredToken {
        token: Arc::new(token),
        digest: secret.digest(),
    };
    let mut changes: Vec<Change> = old.into_iter().map(Change::DropToken).collect();
    changes.extend([Change::AddToken(stored), Change::SetBootstrap(name)]);
    let database = accounts.begin(Mode::Apply)?;
    accounts.commit(database, changes, None)?;
    directory::write_file(path, format!("{}\n", secret.expose()).as_bytes())
}

/// The secret in the file; `None` if there is no file, or no text in it.
fn read(path: &Path) -> Result<Option<String>, OpenError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let mut content = Vec::new();
    // Room for a line end of either kind, and for one byte too many.
    let limit = MAX_SECRET_BYTES as u64 + 3;
    (&file)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(io_error("read", path))?;
    restrict(&file).map_err(io_error("restrict", path))?;
    let text = String::from_utf8(content).ok();
    Ok(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Takes the file back from others who may read it, after a careless copy.
fn restrict(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mut permissions = file.metadata()?.permissions();
        if permissions.mode() & 0o077 != 0 {
            permissions.set_mode(0o600);
            file.set_permissions(permissions)?;
        }
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}
