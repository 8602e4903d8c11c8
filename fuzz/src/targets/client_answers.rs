//! A connection in the client's role whose server keeps to the protocol, most of the time.
//! Then every call ends with what that server said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use larder_transport::client::{Closed, Failed};
use larder_transport::connection::End as Flow;
use larder_transport::error_codes::ErrorCode;
use larder_transport::frame::{
    Kind, SettingId, flag, write_goaway, write_ping, write_reset, write_settings,
    write_window_update,
};
use larder_transport::hpack::write_literal;

use crate::features::note;
use crate::harness::{
    Caller, ClientSettings, Ended, Far, Ledger, MAX_REQUEST_BYTES, Near, data_frame, frame,
    headers_frame, on_a_stopped_clock, prefixed,
};
use crate::input::Input;

/// Steps of one input.
const MAX_STEPS: usize = 300;
/// Calls of one input.
const MAX_CALLS: usize = 100;
/// Frames of a flood.
const FLOOD: usize = 10_000;
/// Bytes of one message of the server's.
const MAX_ANSWER_BYTES: usize = 30_000;

/// The server's last word on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Status(u8),
    Reset(ErrorCode),
    Http(u16),
}

/// What the server has sent on a stream.
#[derive(Default)]
struct Answer {
    has_head: bool,
    messages: Vec<Vec<u8>>,
    said: Option<Said>,
}

struct Talk<'a> {
    input: Input<'a>,
    near: Near,
    far: Far,
    /// By the numbers of their callers.
    answers: BTreeMap<usize, Answer>,
    unary: BTreeSet<usize>,
    settings: ClientSettings,
    max_streams: u32,
    /// It has said that it goes away, and the last stream that it acts on.
    last_stream: Option<u32>,
    /// It has kept to the protocol so far.
    honest: bool,
    /// What the server sent and the client has not got.
    wire: Vec<u8>,
}

/// Steps of a server, of the callers, and of the time.
pub(crate) fn run(data: &[u8]) {
    on_a_stopped_clock(async {
        let mut talk = Talk::new(data);
        talk.greet();
        for _ in 0..MAX_STEPS {
            if talk.input.is_empty() || talk.near.closed.is_some() {
                break;
            }
            talk.step().await;
        }
        talk.finish().await;
    });
}

