//! HTTP/2 for RPC: a server transport that answers a call inside the read loop of
//! its connection, and a [client's connection](client) that many callers share.
//!
//! A gRPC call is to cost the server no more than a pipelined command of a simple
//! text protocol does. So a call whose handler is ready at once never becomes a
//! task: its frames are parsed where they were read, its handler borrows the head
//! and the message from the read buffer, and its answer is encoded where it will be
//! sent from. All the answers to one read leave in one write. Nothing is shared
//! between cores but what the handlers share.
//!
//! ```text
//! serve       sockets, TLS, threads, a driver for each connection   tokio, rustls
//!   rpc       the typed lane: gRPC, unary calls and server streams  ─┐
//!   general   the general lane: a tower service of http requests     │ no input,
//!   connection  RFC 9113: streams, flow control, limits              │ no output,
//!     message   section 8: what a request may be                     │ no clock
//!     frame     sections 4 and 6                                     │
//!     hpack     RFC 7541                                            ─┘
//! ```
//!
//! [`client`] stands on `frame`, `hpack` and the windows of `connection`; what else it
//! has is described there.
//!
//! Read it with the RFCs open: each file names its section in its first line, and
//! each module has a table of its files.
//!
//! # Lanes
//!
//! [`rpc::Handler::route`] says of a head whether the typed lane takes the call:
//! gRPC with an uncompressed request, of a method that the handler knows. All else
//! (compressed requests, client and bidirectional streams, gRPC-Web, Connect, plain
//! HTTP) goes to a `tower_service::Service<http::Request<Body>>`, the
//! [general lane](general::GeneralLane). HTTP/1.1 is handed over with its bytes:
//! [`serve::Serve::http1`].
//!
//! # Invariants
//!
//! 1. Nothing that a peer sends makes this panic, wait without a bound, or hold
//!    memory without a bound. Each bound is a field of [`limits::Limits`], or of
//!    [`serve::Config`] if all connections share it, and whatever ends by it is
//!    counted in [`stats::Stats`] by its name.
//! 2. What costs a peer little and the server more is counted
//!    ([`abuse::Abuse`]); excess ends the connection. Traffic that gets answers earns
//!    what it needs: ordinary use trips none of it.
//! 3. A connection that is not read from is not read. A stream that is not read is
//!    not produced for.
//! 4. Below `serve` there is no clock: the time is an argument.
//! 5. A panic of a handler ends its call.
//! 6. A call of the typed lane is answered by its handler, or refused in its words:
//!    [`rpc::Refusal`] says why.
//! 7. Connections share nothing that a call touches which is answered at once:
//!    what they share ([`shared::Shared`]) is told when something is kept or goes
//!    wrong, and at the end of a turn what the connection has done.

pub mod abuse;
pub mod client;
pub mod connection;
pub mod error_codes;
pub mod frame;
pub mod general;
pub mod gzip;
pub mod hpack;
pub mod limits;
pub mod message;
pub mod registry;
pub mod rpc;
pub mod serve;
pub mod shared;
pub mod stats;

#[cfg(test)]
mod testing;
