//! gRPC over HTTP/2 (RFC 9113) as a client, without a socket. A call is a slot:
//! nothing is allocated for one whose request and answer each fit a frame.
//!
//! | file | what |
//! |---|---|
//! | `heads.rs` | header blocks of requests |
//! | `meanings.rs` | header blocks of answers |
//! | `slots.rs` | the calls under way, by slot and by stream |

mod heads;
mod meanings;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use larder_client::Code;
use larder_transport::error_codes::{ErrorCode, Fault};
use larder_transport::frame::{
    Frame, FrameHead, INITIAL_WINDOW_BYTES, Kind, MAX_WINDOW_BYTES, MIN_MAX_FRAME_BYTES, PREFACE,
    PeerSettings, SettingId, SettingsPayload, begin_frame, end_frame, flag, write_ping,
    write_reset, write_settings, write_settings_ack, write_window_update,
};

use super::super::mix::Operation;
use super::super::random::Random;
use super::super::stats::ErrorKind;
use super::api::{Api, Calls};
use super::{Broken, Ended, Request, message};

use self::heads::Heads;
use self::meanings::{Meaning, Meanings};
use self::slots::{Slots, Unsent};

/// `SETTINGS_HEADER_TABLE_SIZE` of this end: the default.
const TABLE_BYTES: usize = 4096;

/// Largest header block of an answer, bytes.
const MAX_BLOCK_BYTES: usize = 256 << 10;

/// A connection that has made this many streams is replaced: their numbers have
/// an end.
const LAST_STREAM: u32 = (1 << 31) - 1;

/// Received bytes after which the connection's window is opened again.
const RENEW_WINDOW_BYTES: u32 = MAX_WINDOW_BYTES / 2;

/// One connection.
pub(in crate::bench) struct Grpc {
    calls: Arc<Calls>,
    out: Vec<u8>,
    random: Random,
    heads: Heads,
    meanings: Meanings,
    slots: Slots,
    next_stream: u32,
    /// The peer's settings came.
    ready: bool,
    peer: PeerSettings,
    max_streams: u32,
    /// What may be sent on all streams together, bytes (section 5.2).
    send_window: i64,
    /// Slots whose request waits for a window, in order.
    blocked: VecDeque<usize>,
    /// `DATA` bytes since the connection's window was last opened.
    received: u32,
    /// A header block whose end has not come.
    block: Option<Block>,
    /// No more calls are to be made here.
    going_away: Option<ErrorCode>,
}

struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
}

impl Grpc {
    pub(super) fn new(calls: Arc<Calls>, slots: usize, seed: u64) -> Self {
        let mut out = PREFACE.to_vec();
        let settings = [
            (SettingId::ENABLE_PUSH, 0),
            // All that an answer can need, at once: what is measured is not to
            // wait for this end.
            (SettingId::INITIAL_WINDOW_SIZE, MAX_WINDOW_BYTES),
        ];
        write_settings(&mut out, &settings);
        write_window_update(&mut out, 0, MAX_WINDOW_BYTES - INITIAL_WINDOW_BYTES);
        Self {
            calls,
            out,
            random: Random::new(seed),
            heads: Heads::default(),
            meanings: Meanings::new(TABLE_BYTES),
            slots: Slots::new(slots),
            next_stream: 1,
            ready: false,
            peer: PeerSettings::default(),
            max_streams: u32::MAX,
            send_window: INITIAL_WINDOW_BYTES.into(),
            blocked: VecDeque::new(),
            received: 0,
            block: None,
            going_away: None,
        }
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) const fn may_begin(&self) -> bool {
        self.ready
            && self.going_away.is_none()
            && self.next_stream < LAST_STREAM
            && self.slots.open() < self.max_streams as usize
    }

    pub(super) const fn is_over(&self) -> bool {
        let ending = self.going_away.is_some() || self.next_stream >= LAST_STREAM;
        ending && self.slots.open() == 0
    }

    pub(super) fn closed(&self) -> Broken {
        match self.going_away {
            Some(code) => Broken::unavailable(format!("GOAWAY_{code:?}")),
            None => Broken::unavailable("CONNECTION_CLOSED"),
        }
    }

    pub(super) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(super) fn begin(&mut self, slot: usize, request: Request<'_>) {
        let stream = self.next_stream;
        self.next_stream += 2;
        let start = begin_frame(&mut self.out);
        let (operation, random) = (request.operation, self.random.next());
        self.heads
            .write(&self.calls, operation, request.index, random, &mut self.out);
        end_frame(
            &mut self.out,
            start,
            Kind::HEADERS,
            flag::END_HEADERS,
            stream,
        );
        let window = i64::from(self.peer.initial_window_bytes);
        self.slots
            .begin(slot, stream, operation, request.key.len(), window);
        let calls = Arc::clone(&self.calls);
        let start = begin_frame(&mut self.out);
        let value = message::write_request(&calls, request, &mut self.out);
        let head_bytes = self.out.len() - start - FrameHead::BYTES;
        let bytes = head_bytes + value.len();
        let room = window.min(self.send_window);
        if bytes <= self.peer.max_frame_bytes as usize && signed(bytes) <= room {
            self.out.extend_from_slice(value);
            end_frame(&mut self.out, start, Kind::DATA, flag::END_STREAM, stream);
            self.send_window -= signed(bytes);
            self.slots.at(slot).window -= signed(bytes);
        } else {
            // The head of the message waits apart; its value is that of all.
            let head = self.out.split_off(start + FrameHead::BYTES);
            self.out.truncate(start);
            self.slots.at(slot).unsent = Some(Unsent { head, sent: 0 });
            self.send_more(slot);
        }
    }

