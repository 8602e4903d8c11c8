//! A connection against peers that do as a test says, and against servers.

mod calls;
mod compression;
mod flow;
mod hostile;
mod servers;
mod stress;
mod times;

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

use super::*;
use crate::error_codes::ErrorCode;
use crate::frame::{
    FrameHead, Kind, PREFACE, SettingId, begin_frame, end_frame, flag, write_reset, write_settings,
};
use crate::hpack::{Decoder, write_literal};

/// The server's end of a connection, in a test's hands.
struct Peer {
    io: DuplexStream,
    decoder: Decoder,
    /// Of the request that began last.
    fields: Fields,
    /// What it is to write next.
    out: Vec<u8>,
}

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    kind: Kind,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A whole request.
#[derive(Debug)]
struct Asked {
    stream: u32,
    fields: Vec<(String, String)>,
    content: Vec<u8>,
}

type Driven = JoinHandle<Closed>;

/// A connection whose server has said nothing yet.
async fn silent(config: Config) -> (Connection, Peer, Driven) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (connection, driver) = Connection::start(near, config);
    let driven = tokio::spawn(driver);
    let mut peer = Peer {
        io: far,
        decoder: Decoder::new(4096),
        fields: Fields::default(),
        out: Vec::new(),
    };
    let mut preface = [0; PREFACE.len()];
    peer.io.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, PREFACE);
    let settings = peer.frame().await;
    assert_eq!((settings.kind, settings.flags), (Kind::SETTINGS, 0));
    let window = peer.frame().await;
    assert_eq!((window.kind, window.stream), (Kind::WINDOW_UPDATE, 0));
    (connection, peer, driven)
}

/// A connection whose server has sent its settings.
async fn greeted(config: Config, settings: &[(SettingId, u32)]) -> (Connection, Peer, Driven) {
    let (connection, mut peer, driven) = silent(config).await;
    write_settings(&mut peer.out, settings);
    peer.flush().await;
    let ack = peer.frame().await;
    assert_eq!((ack.kind, ack.flags), (Kind::SETTINGS, flag::ACK));
    connection.ready().await.unwrap();
    (connection, peer, driven)
}

impl Peer {
    async fn frame(&mut self) -> Came {
        self.next().await.expect("a frame")
    }

    /// `None`: the client has closed.
    async fn next(&mut self) -> Option<Came> {
        let mut head = [0; FrameHead::BYTES];
        self.io.read_exact(&mut head).await.ok()?;
        let head = FrameHead::parse(&head).unwrap();
        let mut payload = vec![0; head.length as usize];
        self.io.read_exact(&mut payload).await.unwrap();
        if head.kind == Kind::HEADERS {
            let (fields, max) = (&mut self.fields, 1 << 20);
            self.decoder.decode(&payload, fields, max).unwrap();
        }
        Some(Came {
            kind: head.kind,
            flags: head.flags,
            stream: head.stream,
            payload,
        })
    }

    async fn asked(&mut self) -> Asked {
        let head = self.frame().await;
        assert_eq!((head.kind, head.flags), (Kind::HEADERS, flag::END_HEADERS));
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
        let mut asked = Asked {
            stream: head.stream,
            fields: self
                .fields
                .iter()
                .map(|(n, v)| (text(n), text(v)))
                .collect(),
            content: Vec::new(),
        };
        loop {
            let data = self.frame().await;
            assert_eq!((data.kind, data.stream), (Kind::DATA, asked.stream));
            asked.content.extend(data.payload);
            if data.flags == flag::END_STREAM {
                return asked;
            }
        }
    }

    fn put(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        let start = begin_frame(&mut self.out);
        self.out.extend_from_slice(payload);
        end_frame(&mut self.out, start, kind, flags, stream);
        self
    }

    fn block(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) -> &mut Self {
        let mut block = Vec::new();
        for (name, value) in fields {
            write_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        let end = if ends { flag::END_STREAM } else { 0 };
        self.put(Kind::HEADERS, flag::END_HEADERS | end, stream, &block)
    }

    fn head(&mut self, stream: u32) -> &mut Self {
        self.block(stream, HEAD, false)
    }

    fn data(&mut self, stream: u32, content: &[u8]) -> &mut Self {
        self.put(Kind::DATA, 0, stream, content)
    }

    fn status(&mut self, stream: u32, status: &str) -> &mut Self {
        self.block(stream, &[("grpc-status", status)], true)
    }

    fn answer(&mut self, stream: u32, message: &[u8]) -> &mut Self {
        let content = framed(message);
        self.head(stream).data(stream, &content).status(stream, "0")
    }

    fn reset(&mut self, stream: u32, code: ErrorCode) -> &mut Self {
        write_reset(&mut self.out, stream, code);
        self
    }

    fn goaway(&mut self, last: u32, code: ErrorCode, debug: &str) -> &mut Self {
        crate::frame::write_goaway(&mut self.out, last, code, debug);
        self
    }

    async fn flush(&mut self) {
        let out = std::mem::take(&mut self.out);
        self.io.write_all(&out).await.unwrap();
    }
}

const HEAD: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message);
    out
}

fn head() -> RequestHead {
    RequestHead::new(Scheme::Http, "host:1", "/t.T/Echo").unwrap()
}

fn ask(connection: &Connection, message: &[u8]) -> Unary {
    let message = message.to_vec();
    connection.unary(&head(), move |out| out.extend_from_slice(&message), None)
}

fn within(time: Duration) -> Option<Instant> {
    Some(now() + time)
}

/// Lets everything run that can.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
