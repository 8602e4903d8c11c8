//! A server and a client without sockets, and peers that check what they are sent.
//!
//! | file | what |
//! |---|---|
//! | `service.rs` | a service with a method for each way in which a call can go |
//! | `session.rs` | a connection, driven as `serve::Driver` drives it; what must hold after each step |
//! | `peer.rs` | the client's end: what a server may send, and what it sent |
//! | `ledger.rs` | flow control and settings, as the client counts them |
//! | `write.rs` | the frames that a client sends |
//!
//! | file | what, for a connection in the client's role |
//! |---|---|
//! | `pipe.rs` | a byte stream in a target's hands |
//! | `near.rs` | the connection, its driver and its clock; what must hold after each step |
//! | `caller.rs` | its callers, who run when they are woken and at no other time |
//! | `far.rs` | the server's end: what a client may send, and what it sent |

mod caller;
mod far;
mod ledger;
mod near;
mod peer;
mod pipe;
mod service;
mod session;
mod write;

pub use caller::{Caller, Ended};
pub use far::{Asked, Far};
pub use ledger::{ClientSettings, Ledger};
pub use near::{MAX_REQUEST_BYTES, Near, on_a_stopped_clock};
pub use peer::{Peer, Response};
pub use pipe::Pipe;
pub use service::{Gate, Methods, Mirror, expected_stream, prefixed};
pub use session::{Session, small_limits};
pub use write::{Lane, data_frame, frame, headers, headers_frame};
