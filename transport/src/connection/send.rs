//! RFC 9113, section 8.1: answers, as header block, content and trailers.
//!
//! What fits the client's windows is written straight into the connection's
//! output. What does not waits with its stream, and leaves in turn when the
//! client opens its windows: each stream one frame after the other.

use std::time::Instant;

use super::core::Core;
use super::streams::{Ending, Last, StreamKey};
use crate::error_codes::ErrorCode;
use crate::frame::{
    FrameHead, Kind, begin_frame, end_data_frames, end_frame, flag, write_reset, write_short,
};
use crate::hpack::{Encoder, Repeated, STATUS_200, write_literal};

/// Whether a stream ends with what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More may follow.
    Open,
    /// It ends.
    Stream,
}

/// A header block that is being written.
pub struct BlockWriter<'a> {
    out: &'a mut Vec<u8>,
    /// `None` if the block is sent later, when the dynamic table may be another.
    encoder: Option<&'a mut Encoder>,
}

impl<'a> BlockWriter<'a> {
    /// A block that is sent later, on any connection.
    pub(crate) const fn detached(out: &'a mut Vec<u8>) -> Self {
        Self { out, encoder: None }
    }
}

impl BlockWriter<'_> {
    /// `:status`, the first field of a response.
    pub fn status(&mut self, status: u16) {
        crate::hpack::write_status(self.out, status);
    }

    /// A field that most answers have.
    #[inline]
    pub fn repeated(&mut self, field: Repeated) {
        match &mut self.encoder {
            Some(encoder) => encoder.write_repeated(self.out, field),
            None => {
                let (name, value) = field.field();
                write_literal(self.out, name.as_bytes(), value.as_bytes());
            }
        }
    }

    /// Fields that were written by [`write_literal`] before.
    #[inline]
    pub(crate) fn literals(&mut self, literals: &[u8]) {
        self.out.extend_from_slice(literals);
    }

    /// Any other. `name` is in lower case.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        write_literal(self.out, name, value);
    }
}

/// The beginning of a `DATA` frame in the output.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct DataMark(usize);

