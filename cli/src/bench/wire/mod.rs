//! The client that a load goes through: no task, no channel and no lock for a
//! call, so that one core of it loads a server on another.
//!
//! | file | what |
//! |---|---|
//! | `api.rs` | which contract is called, and what is the same for all calls |
//! | `message.rs` | requests and answers of the contracts, as protobuf |
//! | `grpc/` | HTTP/2 and gRPC, without a socket |
//! | `redis.rs` | Redis' protocol, without a socket |
//! | `socket.rs` | TCP, Unix sockets and TLS, never waiting |
//!
//! A [`Session`] is one connection: bytes go in, ended calls and bytes come out.

mod api;
mod grpc;
mod message;
mod redis;
mod socket;

use std::sync::Arc;

use super::mix::Operation;
use super::stats::{ErrorKind, Outcome};

pub(super) use self::api::{Api, Calls, Scheme, Tokens, write_decimal};
use self::grpc::Grpc;
#[cfg(test)]
pub(super) use self::message::{field, write_bytes};
use self::redis::Redis;
pub(super) use self::socket::{Address, Socket};

/// A call to make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    pub(super) key: &'a [u8],
    /// The number of the key, which decides on the token if there are many.
    pub(super) index: u64,
}

/// How the call of a slot has ended.
pub(super) struct Ended {
    pub(super) slot: usize,
    pub(super) result: Result<Outcome, ErrorKind>,
}

/// The connection is of no more use; every call under way fails with this.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) ErrorKind);

impl Broken {
    /// `reason` says what happened, in capitals.
    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self(("UNAVAILABLE", Some(reason.into())))
    }

    /// The peer does not keep to the protocol.
    fn protocol(reason: impl Into<String>) -> Self {
        Self(("INTERNAL", Some(reason.into())))
    }
}

/// One connection, without its socket. Calls have slots, counted from 0, one
/// call in each at a time.
pub(super) enum Session {
    Grpc(Box<Grpc>),
    Redis(Redis),
}

impl Session {
    /// A connection with `slots` slots. `seed` decides by how much deadlines
    /// differ from call to call.
    pub(super) fn new(calls: &Arc<Calls>, slots: usize, seed: u64) -> Self {
        match calls.api {
            Api::V1 | Api::Rpc => Self::Grpc(Box::new(Grpc::new(Arc::clone(calls), slots, seed))),
            Api::Redis => Self::Redis(Redis::new(Arc::clone(calls))),
        }
    }

    /// Takes in what the peer has sent. Returns how much of it was used: the
    /// rest is to be given again, with more.
    pub(super) fn receive(
        &mut self,
        input: &[u8],
        ended: &mut Vec<Ended>,
    ) -> Result<usize, Broken> {
        match self {
            Self::Grpc(grpc) => grpc.receive(input, ended),
            Self::Redis(redis) => redis.receive(input, ended),
        }
    }

    /// True once the peer has said what it allows.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Grpc(grpc) => grpc.is_ready(),
            Self::Redis(_) => true,
        }
    }

    /// True if the peer allows one more call now.
    pub(super) fn may_begin(&self) -> bool {
        match self {
            Self::Grpc(grpc) => grpc.may_begin(),
            Self::Redis(_) => true,
        }
    }

    /// Makes a call in a free slot; [`may_begin`](Self::may_begin) was true.
    pub(super) fn begin(&mut self, slot: usize, request: Request<'_>) {
        match self {
            Self::Grpc(grpc) => grpc.begin(slot, request),
            Self::Redis(redis) => redis.begin(slot, request),
        }
    }

    /// Gives the call of a slot up. An error if that costs the connection.
    pub(super) fn cancel(&mut self, slot: usize) -> Result<(), Broken> {
        match self {
            Self::Grpc(grpc) => {
                grpc.cancel(slot);
                Ok(())
            }
            Self::Redis(_) => Err(Broken::unavailable("CONNECTION_GIVEN_UP")),
        }
    }

    /// True if the peer takes no more calls and has answered all there were.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Grpc(grpc) => grpc.is_over(),
            Self::Redis(_) => false,
        }
    }

    /// What the end of the connection means for calls under way.
    pub(super) fn closed(&self) -> Broken {
        match self {
            Self::Grpc(grpc) => grpc.closed(),
            Self::Redis(_) => Broken::unavailable("CONNECTION_CLOSED"),
        }
    }

    /// Bytes for the peer.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Grpc(grpc) => grpc.out(),
            Self::Redis(redis) => redis.out(),
        }
    }
}
