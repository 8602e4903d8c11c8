mod abuse;
mod ahead;
mod blocks;
mod conversation;
mod flow;
mod patterns;
mod protocol;
mod random;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::frame::{
    PREFACE, begin_frame, end_frame, write_ping, write_settings, write_settings_ack,
    write_window_update,
};
use crate::hpack::write_literal;
use crate::testing::{shared, start};

/// Answers every request with its own content, and writes down what it saw.
#[derive(Default)]
struct Echo {
    bodies: BTreeMap<u32, Vec<u8>>,
    events: Vec<String>,
    /// Requests are left open.
    silent: bool,
    /// Heads that were looked at.
    routed: usize,
    /// Heads that were like one before.
    rerouted: usize,
    /// The fields of the last head.
    fields: Fields,
    /// Contents that it looks at when it is told of those that come; 0 of none.
    looks_at: usize,
    /// How often it was told.
    told: usize,
}

impl Echo {
    fn answer(&mut self, core: &mut Core, key: StreamKey) {
        if self.silent {
            return;
        }
        let body = self.bodies.remove(&key.id).unwrap_or_default();
        core.send_headers(key, End::Open, |block| block.status(200));
        let mark = core.begin_data();
        core.output().extend_from_slice(&body);
        core.end_data(key, mark);
        core.send_trailers(key, |block| block.field(b"t", b"v"));
    }
}

impl Application for Echo {
    type Route = Vec<u8>;

    fn unreadable(&mut self, core: &mut Core, key: StreamKey, fault: HeadFault) {
        core.send_headers(key, End::Stream, |block| block.status(fault.http_status()));
    }

    fn route(&mut self, head: &Head) -> Vec<u8> {
        self.routed += 1;
        head.path().to_vec()
    }

    fn reroute(&mut self, known: &Vec<u8>, head: &Head, changes: &Changes) -> Vec<u8> {
        self.rerouted += 1;
        for (field, value) in changes.iter() {
            assert_eq!(head.fields.at(field).unwrap().1, value);
        }
        known.clone()
    }

    fn request(
        &mut self,
        core: &mut Core,
        key: StreamKey,
        head: Arc<Head>,
        route: Vec<u8>,
        end: End,
    ) {
        assert_eq!(route, head.path());
        self.fields.clone_from(&head.fields);
        let path = String::from_utf8_lossy(&route).into_owned();
        self.events.push(format!("{} {path} {end:?}", key.id));
        core.recycle(head);
        self.bodies.insert(key.id, Vec::new());
        if end == End::Stream {
            self.answer(core, key);
        }
    }

    fn expect(&mut self, coming: Coming<'_, '_>) {
        self.told += 1;
        let seen = coming.take(self.looks_at);
        let seen = seen.map(|it| format!("expects {}", String::from_utf8_lossy(it)));
        self.events.extend(seen);
    }

    fn data(&mut self, core: &mut Core, key: StreamKey, data: &[u8], end: End) {
        core.consumed(key, u32::try_from(data.len()).unwrap());
        self.bodies
            .get_mut(&key.id)
            .unwrap()
            .extend_from_slice(data);
        if end == End::Stream {
            self.answer(core, key);
        }
    }

    fn trailers(&mut self, core: &mut Core, key: StreamKey, trailers: &Fields) {
        self.events
            .push(format!("{} trailers {}", key.id, trailers.len()));
        self.answer(core, key);
    }

    fn drained(&mut self, _: &mut Core, _: StreamKey) {}

    fn gone(&mut self, _: &mut Core, key: StreamKey) {
        self.events.push(format!("{} gone", key.id));
        self.bodies.remove(&key.id);
    }
}

fn connection(limits: Limits) -> Connection<Echo> {
    Connection::new(
        Echo::default(),
        Arc::new(limits.in_range()),
        shared(),
        start(),
        100,
    )
}

/// A connection that has greeted, with its first output taken away.
fn greeted(limits: Limits) -> Connection<Echo> {
    let mut connection = connection(limits);
    receive(&mut connection, &greeting(&[]));
    connection.output_mut().clear();
    connection
}

fn greeting(settings: &[(SettingId, u32)]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    write_settings(&mut bytes, settings);
    write_settings_ack(&mut bytes);
    bytes
}

use crate::frame::SettingId;

fn receive(connection: &mut Connection<Echo>, bytes: &[u8]) {
    receive_at(connection, bytes, Duration::ZERO);
}

/// Gives all of `bytes`, in as many turns as it takes.
fn receive_at(connection: &mut Connection<Echo>, mut bytes: &[u8], after: Duration) {
    loop {
        let received = connection.receive(bytes, start() + after);
        bytes = &bytes[received.consumed..];
        if !received.more {
            return;
        }
        assert!(received.consumed > 0 || !connection.output_mut().is_empty());
        if connection.output_mut().len() > 1 << 20 {
            panic!("the output has no limit");
        }
        // The socket takes everything.
        TAKEN.with_borrow_mut(|taken| taken.append(connection.output_mut()));
        connection.wrote(0, start() + after);
    }
}

thread_local! {
    /// Output that left between two turns.
    static TAKEN: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn raw(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let at = begin_frame(&mut out);
    out.extend_from_slice(payload);
    end_frame(&mut out, at, kind, flags, stream);
    out
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        write_literal(&mut out, name.as_bytes(), value.as_bytes());
    }
    out
}

const REQUEST: &[(&str, &str)] = &[(":method", "POST"), (":scheme", "http"), (":path", "/p")];

fn headers(stream: u32, end: End) -> Vec<u8> {
    let flags = if end == End::Stream { 5 } else { 4 };
    raw(Kind::HEADERS, flags, stream, &block(REQUEST))
}

fn data(stream: u32, content: &[u8], end: End) -> Vec<u8> {
    raw(Kind::DATA, u8::from(end == End::Stream), stream, content)
}

fn reset(stream: u32) -> Vec<u8> {
    raw(Kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

/// The frames in an output, in words.
fn frames(mut out: &[u8]) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(head) = FrameHead::parse(out) {
        let end = FrameHead::BYTES + head.length as usize;
        let payload = &out[FrameHead::BYTES..end];
        let stream = head.stream;
        seen.push(match Frame::parse(head, payload).unwrap() {
            Frame::Headers { end_stream, .. } => format!("{stream} headers {end_stream}"),
            Frame::Data { data, end_stream } => {
                format!("{stream} data {} {end_stream}", data.len())
            }
            Frame::Reset(code) => format!("{stream} {code:?}"),
            Frame::GoAway { last_stream, code } => format!("goaway {last_stream} {code:?}"),
            Frame::SettingsAck => "settings ack".to_owned(),
            Frame::PingAck(_) => "ping ack".to_owned(),
            Frame::Ping(_) => "ping".to_owned(),
            Frame::WindowUpdate(by) => format!("{stream} window {by}"),
            other => format!("{other:?}"),
        });
        out = &out[end..];
    }
    assert!(out.is_empty());
    seen
}

fn output(connection: &mut Connection<Echo>) -> Vec<String> {
    let mut out = TAKEN.take();
    out.append(connection.output_mut());
    frames(&out)
}

/// Gives `bytes` to a connection that has greeted; what it sends, in words.
fn answers(bytes: &[Vec<u8>]) -> Vec<String> {
    let mut connection = greeted(Limits::default());
    receive(&mut connection, &bytes.concat());
    output(&mut connection)
}

fn at(milliseconds: u64) -> Instant {
    start() + Duration::from_millis(milliseconds)
}
