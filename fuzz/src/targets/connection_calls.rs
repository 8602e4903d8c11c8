//! A connection whose client keeps to the protocol, most of the time. Then every
//! call comes to its end, with the answer that it should have.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_transport::connection::End;
use larder_transport::error_codes::ErrorCode;
use larder_transport::frame::{
    Kind, PREFACE, SettingId, begin_frame, end_frame, flag, write_goaway, write_ping, write_reset,
    write_settings, write_window_update,
};

use crate::features::note;
use crate::harness::{
    ClientSettings, Lane, Ledger, Peer, Session, data_frame, expected_stream, frame, headers,
    headers_frame, prefixed, small_limits,
};
use crate::input::Input;

/// Steps of one input.
const MAX_STEPS: usize = 400;

const TYPED: [&str; 7] = [
    "Echo",
    "Later",
    "Stream",
    "Fail",
    "Panic",
    "HalfPanic",
    "LatePanic",
];
const GENERAL: [&str; 5] = ["Mirror", "MirrorLater", "Panic", "Deaf", "Refuse"];

struct Call {
    lane: Lane,
    method: &'static str,
    /// What was sent of the request's content.
    content: Vec<u8>,
    request_ended: bool,
    reset: bool,
}

struct Client<'a> {
    input: Input<'a>,
    session: Session,
    calls: BTreeMap<u32, Call>,
    next_stream: u32,
    /// It has kept to the protocol so far.
    honest: bool,
    /// No call was given too little time.
    patient: bool,
    waited_ms: u64,
    leaves: bool,
}

/// Steps of a client, and of the time.
pub(crate) fn run(data: &[u8]) {
    let mut client = Client {
        input: Input::new(data),
        session: Session::new(small_limits(), Peer::new(Some(Ledger::default()))),
        calls: BTreeMap::new(),
        next_stream: 1,
        honest: true,
        patient: true,
        waited_ms: 0,
        leaves: false,
    };
    client.greet();
    for _ in 0..MAX_STEPS {
        if client.input.is_empty() || !client.session.is_open() {
            break;
        }
        client.step();
        client.check();
    }
    client.finish();
}

