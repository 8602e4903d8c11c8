//! The control plane, driven through its public calls on a real directory.
//! Time and randomness are the test's own.

mod account_calls;
mod admin_token;
mod dry_run;
mod durability;
mod fixture;
mod limits;
mod model;
mod opening;
mod paging;
mod receipts;
mod secrets;
mod token_calls;
