//! One connection of an attacker: it writes any frames, and counts what comes.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use larder_transport::error_codes::ErrorCode;
use larder_transport::frame::{
    Frame, FrameHead, Kind, PREFACE, SettingId, begin_frame, end_frame, flag, write_ping,
    write_settings, write_settings_ack,
};
use larder_transport::hpack::{Decoder, Fields};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Appends a frame.
pub(crate) fn frame(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    let start = begin_frame(out);
    out.extend_from_slice(payload);
    end_frame(out, start, kind, flags, stream);
}

/// Appends `HEADERS` with a whole block that leaves the request open.
pub(crate) fn open_request(out: &mut Vec<u8>, stream: u32, block: &[u8]) {
    frame(out, Kind::HEADERS, flag::END_HEADERS, stream, block);
}

/// Appends `HEADERS` with a whole block that ends the request.
pub(crate) fn whole_request(out: &mut Vec<u8>, stream: u32, block: &[u8]) {
    let flags = flag::END_HEADERS | flag::END_STREAM;
    frame(out, Kind::HEADERS, flags, stream, block);
}

/// Appends a request with its content.
pub(crate) fn request(out: &mut Vec<u8>, stream: u32, block: &[u8], content: &[u8]) {
    open_request(out, stream, block);
    let mut parts = content.chunks(16_384).peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() {
            flag::END_STREAM
        } else {
            0
        };
        frame(out, Kind::DATA, flags, stream, part);
    }
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ending {
    /// The code of `GOAWAY`; `None` if there was none.
    pub(crate) code: Option<u32>,
    /// What `GOAWAY` says, or how it ended without one.
    pub(crate) why: String,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "{:?} {}", ErrorCode(code), self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// What came.
#[derive(Debug, Default)]
pub(crate) struct Came {
    /// Answers that are complete, by `grpc-status`; without one, by `:status`.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Streams that the server reset, by code.
    pub(crate) resets: BTreeMap<u32, u64>,
    /// `PING`s that were answered.
    pub(crate) pongs: u64,
    /// Bytes of content.
    pub(crate) data_bytes: u64,
    /// Bytes of whatever kind.
    pub(crate) read_bytes: u64,
    /// It is over.
    pub(crate) ending: Option<Ending>,
    /// The last stream that the server acted on, as its last `GOAWAY` says.
    pub(crate) last_stream: Option<u32>,
}

impl Came {
    /// Answers that are complete.
    pub(crate) fn answered(&self) -> u64 {
        self.answers.values().sum()
    }
}

/// One connection.
pub(crate) struct Wire {
    io: TcpStream,
    input: Vec<u8>,
    decoder: Decoder,
    fields: Fields,
    /// What came so far.
    pub(crate) came: Came,
}

impl Wire {
    /// Connects, and says nothing.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) async fn silent(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(address).await?)
    }

    /// Says nothing on a connection that was made already.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn over(io: TcpStream) -> io::Result<Self> {
        io.set_nodelay(true)?;
        Ok(Self {
            io,
            input: Vec::new(),
            decoder: Decoder::new(4096),
            fields: Fields::default(),
            came: Came::default(),
        })
    }

    /// Connects and greets.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) async fn greeted(
        address: SocketAddr,
        settings: &[(SettingId, u32)],
    ) -> io::Result<Self> {
        let mut wire = Self::silent(address).await?;
        let mut bytes = PREFACE.to_vec();
        write_settings(&mut bytes, settings);
        write_settings_ack(&mut bytes);
        wire.send(&bytes).await;
        Ok(wire)
    }

    /// True once the server has ended it.
    pub(crate) const fn is_over(&self) -> bool {
        self.came.ending.is_some()
    }

    /// Writes, and reads meanwhile. Stops when the server has ended it.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_over() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let ready = match self.io.ready(interest).await {
                Ok(ready) => ready,
                Err(error) => return self.ended(&error.to_string()),
            };
            if ready.is_readable() {
                self.read();
            }
            if ready.is_writable() && !self.is_over() {
                match self.io.try_write(bytes) {
                    Ok(count) => bytes = &bytes[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // What it had to say may be there.
                    Err(_) => {
                        self.read();
                        self.ended("reset");
                    }
                }
            }
        }
    }

    /// Writes what the socket takes at once, and reads nothing. Returns how much.
    pub(crate) async fn send_blindly(&mut self, bytes: &[u8], patience: Duration) -> usize {
        let mut sent = 0;
        let deadline = Instant::now() + patience;
        while sent < bytes.len() {
            let writable = tokio::time::timeout_at(deadline, self.io.writable());
            if !matches!(writable.await, Ok(Ok(()))) {
                break;
            }
            match self.io.try_write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        sent
    }

    /// Reads until `done`, or the end, or `patience` is over. True if done.
    pub(crate) async fn read_until(
        &mut self,
        patience: Duration,
        done: impl Fn(&Came) -> bool,
    ) -> bool {
        let deadline = Instant::now() + patience;
        while !done(&self.came) {
            if self.is_over() {
                return false;
            }
            match tokio::time::timeout_at(deadline, self.io.readable()).await {
                Ok(Ok(())) => self.read(),
                Ok(Err(error)) => self.ended(&error.to_string()),
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) {
        self.read_at_most(usize::MAX);
    }

    /// Reads so many bytes of what is there.
    pub(crate) fn read_at_most(&mut self, mut bytes: usize) {
        let mut buffer = [0; 16 * 1024];
        while bytes > 0 {
            let most = buffer.len().min(bytes);
            match self.io.try_read(&mut buffer[..most]) {
                Ok(0) => return self.ended("closed"),
                Ok(count) => {
                    bytes -= count;
                    self.came.read_bytes += count as u64;
                    self.input.extend_from_slice(&buffer[..count]);
                    self.parse();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.ended("reset"),
            }
        }
    }

    fn ended(&mut self, why: &str) {
        let ending = Ending {
            code: None,
            why: why.to_owned(),
        };
        self.came.ending.get_or_insert(ending);
    }

    fn parse(&mut self) {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(head) = FrameHead::parse(rest) {
            let end = FrameHead::BYTES + head.length as usize;
            let Some(payload) = rest.get(FrameHead::BYTES..end) else {
                break;
            };
            if let Ok(frame) = Frame::parse(head, payload) {
                self.on_frame(frame, payload);
            }
            rest = &rest[end..];
        }
        self.input = rest.to_vec();
    }

    fn on_frame(&mut self, frame: Frame<'_>, payload: &[u8]) {
        match frame {
            Frame::Headers {
                fragment,
                end_stream,
                ..
            } => {
                let decoded = self
                    .decoder
                    .decode(fragment, &mut self.fields, 1 << 20)
                    .is_ok();
                if end_stream {
                    let status = [&b"grpc-status"[..], b":status"]
                        .iter()
                        .find_map(|name| self.fields.value(name))
                        .filter(|_| decoded);
                    let status = String::from_utf8_lossy(status.unwrap_or(b"?")).into_owned();
                    *self.came.answers.entry(status).or_default() += 1;
                }
            }
            Frame::Data { data, end_stream } => {
                self.came.data_bytes += data.len() as u64;
                if end_stream {
                    *self.came.answers.entry("data".to_owned()).or_default() += 1;
                }
            }
            Frame::Reset(code) => *self.came.resets.entry(code.0).or_default() += 1,
            Frame::PingAck(_) => self.came.pongs += 1,
            Frame::Ping(data) => {
                // A sign of life: attackers live as long as they may.
                let mut pong = Vec::new();
                write_ping(&mut pong, flag::ACK, data);
                // If it does not fit, there is no sign of life.
                let _ = self.io.try_write(&pong);
            }
            Frame::GoAway { last_stream, code } => {
                self.came.last_stream = Some(last_stream);
                let why = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
                if code != ErrorCode::NO_ERROR {
                    self.came.ending.get_or_insert(Ending {
                        code: Some(code.0),
                        why: why.into_owned(),
                    });
                }
            }
            _ => {}
        }
    }
}
