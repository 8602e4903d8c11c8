//! What a connection holds, for the fuzz targets to compare with its limits.

use super::{Application, Connection};

/// What a connection holds at one moment.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Bytes that are to leave.
    pub output_bytes: usize,
    /// Bytes of answers that wait for the client's windows.
    pub unsent_bytes: usize,
    /// The sum of what the streams have of them.
    pub unsent_bytes_of_streams: usize,
    /// Bytes of a header block that goes on.
    pub block_bytes: usize,
    /// Bytes of memory that the decoder holds.
    pub decoder_bytes: usize,
    /// Streams in the queue of those to send from, with those that are gone.
    pub queued: usize,
    /// Streams to ask for more, with those that are gone.
    pub drained: usize,
    /// What may be sent on the connection.
    pub send_window: i64,
    /// What the client may send on the connection, and what was read of it and
    /// the client was not told.
    pub receive_window: (u32, u32),
}

impl<A: Application> Connection<A> {
    /// What it holds now.
    #[doc(hidden)]
    #[must_use]
    pub fn inspect(&mut self) -> Inspection {
        let core = &mut self.core;
        let keys: Vec<_> = core.streams.keys().collect();
        let unsent_bytes_of_streams = keys
            .iter()
            .map(|&key| core.streams.at(key).map_or(0, |stream| stream.unsent()))
            .sum();
        Inspection {
            output_bytes: core.out.len() - core.out_sent,
            unsent_bytes: core.unsent,
            unsent_bytes_of_streams,
            block_bytes: self
                .partial
                .as_ref()
                .map_or(0, |partial| partial.fragments.capacity()),
            decoder_bytes: self.decoder.held_bytes(),
            queued: core.queue.len(),
            drained: core.drained.len(),
            send_window: core.send_window,
            receive_window: core.receive.parts(),
        }
    }
}
