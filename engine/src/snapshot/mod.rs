//! Every entry of every account, for a snapshot: walked here, and put back.
//!
//! What a snapshot looks like, where it lies and when it is made is not known
//! here. Both directions go through what every call uses — steps of a walk, and
//! attempts at a write — so that quotas, memory and expiry hold as ever.

mod mark;
mod requests;
mod restore;
mod walk;

pub use mark::Mark;
pub use restore::{OLD_VERSIONS, Restored};
pub use walk::{Owner, Walk};