    /// Sends as much of a request as the windows let through.
    fn send_more(&mut self, slot: usize) {
        let call = self.slots.at(slot);
        let Some(mut unsent) = call.unsent.take() else {
            return;
        };
        let value: &[u8] = match call.operation {
            Operation::Set => &self.calls.value,
            _ => &[],
        };
        let bytes = unsent.head.len() + value.len();
        while unsent.sent < bytes {
            let room = call.window.min(self.send_window);
            let room = usize::try_from(room).unwrap_or(0);
            let part = room
                .min(self.peer.max_frame_bytes as usize)
                .min(bytes - unsent.sent);
            if part == 0 {
                if !call.is_blocked {
                    call.is_blocked = true;
                    self.blocked.push_back(slot);
                }
                call.unsent = Some(unsent);
                return;
            }
            let start = begin_frame(&mut self.out);
            let from = unsent.sent.min(unsent.head.len());
            let to = (unsent.sent + part).min(unsent.head.len());
            self.out.extend_from_slice(&unsent.head[from..to]);
            let rest = part - (to - from);
            let from = unsent.sent.saturating_sub(unsent.head.len());
            self.out.extend_from_slice(&value[from..from + rest]);
            unsent.sent += part;
            let flags = if unsent.sent == bytes {
                flag::END_STREAM
            } else {
                0
            };
            end_frame(&mut self.out, start, Kind::DATA, flags, call.stream);
            call.window -= signed(part);
            self.send_window -= signed(part);
        }
    }

    /// The windows may have opened: those that wait go on in their order.
    fn send_blocked(&mut self) {
        for _ in 0..self.blocked.len() {
            if self.send_window <= 0 {
                return;
            }
            if let Some(slot) = self.blocked.pop_front() {
                self.slots.at(slot).is_blocked = false;
                self.send_more(slot);
            }
        }
    }

    pub(super) fn cancel(&mut self, slot: usize) {
        let stream = self.slots.at(slot).stream;
        write_reset(&mut self.out, stream, ErrorCode::CANCEL);
        self.free(slot);
    }

    fn free(&mut self, slot: usize) {
        self.slots.free(slot);
        self.blocked.retain(|&blocked| blocked != slot);
    }

