//! RFC 9113, section 6: the frames that a server sends.

use std::time::Instant;

use super::answer::Trailers;
use super::assembly::Message;
use super::blocks::{self, Block, Head};
use super::calls::{Key, Shape};
use super::core::{Core, Phase};
use super::failed::{Closed, Failed};
use crate::error_codes::{ErrorCode, Fault};
use crate::frame::{
    Frame, FrameHead, Kind, MAX_WINDOW_BYTES, MIN_MAX_FRAME_BYTES, SettingId, SettingsPayload,
    flag, write_ping, write_reset, write_settings_ack, write_window_update,
};
use crate::rpc::Code;

/// Frames of one header block beside the first (section 10.5.1).
const MAX_CONTINUATIONS: u32 = 64;
/// What answers to `PING` and `SETTINGS` may take of the output beyond what calls may:
/// a server that asks for more does not read them.
const MAX_ACK_BYTES: usize = 64 << 10;
/// The largest payload that is sent, whatever the server would take, bytes: other
/// calls are not to wait for long.
const MAX_SENT_FRAME_BYTES: u32 = 64 << 10;
/// What is kept of a `GOAWAY`'s words, bytes.
const MAX_DEBUG_BYTES: usize = 256;

/// A header block whose last frame has not come.
pub(super) struct PartialBlock {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    continuations: u32,
}