impl<'a> Talk<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            input: Input::new(data),
            near: Near::default(),
            far: Far::new(Some(Ledger::default())),
            answers: BTreeMap::new(),
            unary: BTreeSet::new(),
            settings: ClientSettings::default(),
            max_streams: u32::MAX,
            last_stream: None,
            honest: true,
            wire: Vec::new(),
        }
    }

    fn ledger<T: Default>(&mut self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        self.far.ledger.as_mut().map(act).unwrap_or_default()
    }

    fn greet(&mut self) {
        self.near.pipe.make_room(4096);
        self.near.run();
        if self.input.one_in(4) {
            // Calls wait for the settings.
            self.call();
        }
        self.set();
    }

    async fn step(&mut self) {
        match self.input.below(24) {
            0..=3 => self.call(),
            4..=7 => self.answer(),
            8 => self.send_message(),
            9 => self.refuse(),
            10 => self.ask(Caller::send),
            11 => self.ask(|caller, _| caller.finish()),
            12 => self.leave_a_call(),
            13 => self.ask(|caller, _| caller.read_on()),
            14 => self.open_window(),
            15 => self.change_settings(),
            16 => write_ping(&mut self.wire, 0, *b"bandwith"),
            17 => self.near.pipe.make_room(usize::from(self.input.word())),
            18 => self.wait().await,
            19 => self.leave(),
            20 => self.misbehave(),
            21 => self.settle(),
            _ => {
                let most = 1 << self.input.below(12);
                self.deliver(most);
            }
        }
        if self.input.one_in(2) {
            self.deliver(usize::MAX);
        }
        self.near.run();
        self.look();
    }

    /// The server reads what the client wrote, and has its acknowledgements ready.
    fn look(&mut self) {
        self.far.read(&self.near.pipe.take());
        self.wire.append(&mut self.far.answers);
        self.act_on_no_more();
        let fault = match &self.near.closed {
            Some(Closed::Fault(code, why)) => Some((*code, *why)),
            _ => None,
        };
        assert!(!self.honest || fault.is_none(), "{fault:?}");
    }

    fn deliver(&mut self, most: usize) {
        let count = most.min(self.wire.len());
        let bytes: Vec<u8> = self.wire.drain(..count).collect();
        self.near.deliver(&bytes);
        self.look();
    }

    /// Everything leaves and comes, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.near.pipe.make_room(1 << 20);
            self.near.run();
            self.look();
            if self.wire.is_empty() {
                return;
            }
            self.deliver(usize::MAX);
        }
        unreachable!("it never rests");
    }

    fn call(&mut self) {
        if self.near.callers.len() >= MAX_CALLS {
            return;
        }
        let within = match self.input.below(8) {
            0 => Some(Duration::from_millis(1 + u64::from(self.input.byte()))),
            1 => Some(Duration::from_secs(7)),
            _ => None,
        };
        let message = self.message(MAX_REQUEST_BYTES);
        let number = self.near.callers.len();
        if self.input.one_in(3) {
            self.near.stream(within);
            let reads = !self.input.one_in(4);
            if let Some(caller) = self.near.callers.last_mut() {
                caller.reads = reads;
                caller.send(message);
            }
        } else {
            self.unary.insert(number);
            self.near.unary(&message, within);
        }
        self.near.run();
    }

    fn message(&mut self, most: usize) -> Vec<u8> {
        let length = match self.input.below(8) {
            0 => 0,
            1 => usize::from(self.input.word()) % most,
            _ => self.input.below(64),
        };
        let mut message = self.input.take(length.min(8)).to_vec();
        message.resize(length, b'.');
        message
    }

    /// One of the callers does something.
    fn ask(&mut self, act: impl FnOnce(&mut Caller, Vec<u8>)) {
        let message = self.message(20_000);
        let count = self.near.callers.len().min(256);
        if count > 0 {
            let number = self.input.below(count);
            act(&mut self.near.callers[number], message);
        }
    }

    fn leave_a_call(&mut self) {
        match self.input.one_in(2) {
            true => self.ask(|caller, _| caller.give_up()),
            false => self.ask(|caller, _| caller.cut()),
        }
    }

    /// A request that the server may still say something on.
    fn pick(&mut self) -> Option<(u32, usize)> {
        let open = self.far.open();
        let stream = (!open.is_empty()).then(|| self.input.pick(&open))?;
        Some((stream, self.far.requests[&stream].number))
    }

    fn head(&mut self, stream: u32, number: usize) {
        let answer = self.answers.entry(number).or_default();
        if std::mem::replace(&mut answer.has_head, true) {
            return;
        }
        if self.input.one_in(16) {
            let mut interim = Vec::new();
            write_literal(&mut interim, b":status", b"103");
            headers_frame(&mut self.wire, stream, &interim, Flow::Open);
        }
        let mut block = Vec::new();
        write_literal(&mut block, b":status", b"200");
        write_literal(&mut block, b"content-type", b"application/grpc");
        if self.input.one_in(4) {
            write_literal(&mut block, b"x-meta", b"value");
        }
        if self.input.one_in(4) {
            self.in_parts(stream, &block);
        } else {
            headers_frame(&mut self.wire, stream, &block, Flow::Open);
        }
    }

    fn in_parts(&mut self, stream: u32, block: &[u8]) {
        let (first, rest) = block.split_at(self.input.below(block.len()));
        let (second, third) = rest.split_at(self.input.below(rest.len()));
        frame(&mut self.wire, Kind::HEADERS, 0, stream, first);
        frame(&mut self.wire, Kind::CONTINUATION, 0, stream, second);
        let last = flag::END_HEADERS;
        frame(&mut self.wire, Kind::CONTINUATION, last, stream, third);
    }

    /// Sends a message, if the windows let the whole of it.
    fn content(&mut self, stream: u32, number: usize, message: Vec<u8>) -> bool {
        let content = prefixed(&message);
        let allowed = self.ledger(|ledger| ledger.spend(stream, content.len()));
        if allowed < content.len() {
            // What is cut can be no answer any more.
            data_frame(&mut self.wire, stream, &content[..allowed], Flow::Open);
            self.reset_with(stream, number, ErrorCode::INTERNAL_ERROR);
            return false;
        }
        for part in content.chunks(1 + usize::from(self.input.word()) % 16_384) {
            data_frame(&mut self.wire, stream, part, Flow::Open);
        }
        let answer = self.answers.entry(number).or_default();
        answer.messages.push(message);
        true
    }

    /// A message of a stream.
    fn send_message(&mut self) {
        let Some((stream, number)) = self.pick() else {
            return;
        };
        if !self.unary.contains(&number) {
            self.head(stream, number);
            let message = self.message(MAX_ANSWER_BYTES);
            self.content(stream, number, message);
        }
    }

    /// A whole answer, or the rest of one.
    fn answer(&mut self) {
        let Some((stream, number)) = self.pick() else {
            return;
        };
        let code = self.input.pick(&[0, 0, 0, 0, 5, 8, 14, 16]);
        self.answer_with(stream, number, code);
    }

    fn answer_with(&mut self, stream: u32, number: usize, code: u8) {
        let alone = code != 0 && self.input.one_in(2);
        let mut block = Vec::new();
        if alone && !self.answers.entry(number).or_default().has_head {
            write_literal(&mut block, b":status", b"200");
            write_literal(&mut block, b"content-type", b"application/grpc");
        } else {
            self.head(stream, number);
            let message = self.message(MAX_ANSWER_BYTES);
            let wants = code == 0 && self.unary.contains(&number);
            if wants && !self.content(stream, number, message) {
                return;
            }
        }
        write_literal(&mut block, b"grpc-status", code.to_string().as_bytes());
        if code != 0 {
            write_literal(&mut block, b"grpc-message", b"why%20not");
        }
        headers_frame(&mut self.wire, stream, &block, Flow::Stream);
        self.say(stream, number, Said::Status(code));
    }

    fn say(&mut self, stream: u32, number: usize, said: Said) {
        self.answers.entry(number).or_default().said = Some(said);
        if let Some(asked) = self.far.requests.get_mut(&stream) {
            asked.answered = true;
        }
    }

    /// An end that is no answer.
    fn refuse(&mut self) {
        let Some((stream, number)) = self.pick() else {
            return;
        };
        let has_head = self.answers.entry(number).or_default().has_head;
        if !has_head && self.input.one_in(3) {
            let mut block = Vec::new();
            write_literal(&mut block, b":status", b"502");
            headers_frame(&mut self.wire, stream, &block, Flow::Stream);
            return self.say(stream, number, Said::Http(502));
        }
        let codes = [
            ErrorCode::CANCEL,
            ErrorCode::REFUSED_STREAM,
            ErrorCode::INTERNAL_ERROR,
            ErrorCode(99),
        ];
        let code = self.input.pick(&codes);
        self.reset_with(stream, number, code);
    }

    fn reset_with(&mut self, stream: u32, number: usize, code: ErrorCode) {
        write_reset(&mut self.wire, stream, code);
        self.say(stream, number, Said::Reset(code));
    }

    fn open_window(&mut self) {
        let streams: Vec<u32> = self.far.open().into_iter().chain([0]).collect();
        let stream = self.input.pick(&streams);
        let bytes = 1 << self.input.below(20);
        self.grant(stream, bytes);
    }

    fn grant(&mut self, stream: u32, bytes: u32) {
        let bytes = bytes.min(self.ledger(|ledger| ledger.room(stream)));
        if bytes > 0 {
            write_window_update(&mut self.wire, stream, bytes);
            self.ledger(|ledger| ledger.grant(stream, bytes));
        }
    }

    fn change_settings(&mut self) {
        match self.input.below(4) {
            0 => {
                let windows = [0, 1, 100, 65_535, 1 << 20, 1 << 24];
                self.settings.initial_window_bytes = self.input.pick(&windows);
            }
            1 => {
                let frames = [16_384, 16_385, 65_536, (1 << 24) - 1];
                self.settings.max_frame_bytes = self.input.pick(&frames);
            }
            2 => self.settings.header_table_bytes = self.input.pick(&[0, 100, 4095, 4096]),
            _ => self.max_streams = self.input.pick(&[0, 1, 2, 50]),
        }
        self.set();
    }

    fn set(&mut self) {
        let settings = self.settings;
        let list = [
            (
                SettingId::INITIAL_WINDOW_SIZE,
                settings.initial_window_bytes,
            ),
            (SettingId::MAX_FRAME_SIZE, settings.max_frame_bytes),
            (SettingId::HEADER_TABLE_SIZE, settings.header_table_bytes),
            (SettingId::MAX_CONCURRENT_STREAMS, self.max_streams),
            (SettingId(0xf00d), 1),
        ];
        write_settings(&mut self.wire, &list);
        self.ledger(|ledger| ledger.set(settings));
        self.far.max_streams.push_back(self.max_streams as usize);
    }

    async fn wait(&mut self) {
        let ms = match self.input.below(4) {
            0 => u64::from(self.input.byte()),
            1 => u64::from(self.input.word()) % 20_000,
            2 => 1000,
            _ => 1,
        };
        self.near.advance(Duration::from_millis(ms)).await;
        self.look();
    }

    /// Either side wants to go away; calls under way go on.
    fn leave(&mut self) {
        if !self.input.one_in(4) {
            return;
        }
        if self.input.one_in(2) {
            return self.near.drain();
        }
        let streams: Vec<u32> = self.far.requests.keys().copied().chain([0]).collect();
        let last = self.input.pick(&streams);
        let last = last.min(self.last_stream.unwrap_or(u32::MAX));
        let code = self
            .input
            .pick(&[ErrorCode::NO_ERROR, ErrorCode::ENHANCE_YOUR_CALM]);
        write_goaway(&mut self.wire, last, code, "too_many_pings");
        self.last_stream = Some(last);
        self.act_on_no_more();
    }

    /// Nothing is said any more on what is above the last stream.
    fn act_on_no_more(&mut self) {
        let last = self.last_stream.unwrap_or(u32::MAX);
        for (&stream, asked) in &mut self.far.requests {
            if stream > last && !asked.answered {
                asked.answered = true;
                let said = Said::Reset(ErrorCode::REFUSED_STREAM);
                self.answers.entry(asked.number).or_default().said = Some(said);
            }
        }
    }

    /// Anything at all. From now on nothing is expected but that it is survived.
    fn misbehave(&mut self) {
        if !self.input.one_in(8) {
            return;
        }
        self.honest = false;
        self.far.ledger = None;
        if self.input.one_in(4) {
            return self.flood();
        }
        let kind = Kind(self.input.byte() % 12);
        let stream = u32::from(self.input.byte() % 16);
        let flags = self.input.byte();
        let length = self.input.below(32);
        let payload = self.input.take(length);
        frame(&mut self.wire, kind, flags, stream, payload);
    }

    /// Frames that each ask for an answer or for work, more than the output may hold
    /// answers to.
    fn flood(&mut self) {
        let window = [0, 4, 0, 0, 0, self.input.byte()];
        let (kind, payload): (_, &[u8]) = match self.input.below(4) {
            0 => (Kind::PING, b"bandwith"),
            1 => (Kind::SETTINGS, b""),
            2 => (Kind::SETTINGS, &window),
            _ => (Kind::WINDOW_UPDATE, b"\0\0\0\x01"),
        };
        for _ in 0..FLOOD {
            frame(&mut self.wire, kind, 0, 0, payload);
        }
    }

    /// The server opens its windows and answers everything; then it goes.
    async fn finish(mut self) {
        self.near.callers.iter_mut().for_each(Caller::read_on);
        self.settings.initial_window_bytes = 1 << 24;
        self.max_streams = 50;
        self.set();
        self.grant(0, 1 << 28);
        for _ in 0..2 * MAX_CALLS {
            self.settle();
            let Some(&stream) = self.far.open().first() else {
                break;
            };
            let number = self.far.requests[&stream].number;
            self.answer_with(stream, number, 0);
        }
        self.settle();
        if self.honest {
            // What was cut by its caller may wait for that caller alone.
            for (number, caller) in self.near.callers.iter().enumerate() {
                assert!(!caller.is_open(), "call {number} has no end");
                self.check_end(number, caller);
            }
        }
        self.near.pipe.end(None);
        self.near.run();
        self.near.advance(Duration::from_secs(2)).await;
        self.near.finish();
    }

    fn check_end(&self, number: usize, caller: &Caller) {
        let Some(end) = &caller.end else {
            return;
        };
        let nothing = Answer::default();
        let answer = self.answers.get(&number).unwrap_or(&nothing);
        note(kind_of(end));
        let said = answer.said;
        let is_right = match end {
            Ok(trailers) => {
                let code = trailers.code.0;
                let whole = code != 0 || caller.messages == answer.messages;
                assert!(whole, "call {number}: other messages than were sent");
                said == Some(Said::Status(code))
            }
            Err(Failed::Refused) => {
                // What the client has opened and not written never comes here.
                let refused = Some(Said::Reset(ErrorCode::REFUSED_STREAM));
                said == refused || (self.last_stream.is_some() && said.is_none())
            }
            Err(Failed::Reset(code)) => {
                said == Some(Said::Reset(*code)) || (caller.cut && *code == ErrorCode::CANCEL)
            }
            Err(Failed::Http { status, .. }) => said == Some(Said::Http(*status)),
            Err(Failed::Deadline { .. }) => caller.deadline.is_some(),
            Err(Failed::NotSent(_)) => said.is_none(),
            Err(Failed::Lost(Closed::Silent(_))) => true,
            Err(_) => false,
        };
        assert!(
            is_right,
            "call {number}: {end:?}, and the server said {said:?}"
        );
    }
}

/// What an end is, without its details.
const fn kind_of(end: &Ended) -> u8 {
    match end {
        Ok(trailers) => trailers.code.0,
        Err(Failed::NotSent(_)) => 100,
        Err(Failed::Refused) => 101,
        Err(Failed::Lost(_)) => 102,
        Err(Failed::Reset(_)) => 103,
        Err(Failed::Deadline { sent }) => 104 + *sent as u8,
        Err(Failed::Http { .. }) => 106,
        Err(_) => 107,
    }
}
