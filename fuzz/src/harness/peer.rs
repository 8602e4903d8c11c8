//! The client's end: reads what the server sends, and checks that a server may
//! send it.

use std::collections::BTreeMap;

use larder_transport::error_codes::ErrorCode;
use larder_transport::frame::{Frame, FrameHead, Kind};
use larder_transport::hpack::{Decoder, Fields};

use super::ledger::Ledger;
use crate::features::{note, note_size};

/// What came on one stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Response {
    /// `:status`, once it came.
    pub http_status: Option<u16>,
    /// `grpc-status`, of the head or the trailers.
    pub grpc_status: Option<u8>,
    /// The content.
    pub content: Vec<u8>,
    /// It is complete.
    pub ended: bool,
    /// The server reset it.
    pub reset: Option<ErrorCode>,
    /// And it was not an idle one.
    over: bool,
}

impl Response {
    /// True once nothing more can come.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }

    /// The same, if it was not reset.
    #[must_use]
    pub fn without_reset(mut self) -> Self {
        (self.reset, self.over) = (None, false);
        self
    }
}

/// A client that reads.
pub struct Peer {
    bytes: Vec<u8>,
    greeted: bool,
    decoder: Decoder,
    fields: Fields,
    /// A block that goes on: its stream, whether it ends it, and its fragments.
    block: Option<(u32, bool, Vec<u8>)>,
    responses: BTreeMap<u32, Response>,
    nothing: Response,
    /// The last stream, and why.
    goaway: Option<(u32, ErrorCode)>,
    failed: bool,
    /// Flow control and settings; `None` for a client that keeps to nothing.
    pub ledger: Option<Ledger>,
    /// Frames that the client is to answer with: acknowledgements.
    pub answers: Vec<u8>,
}

impl Peer {
    /// A client that has read nothing yet.
    #[must_use]
    pub fn new(ledger: Option<Ledger>) -> Self {
        Self {
            bytes: Vec::new(),
            greeted: false,
            decoder: Decoder::new(4096),
            fields: Fields::default(),
            block: None,
            responses: BTreeMap::new(),
            nothing: Response::default(),
            goaway: None,
            failed: false,
            ledger,
            answers: Vec::new(),
        }
    }

    /// Reads what the server sent.
    pub fn read(&mut self, bytes: &[u8]) {
        let mut all = std::mem::take(&mut self.bytes);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        while let Some(head) = FrameHead::parse(rest) {
            let end = FrameHead::BYTES + head.length as usize;
            let Some(payload) = rest.get(FrameHead::BYTES..end) else {
                break;
            };
            self.frame(head, payload);
            rest = &rest[end..];
        }
        self.bytes = rest.to_vec();
    }

    /// What came on a stream.
    #[must_use]
    pub fn response(&self, stream: u32) -> &Response {
        self.responses.get(&stream).unwrap_or(&self.nothing)
    }

    /// The last stream that the server says it acts on.
    #[must_use]
    pub fn last_stream(&self) -> Option<u32> {
        self.goaway.map(|(last, _)| last)
    }