impl Core {
    /// Sends a header block. Content must not wait before it.
    #[inline]
    pub fn send_headers(
        &mut self,
        key: StreamKey,
        end: End,
        write: impl FnOnce(&mut BlockWriter<'_>),
    ) {
        if self.streams.at(key).is_none() {
            return;
        }
        self.proven = true;
        let start = begin_frame(&mut self.out);
        self.encoder.begin_block(&mut self.out);
        write(&mut BlockWriter {
            out: &mut self.out,
            encoder: Some(&mut self.encoder),
        });
        self.end_headers(start, key.id, end);
        if end == End::Stream {
            self.sent_end(key);
        }
    }

    /// Sends the headers that nearly every answer of gRPC has, if the client's
    /// table holds them: else returns false, and nothing is done.
    #[inline]
    #[must_use]
    pub(crate) fn send_usual_headers(&mut self, key: StreamKey) -> bool {
        let Some(content_type) = self.encoder.known(Repeated::ContentTypeGrpc) else {
            return false;
        };
        if self.streams.at(key).is_some() {
            self.proven = true;
            let block = [STATUS_200, content_type];
            write_short(
                &mut self.out,
                Kind::HEADERS,
                flag::END_HEADERS,
                key.id,
                block,
            );
        }
        true
    }

    /// As [`Self::send_usual_headers`], for the trailers of a call that went well.
    /// They must not have to wait.
    #[inline]
    #[must_use]
    pub(crate) fn send_usual_trailers(&mut self, key: StreamKey) -> bool {
        let Some(status) = self.encoder.known(Repeated::GrpcStatusOk) else {
            return false;
        };
        let Some(stream) = self.streams.at(key) else {
            return true;
        };
        if stream.unsent() > 0 {
            return false;
        }
        let flags = flag::END_STREAM | flag::END_HEADERS;
        write_short(&mut self.out, Kind::HEADERS, flags, key.id, [status]);
        self.sent_end(key);
        true
    }

    /// Sections 4.3 and 6.10: a block that is longer than a frame continues.
    #[inline]
    fn end_headers(&mut self, start: usize, id: u32, end: End) {
        let end_stream = if end == End::Stream {
            flag::END_STREAM
        } else {
            0
        };
        let most = self.peer.max_frame_bytes as usize;
        let block = start + FrameHead::BYTES;
        if self.out.len() - block <= most {
            let flags = end_stream | flag::END_HEADERS;
            end_frame(&mut self.out, start, Kind::HEADERS, flags, id);
            return;
        }
        let rest = self.out.split_off(block + most);
        end_frame(&mut self.out, start, Kind::HEADERS, end_stream, id);
        let mut fragments = rest.chunks(most).peekable();
        while let Some(fragment) = fragments.next() {
            let start = begin_frame(&mut self.out);
            self.out.extend_from_slice(fragment);
            let flags = if fragments.peek().is_none() {
                flag::END_HEADERS
            } else {
                0
            };
            end_frame(&mut self.out, start, Kind::CONTINUATION, flags, id);
        }
    }

    /// Begins content. Until [`Self::end_data`], what is appended to
    /// [`Self::output`] is content.
    #[inline]
    pub fn begin_data(&mut self) -> DataMark {
        DataMark(begin_frame(&mut self.out))
    }

    /// Where content is written between [`Self::begin_data`] and
    /// [`Self::end_data`].
    #[inline]
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Sends what was written since the mark, or keeps it until it may be sent.
    #[inline]
    pub fn end_data(&mut self, key: StreamKey, mark: DataMark) {
        let DataMark(start) = mark;
        let from = start + FrameHead::BYTES;
        let length = self.out.len() - from;
        let Some(stream) = self.streams.at(key) else {
            self.out.truncate(start);
            return;
        };
        let most_bytes = self.peer.max_frame_bytes as usize;
        let window = self.send_window.min(stream.send_window);
        // What is longer than a frame leaves at once only if the output has room for all of
        // it, and no other stream waits for its turn.
        let has_place = length <= most_bytes
            || (self.queue.is_empty() && self.out.len() - self.out_sent <= self.max_output);
        let fits = has_place && i64::try_from(length).is_ok_and(|length| length <= window);
        if stream.unsent() == 0 && length > 0 && fits {
            // Below 2^31 by the line above.
            let bytes = i64::try_from(length).unwrap_or(i64::MAX);
            stream.send_window -= bytes;
            self.send_window -= bytes;
            self.buckets.work += 1;
            if length <= most_bytes {
                end_frame(&mut self.out, start, Kind::DATA, 0, key.id);
            } else {
                self.buckets.work += end_data_frames(&mut self.out, start, most_bytes, key.id);
            }
            return;
        }
        if length > 0 {
            // None is kept that is twice as large as an answer: see `PART_BYTES`.
            stream.pending.reserve_exact(length);
            stream.pending.extend_from_slice(&self.out[from..]);
            self.unsent += length;
            self.pending += length;
        }
        self.out.truncate(start);
        self.queue(key);
    }

    /// Takes back what was written since the mark.
    pub fn drop_data(&mut self, mark: DataMark) {
        let DataMark(start) = mark;
        self.out.truncate(start);
    }

    /// Ends an answer with trailers.
    #[inline]
    pub fn send_trailers(&mut self, key: StreamKey, write: impl FnOnce(&mut BlockWriter<'_>)) {
        let Some(stream) = self.streams.at(key) else {
            return;
        };
        if stream.unsent() == 0 {
            self.send_headers(key, End::Stream, write);
            return;
        }
        let mut block = Vec::new();
        write(&mut BlockWriter {
            out: &mut block,
            encoder: None,
        });
        stream.last = Last::Trailers(block);
    }

    /// Ends an answer without trailers.
    pub fn send_end(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.at(key) {
            stream.last = Last::End;
            self.queue(key);
        }
    }

    /// The end of the stream has been written.
    #[inline]
    fn sent_end(&mut self, key: StreamKey) {
        self.buckets.work += 1;
        let Some(stream) = self.streams.at(key) else {
            return;
        };
        if stream.remote_open {
            // Section 8.1: "without an error", as the answer is complete.
            write_reset(&mut self.out, key.id, ErrorCode::NO_ERROR);
            self.close(key, Ending::ServerReset);
        } else {
            self.close(key, Ending::Ended);
        }
    }

    /// Has a stream sent from, if it has anything to send.
    pub(super) fn queue(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.at(key) {
            let something = stream.unsent() > 0 || !matches!(stream.last, Last::Open);
            if something && !stream.queued {
                stream.queued = true;
                stream.has_waited = true;
                self.queue.push_back(key);
            }
        }
    }

    /// Writes what the windows and the output's limit let through.
    pub(super) fn send_pending(&mut self) {
        while self.has_room_for_part() {
            let Some(key) = self.queue.pop_front() else {
                return;
            };
            let connection_window = self.send_window;
            let Some(stream) = self.streams.at(key) else {
                continue;
            };
            stream.queued = false;
            if stream.unsent() == 0 {
                self.send_last(key);
            } else if stream.send_window <= 0 {
                // Queued again when its window opens.
                self.shut(key);
            } else if connection_window <= 0 {
                stream.queued = true;
                self.queue.push_front(key);
                self.shut_since.get_or_insert(self.now);
                return;
            } else {
                self.send_chunk(key);
                self.queue(key);
            }
        }
    }

    /// Content waits, and the stream's window is shut.
    fn shut(&mut self, key: StreamKey) {
        let (now, stall) = (self.now, self.limits.times.stall);
        if let Some(stream) = self.streams.at(key)
            && stream.shut_since.is_none()
        {
            stream.shut_since = Some(now);
            let end = now.checked_add(stall);
            self.next_stall = self.next_stall.into_iter().chain(end).min();
        }
    }

    /// The streams whose windows have been shut for too long.
    pub(super) fn stalled(&mut self, now: Instant) -> Vec<StreamKey> {
        let stall = self.limits.times.stall;
        self.next_stall = None;
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        let mut stalled = Vec::new();
        for key in keys {
            let shut = self.streams.at(key).and_then(|stream| stream.shut_since);
            let Some(end) = shut.and_then(|since| since.checked_add(stall)) else {
                continue;
            };
            if end <= now {
                stalled.push(key);
            } else {
                self.next_stall = self.next_stall.into_iter().chain([end]).min();
            }
        }
        stalled
    }

    /// One frame of a stream's content; both windows are open.
    fn send_chunk(&mut self, key: StreamKey) {
        let most = self.send_window.min(i64::from(self.peer.max_frame_bytes));
        let Some(stream) = self.streams.at(key) else {
            return;
        };
        let most = usize::try_from(most.min(stream.send_window)).unwrap_or(0);
        let length = most.min(stream.unsent());
        let ends = length == stream.unsent() && matches!(stream.last, Last::End);
        let bytes = i64::try_from(length).unwrap_or(i64::MAX);
        stream.send_window -= bytes;
        let from = stream.sent;
        stream.sent += length;
        let drained = stream.unsent() == 0;
        let start = self.out.len();
        let flags = if ends { flag::END_STREAM } else { 0 };
        self.out.extend_from_slice(&[0; FrameHead::BYTES]);
        self.out
            .extend_from_slice(&stream.pending[from..from + length]);
        end_frame(&mut self.out, start, Kind::DATA, flags, key.id);
        if drained {
            self.pending -= stream.pending.len();
            stream.pending.clear();
            stream.sent = 0;
            if matches!(stream.last, Last::Open) {
                self.drained.push(key);
            }
        }
        self.send_window -= bytes;
        self.unsent -= length;
        self.buckets.work += 1;
        if ends {
            self.sent_end(key);
        }
    }

    /// What stands after a stream's content.
    fn send_last(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.at(key) else {
            return;
        };
        let start = begin_frame(&mut self.out);
        match std::mem::replace(&mut stream.last, Last::Open) {
            Last::Open => self.out.truncate(start),
            Last::End => {
                end_frame(&mut self.out, start, Kind::DATA, flag::END_STREAM, key.id);
                self.sent_end(key);
            }
            Last::Trailers(block) => {
                self.encoder.begin_block(&mut self.out);
                self.out.extend_from_slice(&block);
                self.end_headers(start, key.id, End::Stream);
                self.sent_end(key);
            }
        }
    }
}