impl PartialBlock {
    /// Bytes of memory that it holds.
    #[cfg(feature = "fuzzing")]
    pub(super) const fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Core {
    /// Reads whole frames. Returns how many bytes they were: the rest must come
    /// again, with more after it.
    pub(super) fn receive(&mut self, input: &[u8], now: Instant) -> usize {
        self.times.heard(now);
        if self.phase == Phase::Greeting && input.starts_with(b"HTTP/1") {
            // As a frame it would be one of four million bytes, which says little.
            self.fail(ErrorCode::PROTOCOL_ERROR, "it speaks HTTP/1.1");
        }
        let mut used = 0;
        while !matches!(self.phase, Phase::Closed(_)) {
            let Some(head) = FrameHead::parse(&input[used..]) else {
                break;
            };
            if head.length > MIN_MAX_FRAME_BYTES {
                let why = "a frame over SETTINGS_MAX_FRAME_SIZE";
                self.fail(ErrorCode::FRAME_SIZE_ERROR, why);
                break;
            }
            let start = used + FrameHead::BYTES;
            let Some(payload) = input.get(start..start + head.length as usize) else {
                break;
            };
            used = start + payload.len();
            if let Err(fault) = self.frame(head, payload) {
                self.on_fault(fault);
            }
        }
        if self.waiting_calls > 0 {
            self.send_waiting(now);
        }
        match self.phase {
            Phase::Closed(_) => input.len(),
            _ => used,
        }
    }

    /// Section 5.4.
    fn on_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Connection(code, why) => self.fail(code, why),
            Fault::Stream(stream, code, why) => {
                if let Some((key, _)) = self.calls.find(stream) {
                    self.reset(key, code, Failed::Protocol(why));
                }
            }
        }
    }

    #[inline]
    fn frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if self.phase == Phase::Greeting && (head.kind != Kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Fault::protocol("the first frame is not SETTINGS"));
        }
        if let Some(partial) = &self.partial
            && (head.kind != Kind::CONTINUATION || head.stream != partial.stream)
        {
            return Err(Fault::protocol("a header block that is interrupted"));
        }
        if head.kind == Kind::PUSH_PROMISE {
            return Err(Fault::protocol(
                "a push, which SETTINGS_ENABLE_PUSH forbids",
            ));
        }
        match Frame::parse(head, payload)? {
            Frame::Data { data, end_stream } => self.on_data(head, data, end_stream),
            Frame::Headers {
                fragment,
                end_stream,
                end_headers: true,
                ..
            } => self.on_block(head.stream, fragment, end_stream),
            Frame::Headers {
                fragment,
                end_stream,
                ..
            } => {
                self.partial = Some(PartialBlock {
                    stream: head.stream,
                    end_stream,
                    bytes: fragment.to_vec(),
                    continuations: 0,
                });
                Ok(())
            }
            Frame::Continuation {
                fragment,
                end_headers,
            } => self.on_continuation(fragment, end_headers),
            Frame::Reset(code) => self.on_reset(head.stream, code),
            Frame::Settings(settings) => self.on_settings(settings),
            Frame::Ping(data) => {
                write_ping(&mut self.out, flag::ACK, data);
                self.acknowledged()
            }
            Frame::GoAway { last_stream, code } => {
                let debug = payload.get(8..).unwrap_or_default();
                self.on_goaway(last_stream, code, debug);
                Ok(())
            }
            Frame::WindowUpdate(increment) => self.on_window_update(head.stream, increment),
            Frame::SettingsAck | Frame::PingAck(_) | Frame::Priority(_) | Frame::Unknown => Ok(()),
        }
    }

    /// An answer to a frame of the connection was written.
    fn acknowledged(&mut self) -> Result<(), Fault> {
        if self.out.len() > self.config.max_output_bytes + MAX_ACK_BYTES {
            let why = "frames that ask for answers, which are not read";
            return Err(Fault::Connection(ErrorCode::ENHANCE_YOUR_CALM, why));
        }
        Ok(())
    }

    /// Section 5.1: a stream that is not open is closed, or was never opened.
    fn closed(&self, stream: u32) -> Result<(), Fault> {
        if stream.is_multiple_of(2) || stream >= self.next_stream {
            return Err(Fault::protocol("a frame of a stream that was never opened"));
        }
        Ok(())
    }

    /// Section 6.1.
    #[inline]
    fn on_data(&mut self, head: FrameHead, data: &[u8], end_stream: bool) -> Result<(), Fault> {
        let flow = ErrorCode::FLOW_CONTROL_ERROR;
        if !self.receive.take(head.length) {
            return Err(Fault::Connection(
                flow,
                "DATA beyond the connection's window",
            ));
        }
        // What one stream does not read is not to hold up the others.
        if let Some(increment) = self.receive.give(head.length) {
            write_window_update(&mut self.out, 0, increment);
        }
        let Some((key, call)) = self.calls.find(head.stream) else {
            return self.closed(head.stream);
        };
        if !call.receive.take(head.length) {
            return Err(Fault::Stream(
                head.stream,
                flow,
                "DATA beyond the stream's window",
            ));
        }
        if !call.has_head {
            let code = ErrorCode::PROTOCOL_ERROR;
            return Err(Fault::Stream(
                head.stream,
                code,
                "DATA before the answer's head",
            ));
        }
        let messages = &mut call.messages;
        let before = messages.len();
        let keep = |message: Message| messages.push_back(message);
        let max_bytes = self.config.max_message_bytes;
        let taken = call.assembly.push(data, max_bytes, call.encoding, keep);
        let came = call.messages.len() - before;
        self.activity.messages_received += came as u64;
        if let Err(failed) = taken {
            self.give_up(key, failed, end_stream);
            return Ok(());
        }
        if call.shape == Shape::Unary && call.messages.len() > 1 {
            let failed = Failed::Protocol("more than the one message of this method");
            self.give_up(key, failed, end_stream);
            return Ok(());
        }
        if end_stream {
            let failed = Failed::Protocol("an answer that ends without grpc-status");
            self.give_up(key, failed, true);
            return Ok(());
        }
        // A message that is not whole takes what it needs, up to its limit; what is
        // whole and not read stops the server.
        let credit = if call.shape == Shape::Unary || call.messages.is_empty() {
            head.length
        } else {
            call.uncredited += head.length;
            0
        };
        if let Some(increment) = call.receive.give(credit) {
            write_window_update(&mut self.out, head.stream, increment);
        }
        if came > 0 && call.shape == Shape::Stream {
            self.wake.extend(call.reader.take());
        }
        Ok(())
    }

    /// Section 6.10.
    fn on_continuation(&mut self, fragment: &[u8], end_headers: bool) -> Result<(), Fault> {
        let Some(partial) = &mut self.partial else {
            return Err(Fault::protocol("CONTINUATION without a header block"));
        };
        partial.bytes.extend_from_slice(fragment);
        partial.continuations += 1;
        let max_bytes = 2 * self.config.max_header_list_bytes as usize;
        if partial.bytes.len() > max_bytes || partial.continuations > MAX_CONTINUATIONS {
            let why = "a header block that does not end";
            return Err(Fault::Connection(ErrorCode::ENHANCE_YOUR_CALM, why));
        }
        if end_headers && let Some(block) = self.partial.take() {
            return self.on_block(block.stream, &block.bytes, block.end_stream);
        }
        Ok(())
    }

    /// A whole block. It is decoded in any case, to keep the compression state.
    #[inline]
    fn on_block(&mut self, stream: u32, block: &[u8], end_stream: bool) -> Result<(), Fault> {
        let lost = |_| {
            let why = "a header block that cannot be decoded";
            Fault::Connection(ErrorCode::COMPRESSION_ERROR, why)
        };
        let says = self.blocks.read(block).map_err(lost)?;
        let Some((key, call)) = self.calls.find(stream) else {
            return self.closed(stream);
        };
        let malformed = |why| Fault::Stream(stream, ErrorCode::PROTOCOL_ERROR, why);
        match (call.has_head, says) {
            (false, Block::PlainHead) if !end_stream => {
                call.has_head = true;
                if call.shape == Shape::Stream {
                    self.wake.extend(call.reader.take());
                }
                Ok(())
            }
            (true, Block::PlainOk) if end_stream => {
                self.complete(key, Trailers::default());
                Ok(())
            }
            (_, Block::TooLarge) => {
                let failed = Failed::Protocol("a header list larger than is taken");
                self.give_up(key, failed, end_stream);
                Ok(())
            }
            (true, _) if !end_stream => Err(malformed("trailers that do not end the stream")),
            (true, Block::PlainHead) => Err(malformed("a pseudo-header field in trailers")),
            (false, Block::PlainOk) => Err(malformed("an answer that does not begin with :status")),
            (false, Block::PlainHead) => {
                let failed = Failed::Protocol("an answer that ends without grpc-status");
                self.give_up(key, failed, true);
                Ok(())
            }
            (true, Block::Fields(fields)) => {
                match blocks::end(fields, false) {
                    Ok(trailers) => self.complete(key, trailers),
                    Err(why) => self.give_up(key, Failed::Protocol(why), true),
                }
                Ok(())
            }
            (false, Block::Fields(_)) => self.on_head(key, end_stream).map_err(malformed),
            // It was looked at above, with the end of the stream.
            (true, Block::PlainOk) => Ok(()),
        }
    }

    /// The head of an answer that is not the usual one.
    fn on_head(&mut self, key: Key, end_stream: bool) -> Result<(), &'static str> {
        let fields = self.blocks.fields();
        let Some(call) = self.calls.at(key) else {
            return Ok(());
        };
        match blocks::head(fields)? {
            Head::Interim if end_stream => Err("an interim answer that ends the stream"),
            Head::Interim => Ok(()),
            Head::Http {
                status,
                content_type,
            } => {
                let failed = Failed::Http {
                    status,
                    content_type,
                };
                self.give_up(key, failed, end_stream);
                Ok(())
            }
            Head::Grpc if end_stream => {
                match blocks::end(fields, true) {
                    Ok(trailers) => self.complete(key, trailers),
                    Err(why) => self.give_up(key, Failed::Protocol(why), true),
                }
                Ok(())
            }
            Head::Grpc => {
                call.encoding = call.encoding.named(fields.value(b"grpc-encoding"));
                call.headers = fields.clone();
                call.has_head = true;
                if call.shape == Shape::Stream {
                    self.wake.extend(call.reader.take());
                }
                Ok(())
            }
        }
    }

    /// The server has ended a call with a status.
    #[inline]
    fn complete(&mut self, key: Key, trailers: Trailers) {
        let Some(call) = self.calls.at(key) else {
            return;
        };
        if trailers.code == Code::OK {
            let lacks = call.shape == Shape::Unary && call.messages.is_empty();
            let why = match (call.assembly.is_partial(), lacks) {
                (true, _) => Some("a message that ends too early"),
                (false, true) => Some("an answer of OK without a message"),
                (false, false) => None,
            };
            if let Some(why) = why {
                return self.give_up(key, Failed::Protocol(why), true);
            }
        }
        if !call.sending.is_done {
            // Section 8.1: the request is not needed any more.
            let stream = call.stream;
            write_reset(&mut self.out, stream, ErrorCode::CANCEL);
        }
        self.end(key, Ok(trailers));
    }

    /// An answer is of no use. The server is told so, unless its stream has ended
    /// in both directions (`is_over`: in the server's).
    fn give_up(&mut self, key: Key, failed: Failed, is_over: bool) {
        let is_closed = |sending_done| is_over && sending_done;
        match self.calls.at(key) {
            Some(call) if is_closed(call.sending.is_done) => self.end(key, Err(failed)),
            _ => self.reset(key, ErrorCode::CANCEL, failed),
        }
    }

    /// Section 6.4; section 8.7 for `REFUSED_STREAM`.
    fn on_reset(&mut self, stream: u32, code: ErrorCode) -> Result<(), Fault> {
        let Some((key, _)) = self.calls.find(stream) else {
            return self.closed(stream);
        };
        let failed = match code {
            ErrorCode::REFUSED_STREAM => Failed::Refused,
            code => Failed::Reset(code),
        };
        self.end(key, Err(failed));
        Ok(())
    }

    /// Section 6.5.
    fn on_settings(&mut self, settings: SettingsPayload<'_>) -> Result<(), Fault> {
        let before = self.peer.initial_window_bytes;
        for (id, value) in settings.iter() {
            match id {
                SettingId::MAX_CONCURRENT_STREAMS => self.max_streams = value,
                // Section 6.5.2: a server must not.
                SettingId::ENABLE_PUSH if value != 0 => {
                    return Err(Fault::protocol("a server that asks for pushes"));
                }
                id => self.peer.apply(id, value)?,
            }
        }
        self.peer.max_frame_bytes = self.peer.max_frame_bytes.min(MAX_SENT_FRAME_BYTES);
        self.heads.set_table_limit(self.peer.header_table_bytes);
        // Section 6.9.2: what changes is the size of every window, not what is left.
        let change = i64::from(self.peer.initial_window_bytes) - i64::from(before);
        if change != 0 {
            for (_, call) in self.calls.all().filter(|(_, call)| call.stream != 0) {
                call.send_window += change;
                if call.send_window > i64::from(MAX_WINDOW_BYTES) {
                    let why = "an initial window that takes a stream's over 2^31-1";
                    return Err(Fault::Connection(ErrorCode::FLOW_CONTROL_ERROR, why));
                }
            }
        }
        write_settings_ack(&mut self.out);
        if self.phase == Phase::Greeting {
            self.phase = Phase::Open;
        }
        self.show_readiness();
        self.send_blocked();
        self.acknowledged()
    }

    /// Section 6.8.
    fn on_goaway(&mut self, last_stream: u32, code: ErrorCode, debug: &[u8]) {
        let refused: Vec<u32> = self
            .calls
            .streams()
            .filter(|&it| it > last_stream)
            .collect();
        for stream in refused {
            if let Some((key, _)) = self.calls.find(stream) {
                self.end(key, Err(Failed::Refused));
            }
        }
        let debug = &debug[..debug.len().min(MAX_DEBUG_BYTES)];
        let why = Closed::GoAway {
            code,
            debug: String::from_utf8_lossy(debug).into(),
        };
        match &mut self.phase {
            // The second of two says why, if either does.
            Phase::Closing(said) if code != ErrorCode::NO_ERROR => *said = why,
            _ => self.close_to_calls(why),
        }
    }

    /// Section 6.9.
    fn on_window_update(&mut self, stream: u32, increment: u32) -> Result<(), Fault> {
        let code = ErrorCode::FLOW_CONTROL_ERROR;
        let why = "a window over 2^31-1";
        let max = i64::from(MAX_WINDOW_BYTES);
        if stream == 0 {
            self.send_window += i64::from(increment);
            if self.send_window > max {
                return Err(Fault::Connection(code, why));
            }
            self.send_blocked();
            return Ok(());
        }
        let Some((key, call)) = self.calls.find(stream) else {
            return self.closed(stream);
        };
        call.send_window += i64::from(increment);
        if call.send_window > max {
            return Err(Fault::Stream(stream, code, why));
        }
        self.send_more(key);
        Ok(())
    }

    /// The messages of a stream that came were read: the server may send more.
    pub(super) fn credit(&mut self, key: Key) {
        let Some(call) = self.calls.at(key) else {
            return;
        };
        let read = std::mem::take(&mut call.uncredited);
        let stream = call.stream;
        if stream != 0
            && let Some(increment) = call.receive.give(read)
        {
            write_window_update(&mut self.out, stream, increment);
            self.calls_driver = true;
        }
    }
}
