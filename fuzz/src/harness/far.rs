//! The server's end of a client's connection: reads what the client sends, and checks
//! that a client may send it.

use std::collections::{BTreeMap, VecDeque};

use larder_transport::frame::{
    Frame, FrameHead, Kind, PREFACE, flag, write_ping, write_settings_ack,
};
use larder_transport::hpack::{Decoder, Fields};

use super::ledger::Ledger;
use crate::features::{note, note_size};

/// A request, as far as it has come.
#[derive(Debug, Default)]
pub struct Asked {
    /// The number of its caller: its path.
    pub number: usize,
    /// The content.
    pub content: Vec<u8>,
    /// It is complete.
    pub ended: bool,
    /// The client reset it.
    pub reset: bool,
    /// The server has said its last word on it.
    pub answered: bool,
}

/// A server that reads.
pub struct Far {
    bytes: Vec<u8>,
    greeted: bool,
    said_goodbye: bool,
    decoder: Decoder,
    fields: Fields,
    /// A block that goes on: its stream, whether it ends it, and its fragments.
    block: Option<(u32, bool, Vec<u8>)>,
    /// By their streams.
    pub requests: BTreeMap<u32, Asked>,
    /// Flow control and settings; `None` for a server that keeps to nothing.
    pub ledger: Option<Ledger>,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`, as acknowledged and as sent since.
    pub max_streams: VecDeque<usize>,
    /// Frames that the server is to answer with: acknowledgements.
    pub answers: Vec<u8>,
}

impl Far {
    /// A server that has read nothing yet.
    #[must_use]
    pub fn new(ledger: Option<Ledger>) -> Self {
        Self {
            bytes: Vec::new(),
            greeted: false,
            said_goodbye: false,
            decoder: Decoder::new(4096),
            fields: Fields::default(),
            block: None,
            requests: BTreeMap::new(),
            ledger,
            max_streams: VecDeque::from([usize::MAX]),
            answers: Vec::new(),
        }
    }

    /// Reads what the client sent.
    pub fn read(&mut self, bytes: &[u8]) {
        let mut all = std::mem::take(&mut self.bytes);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        if !self.greeted {
            let Some(after) = rest.strip_prefix(PREFACE) else {
                assert!(
                    PREFACE.starts_with(rest),
                    "it does not begin with the preface"
                );
                self.bytes = all;
                return;
            };
            rest = after;
        }
        while let Some(head) = FrameHead::parse(rest) {
            let end = FrameHead::BYTES + head.length as usize;
            let Some(payload) = rest.get(FrameHead::BYTES..end) else {
                break;
            };
            self.frame(head, payload);
            rest = &rest[end..];
        }
        // A preface without a frame comes again.
        self.bytes = if self.greeted { rest.to_vec() } else { all };
    }

    /// Requests that are neither over nor answered.
    #[must_use]
    pub fn open(&self) -> Vec<u32> {
        let is_open = |asked: &Asked| !asked.reset && !asked.answered;
        let open = self.requests.iter().filter(|(_, asked)| is_open(asked));
        open.map(|(&stream, _)| stream).collect()
    }

    fn frame(&mut self, head: FrameHead, payload: &[u8]) {
        if let Some(ledger) = &self.ledger {
            ledger.check_frame(payload.len());
        }
        assert!(!self.said_goodbye, "{head:?} after the connection's end");
        let first = self.greeted || head.kind == Kind::SETTINGS;
        assert!(first, "{head:?} first");
        self.greeted = true;
        if let Some((stream, ..)) = &self.block {
            let goes_on = head.kind == Kind::CONTINUATION && head.stream == *stream;
            assert!(goes_on, "{head:?} inside a field block");
        }
        note(("client", head.kind.0, head.flags & 0x2d));
        let parsed = Frame::parse(head, payload);
        let frame = parsed.unwrap_or_else(|fault| unreachable!("{head:?}: {fault}"));
        match frame {
            Frame::Settings(_) => write_settings_ack(&mut self.answers),
            Frame::SettingsAck => self.acknowledged(),
            Frame::Ping(data) => write_ping(&mut self.answers, flag::ACK, data),
            Frame::PingAck(_) => {}
            Frame::GoAway { code, .. } => {
                note(("goaway", code));
                self.said_goodbye = true;
            }
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
                self.live(head.stream).reset = true;
            }
            Frame::Data { data, end_stream } => {
                if let Some(ledger) = &mut self.ledger {
                    ledger.received(head.stream, head.length as usize);
                }
                let asked = self.sending(head.stream);
                asked.content.extend_from_slice(data);
                asked.ended = end_stream;
                note_size("content", asked.content.len());
            }
            Frame::Headers {
                fragment,
                end_stream,
                end_headers,
                ..
            } => {
                self.block = Some((head.stream, end_stream, fragment.to_vec()));
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
            frame => unreachable!("a client that sends {frame:?}"),
        }
    }

    fn acknowledged(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.acknowledged();
            self.max_streams.pop_front();
        }
    }

    /// A request that the client has not reset.
    fn live(&mut self, stream: u32) -> &mut Asked {
        let asked = self.requests.get_mut(&stream);
        let asked = asked.unwrap_or_else(|| unreachable!("stream {stream} is idle"));
        assert!(!asked.reset, "a frame on stream {stream}, which is over");
        asked
    }

    /// A request that has not ended.
    fn sending(&mut self, stream: u32) -> &mut Asked {
        let asked = self.live(stream);
        assert!(!asked.ended, "content on stream {stream}, which has ended");
        asked
    }

    fn end_block(&mut self, end_headers: bool) {
        let Some((stream, ended, block)) = self.block.take_if(|_| end_headers) else {
            return;
        };
        if let Some(ledger) = &mut self.ledger {
            ledger.check_block(&block);
            let most = self.max_streams.iter().max().copied().unwrap_or(usize::MAX);
            let open = self.open().len();
            assert!(open < most, "{open} calls are open of {most}");
        }
        let decoded = self.decoder.decode(&block, &mut self.fields, 1 << 20);
        assert!(decoded.is_ok(), "{decoded:?} of {block:02x?}");
        let path = self.fields.value(b":path").unwrap_or_default();
        let number = str::from_utf8(path)
            .ok()
            .and_then(|path| path[1..].parse().ok());
        let last = self.requests.keys().next_back().copied().unwrap_or(0);
        assert!(stream > last && stream % 2 == 1, "{stream} after {last}");
        let asked = Asked {
            number: number.expect("a path is a number"),
            ended,
            ..Asked::default()
        };
        self.requests.insert(stream, asked);
    }
}