    fn frame(&mut self, head: FrameHead, payload: &[u8]) {
        if let Some(ledger) = &self.ledger {
            ledger.check_frame(payload.len());
        }
        assert!(!self.failed, "{head:?} after the connection's end");
        assert!(
            self.greeted || head.kind == Kind::SETTINGS,
            "{head:?} first"
        );
        self.greeted = true;
        if let Some((stream, ..)) = &self.block {
            let goes_on = head.kind == Kind::CONTINUATION && head.stream == *stream;
            assert!(goes_on, "{head:?} inside a field block");
        }
        note(("server", head.kind.0, head.flags & 0x2d));
        let parsed = Frame::parse(head, payload);
        let frame = parsed.unwrap_or_else(|fault| unreachable!("{head:?}: {fault}"));
        match frame {
            Frame::Settings(settings) => {
                note(settings.iter().count());
                larder_transport::frame::write_settings_ack(&mut self.answers);
            }
            Frame::SettingsAck => {
                if let Some(ledger) = &mut self.ledger {
                    ledger.acknowledged();
                }
            }
            Frame::Ping(data) => {
                let ack = larder_transport::frame::flag::ACK;
                larder_transport::frame::write_ping(&mut self.answers, ack, data);
            }
            Frame::PingAck(_) => {}
            Frame::GoAway { last_stream, code } => self.goaway(last_stream, code),
            Frame::WindowUpdate(bytes) => {
                if head.stream != 0 {
                    self.live(head.stream);
                }
                if let Some(ledger) = &mut self.ledger {
                    ledger.may_send(head.stream, bytes);
                }
            }
            Frame::Reset(code) => {
                note(("reset", code));
                let strict = self.ledger.is_some();
                let response = self.responses.entry(head.stream).or_default();
                response.reset = response.reset.or(Some(code));
                // A stream that was never answered may be an idle one, which can
                // begin later.
                response.over |= strict || response.http_status.is_some();
            }
            frame => self.stream_frame(head, frame),
        }
    }

    fn goaway(&mut self, last_stream: u32, code: ErrorCode) {
        note(("goaway", code));
        let before = self.goaway.map_or(u32::MAX, |(last, _)| last);
        assert!(last_stream <= before, "a GOAWAY that takes streams back in");
        self.goaway = Some((last_stream, code));
        self.failed = code != ErrorCode::NO_ERROR;
    }

    /// A response that is not over.
    fn live(&mut self, stream: u32) -> &mut Response {
        let response = self.responses.entry(stream).or_default();
        let over = response.ended || response.over;
        assert!(!over, "a frame on stream {stream}, which is over");
        response
    }

    fn stream_frame(&mut self, head: FrameHead, frame: Frame<'_>) {
        let stream = head.stream;
        match frame {
            Frame::Data { data, end_stream } => {
                if let Some(ledger) = &mut self.ledger {
                    ledger.received(stream, head.length as usize);
                }
                let response = self.live(stream);
                assert!(response.http_status.is_some(), "DATA before HEADERS");
                response.content.extend_from_slice(data);
                response.ended = end_stream;
                note_size("content", response.content.len());
            }
            Frame::Headers {
                fragment,
                end_stream,
                end_headers,
                ..
            } => {
                self.block = Some((stream, end_stream, fragment.to_vec()));
                self.end_block(end_headers);
            }
            Frame::Continuation {
                fragment,
                end_headers,
            } => {
                let block = self.block.as_mut().expect("CONTINUATION after nothing");
                block.2.extend_from_slice(fragment);
                self.end_block(end_headers);
            }
            frame => unreachable!("a server that sends {frame:?}"),
        }
    }

    fn end_block(&mut self, end_headers: bool) {
        let Some((stream, end_stream, block)) = self.block.take_if(|_| end_headers) else {
            return;
        };
        if let Some(ledger) = &mut self.ledger {
            ledger.check_block(&block);
        }
        let decoded = self.decoder.decode(&block, &mut self.fields, 1 << 20);
        assert!(decoded.is_ok(), "{decoded:?} of {block:02x?}");
        let number = |name: &[u8]| {
            let text = str::from_utf8(self.fields.value(name)?).ok()?;
            text.parse::<u16>().ok()
        };
        let (http_status, grpc_status) = (number(b":status"), number(b"grpc-status"));
        let pseudo = self
            .fields
            .iter()
            .filter(|(name, _)| name.starts_with(b":"));
        let pseudo = pseudo.count();
        let response = self.live(stream);
        if response.http_status.is_none() {
            assert_eq!(pseudo, 1, "a response without :status, or with more");
            assert!(http_status.is_some(), "a :status that is none");
            response.http_status = http_status;
        } else {
            assert_eq!(pseudo, 0, "trailers with pseudo-header fields");
            assert!(end_stream, "trailers that do not end the stream");
        }
        response.ended = end_stream;
        if let Some(status) = grpc_status {
            note(("status", status));
            response.grpc_status = u8::try_from(status).ok();
        }
    }
}