impl Client<'_> {
    fn greet(&mut self) {
        let mut bytes = PREFACE.to_vec();
        write_settings(&mut bytes, &[]);
        self.ledger(|ledger| ledger.set(ClientSettings::default()));
        self.session.send(&bytes);
    }

    fn ledger<T: Default>(&mut self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        self.session
            .peer
            .ledger
            .as_mut()
            .map(act)
            .unwrap_or_default()
    }

    fn step(&mut self) {
        let mut out = Vec::new();
        match self.input.below(24) {
            0..=4 => self.open_call(&mut out),
            5..=8 => self.send_content(&mut out),
            9 => self.end_with_trailers(&mut out),
            10 => self.reset(&mut out),
            11 | 12 => self.open_window(&mut out),
            13 => self.change_settings(&mut out),
            14 => write_ping(&mut out, 0, *b"bandwith"),
            15 => self.session.settle(),
            16 => self.session.take(usize::from(self.input.word())),
            17 => self.wait(),
            18 => self.session.gate.open(),
            19 => self.session.gate.shut(),
            20 => self.session.gate.wake(),
            21 => self.leave(&mut out),
            22 => self.misbehave(&mut out),
            _ => {
                let most = 1 << self.input.below(12);
                self.session.deliver(most);
            }
        }
        self.session.send(&out);
        if self.input.one_in(2) {
            self.session.deliver(usize::MAX);
        }
    }

    fn open_call(&mut self, out: &mut Vec<u8>) {
        if self.leaves || self.calls.len() > 200 {
            return;
        }
        let (lane, method) = if self.input.one_in(3) {
            (Lane::General, self.input.pick(&GENERAL))
        } else {
            (Lane::Typed, self.input.pick(&TYPED))
        };
        let stream = self.next_stream;
        self.next_stream += 2 * (1 + u32::from(self.input.one_in(16)));
        let mut more: Vec<(&[u8], &[u8])> = Vec::new();
        match self.input.below(8) {
            1 => more.push((b"x-meta", b"value")),
            2 => more.push((b"grpc-timeout", b"20S")),
            3 => {
                more.push((b"grpc-timeout", b"1m"));
                self.patient = false;
            }
            _ => {}
        }
        let block = headers(lane, method, &more);
        let end = if self.input.one_in(8) {
            End::Stream
        } else {
            End::Open
        };
        if self.input.one_in(4) {
            self.write_in_parts(out, stream, &block, end);
        } else {
            headers_frame(out, stream, &block, end);
        }
        let call = Call {
            lane,
            method,
            content: Vec::new(),
            request_ended: end == End::Stream,
            reset: false,
        };
        self.calls.insert(stream, call);
    }

    fn write_in_parts(&mut self, out: &mut Vec<u8>, stream: u32, block: &[u8], end: End) {
        let mut parts = block.chunks(64).peekable();
        let mut kind = Kind::HEADERS;
        while let Some(part) = parts.next() {
            let start = begin_frame(out);
            let mut flags = 0;
            if kind == Kind::HEADERS && end == End::Stream {
                flags |= flag::END_STREAM;
            }
            let mut padding = 0;
            if kind == Kind::HEADERS && self.input.one_in(2) {
                flags |= flag::PADDED | flag::PRIORITY;
                padding = self.input.below(9);
                out.push(u8::try_from(padding).unwrap_or(0));
                out.extend_from_slice(&[0, 0, 0, 0, 15]);
            }
            if parts.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            out.extend_from_slice(part);
            out.resize(out.len() + padding, 0);
            end_frame(out, start, kind, flags, stream);
            kind = Kind::CONTINUATION;
        }
    }

    /// A call whose request goes on.
    fn pick_open(&mut self) -> Option<u32> {
        let open: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, call)| !call.request_ended && !call.reset)
            .map(|(&stream, _)| stream)
            .collect();
        (!open.is_empty()).then(|| self.input.pick(&open))
    }

    fn message(&mut self) -> Vec<u8> {
        let length = match self.input.below(8) {
            0 => 0,
            1 => usize::from(self.input.word()) % 40_000,
            _ => self.input.below(64),
        };
        let mut message = self.input.take(length.min(16)).to_vec();
        message.resize(length, b'.');
        prefixed(&message)
    }

    fn send_content(&mut self, out: &mut Vec<u8>) {
        let Some(stream) = self.pick_open() else {
            return;
        };
        let is_new = self.calls[&stream].content.is_empty();
        let mut content = match self.input.below(8) {
            0 => Vec::new(),
            1 => self.input.take(20).to_vec(),
            _ if is_new => self.message(),
            _ => return self.end_with_data(out, stream),
        };
        let allowed = self.ledger(|ledger| ledger.spend(stream, content.len()));
        content.truncate(allowed);
        for part in content.chunks(1 + usize::from(self.input.word()) % 16_384) {
            data_frame(out, stream, part, End::Open);
        }
        if let Some(call) = self.calls.get_mut(&stream) {
            call.content.extend(content);
        }
        if self.input.one_in(2) {
            self.end_with_data(out, stream);
        }
    }

    fn end_with_data(&mut self, out: &mut Vec<u8>, stream: u32) {
        let padding = self.input.below(32);
        let padded = self.ledger(|ledger| ledger.spend(stream, padding)) == padding;
        if padding > 1 && padded {
            // The pad length counts, too.
            let mut payload = vec![0; padding];
            payload[0] = u8::try_from(padding - 1).unwrap_or(0);
            let flags = flag::PADDED | flag::END_STREAM;
            frame(out, Kind::DATA, flags, stream, &payload);
        } else {
            data_frame(out, stream, b"", End::Stream);
        }
        self.ended(stream);
    }

    fn ended(&mut self, stream: u32) {
        if let Some(call) = self.calls.get_mut(&stream) {
            call.request_ended = true;
        }
    }

    fn end_with_trailers(&mut self, out: &mut Vec<u8>) {
        // The server remembers a number of streams that it has closed: trailers
        // for older ones would be an error.
        if let Some(stream) = self.pick_open().filter(|_| self.calls.len() < 60) {
            let mut block = Vec::new();
            larder_transport::hpack::write_literal(&mut block, b"x-trailer", b"v");
            headers_frame(out, stream, &block, End::Stream);
            self.ended(stream);
        }
    }

    fn reset(&mut self, out: &mut Vec<u8>) {
        let live: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, call)| !call.reset)
            .map(|(&stream, _)| stream)
            .collect();
        if live.is_empty() {
            return;
        }
        let stream = self.input.pick(&live);
        write_reset(out, stream, ErrorCode::CANCEL);
        if let Some(call) = self.calls.get_mut(&stream) {
            call.reset = true;
        }
    }

    fn open_window(&mut self, out: &mut Vec<u8>) {
        let streams: Vec<u32> = self.calls.keys().copied().chain([0]).collect();
        let stream = self.input.pick(&streams);
        let bytes = match self.input.below(4) {
            0 => 1,
            1 => u32::from(self.input.word()) + 1,
            2 => 1 << 20,
            _ => 1 << self.input.below(24),
        };
        self.grant(out, stream, bytes);
    }

    fn grant(&mut self, out: &mut Vec<u8>, stream: u32, bytes: u32) {
        let bytes = bytes.min(self.ledger(|ledger| ledger.room(stream)));
        if bytes > 0 {
            write_window_update(out, stream, bytes);
            self.ledger(|ledger| ledger.grant(stream, bytes));
        }
    }

    fn change_settings(&mut self, out: &mut Vec<u8>) {
        let mut settings = self
            .session
            .peer
            .ledger
            .as_ref()
            .map(Ledger::newest)
            .unwrap_or_default();
        match self.input.below(3) {
            0 => {
                let windows = [0, 1, 100, 65_535, 1 << 20, 1 << 24];
                settings.initial_window_bytes = self.input.pick(&windows);
            }
            1 => {
                let frames = [16_384, 16_385, 65_536, (1 << 24) - 1];
                settings.max_frame_bytes = self.input.pick(&frames);
            }
            _ => settings.header_table_bytes = self.input.pick(&[0, 100, 256, 4096, 1 << 16]),
        }
        self.set(out, settings);
    }

    fn set(&mut self, out: &mut Vec<u8>, settings: ClientSettings) {
        let list = [
            (
                SettingId::INITIAL_WINDOW_SIZE,
                settings.initial_window_bytes,
            ),
            (SettingId::MAX_FRAME_SIZE, settings.max_frame_bytes),
            (SettingId::HEADER_TABLE_SIZE, settings.header_table_bytes),
            (SettingId(0xf00d), 1),
        ];
        write_settings(out, &list);
        self.ledger(|ledger| ledger.set(settings));
    }

    fn wait(&mut self) {
        let ms = match self.input.below(4) {
            0 => u64::from(self.input.byte()),
            1 => u64::from(self.input.word()),
            2 => 61_000,
            _ => 1,
        };
        self.waited_ms += ms;
        // Less than anything that has a limit of its own.
        self.patient &= self.waited_ms < 5000;
        self.session.advance(Duration::from_millis(ms));
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        if self.input.one_in(4) {
            if self.input.one_in(2) {
                write_goaway(out, 0, ErrorCode::NO_ERROR, "");
            } else {
                self.session.drain();
            }
            self.leaves = true;
        }
    }

    /// Anything at all. From now on nothing is expected but that it is survived.
    fn misbehave(&mut self, out: &mut Vec<u8>) {
        if !self.input.one_in(8) {
            return;
        }
        self.honest = false;
        let ledger = self.session.peer.ledger.take();
        drop(ledger);
        let kind = Kind(self.input.byte() % 12);
        let stream = u32::from(self.input.byte() % 16);
        let flags = self.input.byte();
        let length = self.input.below(32);
        let payload = self.input.take(length);
        frame(out, kind, flags, stream, payload);
    }

    /// A client that keeps to the protocol is not told otherwise.
    fn check(&self) {
        let Some(failure) = self.session.failure() else {
            return;
        };
        let told = matches!(
            failure.code,
            ErrorCode::ENHANCE_YOUR_CALM | ErrorCode::SETTINGS_TIMEOUT | ErrorCode::NO_ERROR
        );
        let late = failure.why == "no connection preface in time";
        assert!(!self.honest || told || late, "{failure:?}");
    }

    /// The client ends its requests, opens its windows, and takes everything.
    fn finish(&mut self) {
        self.session.settle();
        if self.honest {
            let mut out = Vec::new();
            let settings = ClientSettings {
                initial_window_bytes: 1 << 24,
                ..ClientSettings::default()
            };
            self.set(&mut out, settings);
            self.grant(&mut out, 0, 1 << 28);
            let streams: Vec<u32> = self.calls.keys().copied().collect();
            for stream in streams {
                let call = &self.calls[&stream];
                let over = call.reset || self.session.peer.response(stream).is_over();
                if !call.request_ended && !over {
                    data_frame(&mut out, stream, b"", End::Stream);
                    self.ended(stream);
                }
            }
            self.session.gate.open();
            self.session.send(&out);
            self.session.settle();
            self.check();
            if self.session.failure().is_none() {
                self.check_answers();
            }
        }
        self.session.lost();
    }

    fn check_answers(&self) {
        let streams = self.session.streams();
        assert!(
            !self.session.is_open() || streams == 0,
            "{streams} calls hang"
        );
        let last = self.session.peer.last_stream().unwrap_or(u32::MAX);
        for (&stream, call) in &self.calls {
            if !call.reset && stream <= last && self.session.is_open() {
                self.check_answer(stream, call);
            }
        }
    }

    fn check_answer(&self, stream: u32, call: &Call) {
        let got = self.session.peer.response(stream);
        assert!(got.is_over(), "{} has no answer", call.method);
        if got.reset == Some(ErrorCode::REFUSED_STREAM) && !got.ended {
            return;
        }
        // It kept its window shut for too long.
        if got.reset == Some(ErrorCode::ENHANCE_YOUR_CALM) && !self.patient {
            return;
        }
        if call.lane == Lane::General {
            let failed = matches!(call.method, "Panic" | "Refuse");
            assert_eq!(got.ended, !failed, "{}: {got:?}", call.method);
            if call.method.starts_with("Mirror") {
                assert!(got.content == call.content, "another body than was sent");
            }
            return;
        }
        let (status, content) = expected(call);
        let others: &[u8] = if self.patient { &[8] } else { &[8, 4] };
        let got_status = got.grpc_status.unwrap_or(u8::MAX);
        note((call.method, got_status));
        let known = got_status == status || others.contains(&got_status);
        assert!(known && got.ended, "{}: {got:?}, not {status}", call.method);
        if got_status == status
            && let Some(content) = content
        {
            assert!(got.content == content, "another answer than expected");
        }
    }
}

/// The status of a call, and the content if there is any that is certain.
fn expected(call: &Call) -> (u8, Option<Vec<u8>>) {
    let Some((prefix, message)) = call.content.split_first_chunk::<5>() else {
        return (if call.content.is_empty() { 12 } else { 13 }, None);
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if flag != 0 {
        return (13, None);
    }
    if length > 32 * 1024 {
        return (8, None);
    }
    match message.len().cmp(&length) {
        std::cmp::Ordering::Less => return (13, None),
        std::cmp::Ordering::Greater => return (12, None),
        std::cmp::Ordering::Equal => {}
    }
    match call.method {
        "Echo" | "Later" => (0, Some(call.content.clone())),
        "Stream" => {
            let part = |at: usize| message.get(at).copied().unwrap_or(0);
            (0, Some(expected_stream(part(0), part(1))))
        }
        "Fail" => (5, Some(Vec::new())),
        _ => (13, None),
    }
}
