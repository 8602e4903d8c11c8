//! RFC 9113, sections 5.2 and 6.9: flow control.

use super::core::Core;
use super::streams::{Ending, StreamKey};
use crate::abuse::Abuse;
use crate::error_codes::{ErrorCode, Fault};
use crate::frame::{MAX_WINDOW_BYTES, write_window_update};

/// What the client may still send, and what was read of it since it was last
/// told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveWindow {
    /// What the window is when nothing waits to be read.
    size: u32,
    /// What the client may send.
    open: u32,
    /// Read, and not told to the client.
    read: u32,
}

impl ReceiveWindow {
    #[inline]
    pub(crate) const fn new(size: u32) -> Self {
        Self {
            size,
            open: size,
            read: 0,
        }
    }

    /// What the client may send, and what was read and not told.
    #[cfg(feature = "fuzzing")]
    pub(super) const fn parts(self) -> (u32, u32) {
        (self.open, self.read)
    }

    /// Bytes came. False if there were more than the window.
    #[inline]
    #[must_use]
    pub(crate) const fn take(&mut self, bytes: u32) -> bool {
        match self.open.checked_sub(bytes) {
            Some(open) => {
                self.open = open;
                true
            }
            None => false,
        }
    }

    /// Bytes that came and were not read.
    #[inline]
    pub(super) const fn unread(&self) -> u32 {
        self.size
            .saturating_sub(self.open)
            .saturating_sub(self.read)
    }

    /// Bytes were read. Says by how much to open the window: not before half of
    /// it was read, so that the client is told rarely.
    #[inline]
    pub(crate) const fn give(&mut self, bytes: u32) -> Option<u32> {
        self.read = self.read.saturating_add(bytes);
        if self.read == 0 || self.read < self.size / 2 {
            return None;
        }
        let increment = self.read;
        self.open = self.open.saturating_add(increment);
        self.read = 0;
        Some(increment)
    }
}

impl Core {
    /// Bytes of a stream's content were read, or will never be.
    #[inline]
    pub fn consumed(&mut self, key: StreamKey, bytes: u32) {
        self.connection_consumed(bytes);
        if let Some(stream) = self.streams.at(key)
            && stream.remote_open
            && let Some(increment) = stream.receive.give(bytes)
        {
            write_window_update(&mut self.out, key.id, increment);
        }
    }

    /// The same for content of a stream that is gone.
    #[inline]
    pub(super) fn connection_consumed(&mut self, bytes: u32) {
        if let Some(increment) = self.receive.give(bytes) {
            write_window_update(&mut self.out, 0, increment);
        }
    }

    /// Section 6.9, `WINDOW_UPDATE`.
    pub(super) fn on_window_update(&mut self, id: u32, increment: u32) -> Result<(), Fault> {
        self.spend(Abuse::WindowUpdates)?;
        let increment = i64::from(increment);
        let overflow = "a window over 2^31-1";
        if id == 0 {
            self.send_window += increment;
            if self.send_window > i64::from(MAX_WINDOW_BYTES) {
                let code = ErrorCode::FLOW_CONTROL_ERROR;
                return Err(Fault::Connection(code, overflow));
            }
            if self.send_window > 0 {
                self.shut_since = None;
            }
            return Ok(());
        }
        let Some(key) = self.streams.find(id) else {
            return self.stray(id, "WINDOW_UPDATE on an idle stream");
        };
        if let Some(stream) = self.streams.at(key) {
            stream.send_window += increment;
            if stream.send_window > i64::from(MAX_WINDOW_BYTES) {
                let code = ErrorCode::FLOW_CONTROL_ERROR;
                return Err(Fault::Stream(id, code, overflow));
            }
            if stream.send_window > 0 {
                stream.shut_since = None;
            }
        }
        self.queue(key);
        Ok(())
    }

    /// A frame of little consequence for a stream that is not open: allowed if
    /// it is closed (section 5.1).
    pub(super) fn stray(&mut self, id: u32, why_not_idle: &'static str) -> Result<(), Fault> {
        if self.is_idle(id) {
            return Err(Fault::protocol(why_not_idle));
        }
        self.spend(Abuse::StrayFrames)
    }

    /// Section 6.9.2: a change of the initial window changes every stream's,
    /// which may become negative.
    pub(super) fn change_windows(&mut self, before: u32, after: u32) -> Result<(), Fault> {
        let change = i64::from(after) - i64::from(before);
        if change == 0 {
            return Ok(());
        }
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        for key in keys {
            if let Some(stream) = self.streams.at(key) {
                stream.send_window += change;
                if stream.send_window > i64::from(MAX_WINDOW_BYTES) {
                    let why = "an initial window that takes a stream's over 2^31-1";
                    return Err(Fault::Connection(ErrorCode::FLOW_CONTROL_ERROR, why));
                }
                if stream.send_window > 0 {
                    stream.shut_since = None;
                }
            }
            self.queue(key);
        }
        Ok(())
    }

    /// Checks and counts a `DATA` payload (section 6.9.1): padding counts too.
    /// `Ok(None)`: the content is to be dropped.
    #[inline]
    pub(super) fn take_data(&mut self, id: u32, bytes: u32) -> Result<Option<StreamKey>, Fault> {
        let code = ErrorCode::FLOW_CONTROL_ERROR;
        if !self.receive.take(bytes) {
            let why = "DATA beyond the connection's window";
            return Err(Fault::Connection(code, why));
        }
        let Some(key) = self.streams.find(id) else {
            self.connection_consumed(bytes);
            return self.closed_data(id).map(|()| None);
        };
        let Some(stream) = self.streams.at(key) else {
            return Ok(None);
        };
        let (code, why) = if !stream.remote_open {
            (ErrorCode::STREAM_CLOSED, "DATA after the stream's end")
        } else if stream.receive.take(bytes) {
            return Ok(Some(key));
        } else {
            (code, "DATA beyond the stream's window")
        };
        self.connection_consumed(bytes);
        Err(Fault::Stream(id, code, why))
    }

    /// Section 5.1, "closed".
    fn closed_data(&mut self, id: u32) -> Result<(), Fault> {
        let why = "DATA on a closed stream";
        match self.streams.ending(id) {
            _ if self.is_idle(id) => Err(Fault::protocol("DATA on an idle stream")),
            Some(Ending::Ended) => Err(Fault::Connection(ErrorCode::STREAM_CLOSED, why)),
            Some(Ending::ClientReset) => Err(Fault::Stream(id, ErrorCode::STREAM_CLOSED, why)),
            Some(Ending::ServerReset) | None => self.spend(Abuse::StrayFrames),
        }
    }
}
