//! Calls, without a socket.

mod calls;
mod random;
mod refusals;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::connection::Connection;
use crate::frame::{
    Frame, FrameHead, Kind, PREFACE, SettingId, begin_frame, end_frame, write_settings,
    write_settings_ack,
};
use crate::hpack::{Decoder, Fields, write_literal};
use crate::limits::Limits;
use crate::testing::service::{Methods, Mirror};
use crate::testing::{shared, start};

/// What came back on one stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    headers: String,
    content: Vec<u8>,
    trailers: String,
    ended: bool,
    reset: Option<String>,
}

/// A client that does as little as it must.
struct Client {
    connection: Connection<Rpc<Methods, Mirror>>,
    methods: Methods,
    decoder: Decoder,
    answers: BTreeMap<u32, Answer>,
    next: u32,
    now: Duration,
}

impl Client {
    fn new(limits: Limits) -> Self {
        Self::with_window(limits, 65_535)
    }

    /// A client whose streams have windows of `window` bytes.
    fn with_window(limits: Limits, window: u32) -> Self {
        let methods = Methods::default();
        let rpc = Rpc::new(methods.clone(), Mirror);
        let limits = Arc::new(limits.in_range());
        let mut client = Self {
            connection: Connection::new(rpc, limits, shared(), start(), 0),
            methods,
            decoder: Decoder::new(4096),
            answers: BTreeMap::new(),
            next: 1,
            now: Duration::ZERO,
        };
        let mut greeting = PREFACE.to_vec();
        let window = (SettingId::INITIAL_WINDOW_SIZE, window);
        write_settings(&mut greeting, &[window]);
        write_settings_ack(&mut greeting);
        client.send(&greeting);
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        let now = start() + self.now;
        let received = self.connection.receive(bytes, now);
        assert_eq!((received.consumed, received.more), (bytes.len(), false));
        self.turn();
    }

    /// Lets calls go on, and reads what is sent, until there is nothing.
    fn turn(&mut self) {
        let now = start() + self.now;
        loop {
            self.connection
                .with_app(now, |app, core| app.poll(core, Waker::noop()));
            let out = std::mem::take(self.connection.output_mut());
            if out.is_empty() {
                return;
            }
            self.read(&out);
            self.connection.wrote(0, now);
        }
    }

    fn read(&mut self, mut out: &[u8]) {
        while let Some(head) = FrameHead::parse(out) {
            let end = FrameHead::BYTES + head.length as usize;
            let payload = &out[FrameHead::BYTES..end];
            out = &out[end..];
            let answer = self.answers.entry(head.stream).or_default();
            match Frame::parse(head, payload).unwrap() {
                Frame::Headers {
                    fragment,
                    end_stream,
                    ..
                } => {
                    let mut fields = Fields::default();
                    self.decoder.decode(fragment, &mut fields, 1 << 20).unwrap();
                    let text: Vec<String> = fields
                        .iter()
                        .map(|(name, value)| {
                            let [name, value] = [name, value].map(String::from_utf8_lossy);
                            format!("{name}={value}")
                        })
                        .collect();
                    if answer.headers.is_empty() {
                        answer.headers = text.join(" ");
                    } else {
                        answer.trailers = text.join(" ");
                    }
                    answer.ended |= end_stream;
                }
                Frame::Data { data, end_stream } => {
                    answer.content.extend_from_slice(data);
                    answer.ended |= end_stream;
                }
                Frame::Reset(code) => answer.reset = Some(format!("{code:?}")),
                _ => {}
            }
        }
    }

    /// Begins a call; returns its stream.
    fn begin(&mut self, method: &str, more: &[(&str, &str)]) -> u32 {
        let path = format!("/t.T/{method}");
        let head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", &path[..]),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let mut block = Vec::new();
        for (name, value) in head.iter().chain(more) {
            write_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        let stream = self.next;
        self.next += 2;
        self.send(&frame(Kind::HEADERS, 4, stream, &block));
        stream
    }

    fn call(&mut self, method: &str, more: &[(&str, &str)], message: &[u8]) -> Answer {
        let stream = self.begin(method, more);
        self.send(&frame(Kind::DATA, 1, stream, &prefixed(message)));
        self.answer(stream)
    }

    fn answer(&mut self, stream: u32) -> Answer {
        self.answers.remove(&stream).unwrap_or_default()
    }

    /// Time passes.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        let now = start() + self.now;
        self.connection.with_app(now, Rpc::on_time);
        assert!(self.connection.on_time(now));
        self.turn();
    }
}

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let at = begin_frame(&mut out);
    out.extend_from_slice(payload);
    end_frame(&mut out, at, kind, flags, stream);
    out
}

fn prefixed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message);
    out
}

const HEAD: &str = ":status=200 content-type=application/grpc";

/// A whole answer.
fn answer(message: &[u8]) -> Answer {
    Answer {
        headers: HEAD.to_owned(),
        content: prefixed(message),
        trailers: "grpc-status=0".to_owned(),
        ended: true,
        reset: None,
    }
}

/// An answer without a message.
fn trailers_only(fields: &str) -> Answer {
    Answer {
        headers: format!("{HEAD} {fields}"),
        ended: true,
        ..Answer::default()
    }
}
