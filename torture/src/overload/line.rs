//! One connection of the load: frames of its own, as many calls at a time as the server
//! lets it have, and for each when it should have begun.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use larder_transport::frame::{
    Frame, FrameHead, INITIAL_WINDOW_BYTES, MAX_WINDOW_BYTES, PREFACE, SettingId, flag, write_ping,
    write_settings, write_settings_ack, write_window_update,
};
use larder_transport::hpack::{Decoder, Fields};
use tokio::time::Instant;

use crate::calls;
use crate::wire;

/// How long its callers wait for an answer, from when the call should have begun.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Calls at a time that the server allows.
const MAX_OPEN: usize = 1000;
/// What is left of the window when more is given.
const REFILL_BYTES: u64 = 1 << 29;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With OK.
    Served,
    /// UNAVAILABLE, with the time to stay away.
    Refused,
    /// Its caller's patience was over: it was not even sent, or the server said so.
    Late,
    /// In any other way.
    Failed,
}

/// What a call is made of.
#[derive(Debug, Clone)]
pub(super) struct Request {
    block: Vec<u8>,
    content: Vec<u8>,
}

impl Request {
    /// A call of an account.
    pub(super) fn new(path: &str, token: &str, content: Vec<u8>) -> Self {
        let bearer = format!("Bearer {token}");
        let more = [("authorization", bearer.as_str()), ("grpc-timeout", "1S")];
        Self {
            block: calls::grpc_block(path, &more),
            content,
        }
    }
}

/// A call that is not made yet: which, and when it should be.
type Due = (usize, Instant);

/// One connection.
pub(super) struct Line {
    io: TcpStream,
    requests: Vec<Request>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    decoder: Decoder,
    fields: Fields,
    /// When the calls under way should have begun, from the oldest on; `None`: ended.
    begun: VecDeque<Option<Instant>>,
    /// The stream of the first of them.
    oldest: u32,
    open: usize,
    waiting: VecDeque<Due>,
    /// What may be sent to the server, bytes.
    window: i64,
    /// What the server may send, bytes.
    allowed: u64,
}

impl Line {
    /// Connects.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn connect(address: SocketAddr, requests: Vec<Request>) -> io::Result<Self> {
        let mut io = TcpStream::connect(address)?;
        io.set_nodelay(true)?;
        let mut hello = PREFACE.to_vec();
        let window = (SettingId::INITIAL_WINDOW_SIZE, MAX_WINDOW_BYTES);
        write_settings(&mut hello, &[window]);
        write_window_update(&mut hello, 0, MAX_WINDOW_BYTES - INITIAL_WINDOW_BYTES);
        io.write_all(&hello)?;
        io.set_nonblocking(true)?;
        Ok(Self {
            io,
            requests,
            out: Vec::new(),
            sent: 0,
            input: Vec::new(),
            decoder: Decoder::new(4096),
            fields: Fields::default(),
            begun: VecDeque::new(),
            oldest: 1,
            open: 0,
            waiting: VecDeque::new(),
            window: i64::from(INITIAL_WINDOW_BYTES),
            allowed: u64::from(MAX_WINDOW_BYTES),
        })
    }

    /// A call should begin now, or should have before.
    pub(super) fn call(&mut self, request: usize, at: Instant) {
        self.waiting.push_back((request, at));
    }

    /// Calls that have not ended.
    pub(super) fn unended(&self) -> usize {
        self.open + self.waiting.len()
    }

    /// Sends and receives what can be; tells of calls that ended.
    ///
    /// # Errors
    /// The server ended the connection, or does not speak HTTP/2.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        mut ended: impl FnMut(End, Duration),
    ) -> anyhow::Result<()> {
        self.read(now, &mut ended)?;
        self.begin(now, &mut ended);
        self.write()
    }

    fn begin(&mut self, now: Instant, ended: &mut impl FnMut(End, Duration)) {
        while let Some((request, at)) = self.waiting.front().copied() {
            let late = now.saturating_duration_since(at);
            if late >= PATIENCE {
                self.waiting.pop_front();
                ended(End::Late, late);
                continue;
            }
            let request = &self.requests[request];
            let bytes = i64::try_from(request.content.len()).unwrap_or(i64::MAX);
            if self.open >= MAX_OPEN || self.window < bytes {
                return;
            }
            self.waiting.pop_front();
            self.window -= bytes;
            let number = u32::try_from(self.begun.len()).unwrap_or(u32::MAX);
            let stream = self.oldest + 2 * number;
            wire::request(&mut self.out, stream, &request.block, &request.content);
            self.begun.push_back(Some(at));
            self.open += 1;
        }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        while self.sent < self.out.len() {
            match self.io.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the server takes no more"),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn read(&mut self, now: Instant, ended: &mut impl FnMut(End, Duration)) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.io.read(&mut buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    self.parse(now, ended)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the server ended the connection"),
            }
        }
    }

    fn parse(&mut self, now: Instant, ended: &mut impl FnMut(End, Duration)) -> anyhow::Result<()> {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(head) = FrameHead::parse(rest) {
            let end = FrameHead::BYTES + head.length as usize;
            let Some(payload) = rest.get(FrameHead::BYTES..end) else {
                break;
            };
            let frame = Frame::parse(head, payload);
            let frame = frame.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
            self.on_frame(head, frame, now, ended)?;
            rest = &rest[end..];
        }
        self.input = rest.to_vec();
        Ok(())
    }

    fn on_frame(
        &mut self,
        head: FrameHead,
        frame: Frame<'_>,
        now: Instant,
        ended: &mut impl FnMut(End, Duration),
    ) -> anyhow::Result<()> {
        match frame {
            Frame::Headers {
                fragment,
                end_stream,
                ..
            } => {
                let decoded = self.decoder.decode(fragment, &mut self.fields, 1 << 20);
                ensure!(decoded.is_ok(), "a header block that cannot be read");
                if end_stream {
                    let end = self.told();
                    self.end(head.stream, end, now, ended);
                }
            }
            Frame::Data { data, .. } => {
                self.allowed = self.allowed.saturating_sub(data.len() as u64);
                if self.allowed < REFILL_BYTES {
                    let more = u32::try_from(REFILL_BYTES).unwrap_or(0);
                    write_window_update(&mut self.out, 0, more);
                    self.allowed += REFILL_BYTES;
                }
            }
            Frame::Reset(_) => self.end(head.stream, End::Failed, now, ended),
            Frame::WindowUpdate(more) if head.stream == 0 => self.window += i64::from(more),
            Frame::Settings(_) => write_settings_ack(&mut self.out),
            Frame::Ping(data) => write_ping(&mut self.out, flag::ACK, data),
            Frame::GoAway { code, .. } => bail!("GOAWAY {code:?}"),
            _ => {}
        }
        Ok(())
    }

    /// What the fields of a call's end say.
    fn told(&self) -> End {
        match self.fields.value(b"grpc-status") {
            Some(b"0") => End::Served,
            Some(b"4") => End::Late,
            // A refusal without the time to stay away would have everybody come back
            // at once.
            Some(b"14") if self.fields.value(b"grpc-retry-pushback-ms").is_some() => End::Refused,
            _ => End::Failed,
        }
    }

    fn end(&mut self, stream: u32, end: End, now: Instant, ended: &mut impl FnMut(End, Duration)) {
        let index = (stream.wrapping_sub(self.oldest) / 2) as usize;
        let Some(at) = self.begun.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.open -= 1;
        ended(end, now.saturating_duration_since(at));
        while let Some(None) = self.begun.front() {
            self.begun.pop_front();
            self.oldest += 2;
        }
    }
}
