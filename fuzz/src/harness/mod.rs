//! A server without sockets, and a client that checks what it is sent.
//!
//! | file | what |
//! |---|---|
//! | `service.rs` | a service with a method for each way in which a call can go |
//! | `session.rs` | a connection, driven as `serve::Driver` drives it; what must hold after each step |
//! | `peer.rs` | the client's end: what a server may send, and what it sent |
//! | `ledger.rs` | flow control and settings, as the client counts them |
//! | `write.rs` | the frames that a client sends |

mod ledger;
mod peer;
mod service;
mod session;
mod write;

pub use ledger::{ClientSettings, Ledger};
pub use peer::{Peer, Response};
pub use service::{Gate, Methods, Mirror, expected_stream, prefixed};
pub use session::{Session, small_limits};
pub use write::{Lane, data_frame, frame, headers, headers_frame};
