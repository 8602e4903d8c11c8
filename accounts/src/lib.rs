//! The control plane of larder: accounts, their limits, and the tokens that
//! open them.
//!
//! [`Accounts`] keeps everything in memory and makes each change durable in an
//! embedded database before it becomes visible. Its calls are synchronous;
//! those that change something wait for the disk. Time and randomness are
//! arguments, so a test can repeat a run.
//!
//! A secret is shown once, when its token is made. What is kept is a digest.

mod account;
mod accounts;
mod bootstrap;
mod database;
mod directory;
mod error;
pub mod limits;
mod operations;
mod page;
mod random;
mod receipt;
mod record;
mod secret;
mod state;
mod time;
mod token;

pub use account::{
    Account, AccountSettings, AccountUpdate, DEFAULT_ACCOUNT, parse_account_resource,
};
pub use accounts::{Accounts, Entropy, Verified, Writes};
pub use bootstrap::{AdminToken, AdminTokenState};
pub use error::{AccountError, DatabaseError, FieldError, OpenError, TokenError, VerifyError};
pub use page::{ListPage, PageRequest};
pub use receipt::{Effect, Made, MakeReceipt, Receipt};
pub use secret::{SECRET_PREFIX, Secret};
pub use time::UnixMillis;
pub use token::{Action, Actions, CreatedToken, NewToken, Token, TokenName, TokenRights};
