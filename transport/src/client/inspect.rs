//! What a connection holds, for the fuzz targets to compare with its limits.

use super::Connection;
use super::calls::{Call, Shape};
use super::receive::PartialBlock;

/// What a connection of the client's role holds at one moment.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Calls that somebody holds.
    pub calls: usize,
    /// Calls in the queue for a stream, with those that were given up.
    pub waiting: usize,
    /// Calls in the queue for a window, with those that are over.
    pub blocked: usize,
    /// Bytes that are to leave.
    pub output_bytes: usize,
    /// Bytes of requests that wait for windows, of all calls.
    pub unsent_bytes: usize,
    /// Bytes of messages that were not read, with their prefixes, of the call that has most.
    pub unread_bytes: usize,
    /// Messages of streams that were not read, of all calls.
    pub unread_of_streams: usize,
    /// Bytes set aside for a message that is not whole, of the call that has most.
    pub assembly_bytes: usize,
    /// Bytes of a header block that goes on.
    pub block_bytes: usize,
    /// Bytes of memory that the decoder holds, with the blocks that are known.
    pub decoder_bytes: usize,
    /// Callers that are said to run soon.
    pub told: usize,
}

impl Connection {
    /// What it holds now.
    #[doc(hidden)]
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        let mut core = self.0.shared.lock();
        let unread = |call: &Call| {
            call.messages
                .iter()
                .map(|message| message.bytes.len() + 5)
                .sum()
        };
        Inspection {
            calls: core.calls.held(),
            waiting: core.waiting.len(),
            blocked: core.blocked.len(),
            output_bytes: core.out.len(),
            unsent_bytes: core.calls.all().map(|(_, call)| call.sending.len()).sum(),
            unread_bytes: core
                .calls
                .all()
                .map(|(_, call)| unread(call))
                .max()
                .unwrap_or(0),
            unread_of_streams: core
                .calls
                .all()
                .filter(|(_, call)| call.shape == Shape::Stream)
                .map(|(_, call)| call.messages.len())
                .sum(),
            assembly_bytes: core
                .calls
                .all()
                .map(|(_, call)| call.assembly.held_bytes())
                .max()
                .unwrap_or(0),
            block_bytes: core.partial.as_ref().map_or(0, PartialBlock::held_bytes),
            decoder_bytes: core.blocks.held_bytes(),
            told: core.told,
        }
    }
}