    pub(super) fn receive(
        &mut self,
        input: &[u8],
        ended: &mut Vec<Ended>,
    ) -> Result<usize, Broken> {
        let mut used = 0;
        while let Some(head) = FrameHead::parse(&input[used..]) {
            if head.length > MIN_MAX_FRAME_BYTES {
                return Err(Broken::protocol("FRAME_TOO_LARGE"));
            }
            let start = used + FrameHead::BYTES;
            let Some(payload) = input.get(start..start + head.length as usize) else {
                break;
            };
            used = start + payload.len();
            self.frame(head, payload, ended)?;
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        ended: &mut Vec<Ended>,
    ) -> Result<(), Broken> {
        if self.block.is_some() && head.kind != Kind::CONTINUATION {
            return Err(Broken::protocol("HEADER_BLOCK_INTERRUPTED"));
        }
        match Frame::parse(head, payload).map_err(|fault| broken(&fault))? {
            Frame::Data { data, end_stream } => {
                self.received += head.length;
                if self.received >= RENEW_WINDOW_BYTES {
                    write_window_update(&mut self.out, 0, self.received);
                    self.received = 0;
                }
                self.data(head.stream, data, end_stream, ended);
            }
            Frame::Headers {
                fragment,
                end_stream,
                end_headers,
                ..
            } => {
                if end_headers {
                    return self.headers(head.stream, fragment, end_stream, ended);
                }
                self.block = Some(Block {
                    stream: head.stream,
                    end_stream,
                    bytes: fragment.to_vec(),
                });
            }
            Frame::Continuation {
                fragment,
                end_headers,
            } => return self.continuation(head.stream, fragment, end_headers, ended),
            Frame::Reset(code) => self.reset(head.stream, code, ended),
            Frame::Settings(settings) => self.settings(settings)?,
            Frame::Ping(data) => write_ping(&mut self.out, flag::ACK, data),
            Frame::GoAway { last_stream, code } => self.goaway(last_stream, code, ended),
            Frame::WindowUpdate(increment) => self.window_update(head.stream, increment)?,
            Frame::SettingsAck | Frame::PingAck(_) | Frame::Priority(_) | Frame::Unknown => {}
        }
        Ok(())
    }

    fn continuation(
        &mut self,
        stream: u32,
        fragment: &[u8],
        end_headers: bool,
        ended: &mut Vec<Ended>,
    ) -> Result<(), Broken> {
        let Some(mut block) = self.block.take().filter(|block| block.stream == stream) else {
            return Err(Broken::protocol("CONTINUATION_OF_NOTHING"));
        };
        block.bytes.extend_from_slice(fragment);
        if block.bytes.len() > MAX_BLOCK_BYTES {
            return Err(Broken::protocol("HEADER_BLOCK_TOO_LARGE"));
        }
        if end_headers {
            return self.headers(stream, &block.bytes, block.end_stream, ended);
        }
        self.block = Some(block);
        Ok(())
    }

    /// Frames of streams that were given up are passed over, here and below.
    fn data(&mut self, stream: u32, data: &[u8], end_stream: bool, ended: &mut Vec<Ended>) {
        let Some(slot) = self.slots.find(stream) else {
            return;
        };
        self.slots.at(slot).receive(&self.calls, data);
        if end_stream {
            self.end(slot, &Meaning::default(), ended);
        }
    }

    fn headers(
        &mut self,
        stream: u32,
        block: &[u8],
        end_stream: bool,
        ended: &mut Vec<Ended>,
    ) -> Result<(), Broken> {
        // Also for streams that are gone: the block may change the table.
        let meaning = self
            .meanings
            .of(block)
            .map_err(|_| Broken::protocol("HEADER_BLOCK_MALFORMED"))?;
        let Some(slot) = self.slots.find(stream) else {
            return Ok(());
        };
        if let Some(status) = meaning.http_status {
            self.slots.at(slot).http_status = status;
        }
        if end_stream {
            self.end(slot, &meaning, ended);
        }
        Ok(())
    }

    /// The peer has ended a stream: that is the answer, whatever it is.
    fn end(&mut self, slot: usize, meaning: &Meaning, ended: &mut Vec<Ended>) {
        let call = self.slots.at(slot);
        if call.unsent.is_some() {
            // The answer came before the request was complete: no more of it.
            write_reset(&mut self.out, call.stream, ErrorCode::CANCEL);
        }
        let is_miss = self.calls.api == Api::Rpc && call.operation == Operation::Get;
        let result = call.result(meaning, is_miss);
        ended.push(Ended { slot, result });
        self.free(slot);
    }

    fn reset(&mut self, stream: u32, code: ErrorCode, ended: &mut Vec<Ended>) {
        if let Some(slot) = self.slots.find(stream) {
            let result = Err(reset_kind(code));
            ended.push(Ended { slot, result });
            self.free(slot);
        }
    }

    fn settings(&mut self, settings: SettingsPayload<'_>) -> Result<(), Broken> {
        let before = self.peer;
        for (id, value) in settings.iter() {
            if id == SettingId::MAX_CONCURRENT_STREAMS {
                self.max_streams = value;
            }
            self.peer.apply(id, value).map_err(|fault| broken(&fault))?;
        }
        self.heads.set_table_limit(self.peer.header_table_bytes);
        // Section 6.9.2: what changes is the size of every window, not what is
        // left of it.
        let change =
            i64::from(self.peer.initial_window_bytes) - i64::from(before.initial_window_bytes);
        self.slots.widen(change);
        write_settings_ack(&mut self.out);
        self.ready = true;
        self.send_blocked();
        Ok(())
    }

    fn window_update(&mut self, stream: u32, increment: u32) -> Result<(), Broken> {
        let window = if stream == 0 {
            &mut self.send_window
        } else if let Some(slot) = self.slots.find(stream) {
            &mut self.slots.at(slot).window
        } else {
            return Ok(());
        };
        *window += i64::from(increment);
        if *window > i64::from(MAX_WINDOW_BYTES) {
            return Err(Broken::protocol("WINDOW_TOO_LARGE"));
        }
        if !self.blocked.is_empty() {
            self.send_blocked();
        }
        Ok(())
    }

    /// Section 6.8: streams above the last were not begun, and the others go on.
    fn goaway(&mut self, last_stream: u32, code: ErrorCode, ended: &mut Vec<Ended>) {
        self.going_away = Some(code);
        for slot in self.slots.above(last_stream) {
            let result = Err(("UNAVAILABLE", Some(format!("GOAWAY_{code:?}"))));
            ended.push(Ended { slot, result });
            self.free(slot);
        }
    }
}

fn broken(fault: &Fault) -> Broken {
    let (Fault::Connection(code, _) | Fault::Stream(_, code, _)) = fault;
    Broken::protocol(format!("{code:?}"))
}

/// The code of gRPC for a stream that was reset ("gRPC over HTTP2").
fn reset_kind(code: ErrorCode) -> ErrorKind {
    let meant = match code {
        ErrorCode::REFUSED_STREAM => Code::Unavailable,
        ErrorCode::CANCEL => Code::Cancelled,
        ErrorCode::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        _ => Code::Internal,
    };
    (meant.name(), Some(format!("RESET_{code:?}")))
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
