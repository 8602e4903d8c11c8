//! RFC 9113, section 3.3: HTTP/2 with prior knowledge, or HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::frame::PREFACE;

/// What a connection speaks, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, with its whole preface.
    Http2,
    /// HTTP/1.1: it begins with a method.
    Http1,
}

/// Methods that need no second look (RFC 9110, section 9.1, and RFC 5789).
const METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];
/// How much of a request line is looked at to know one from a wrong preface, bytes.
pub const REQUEST_LINE_BYTES: usize = 256;

/// How much of a connection looks like HTTP/1.1.
#[derive(Debug, PartialEq, Eq)]
enum Http1 {
    Is,
    May,
    Not,
}

/// RFC 9112, section 3: a request line begins with a method, which is a token
/// (RFC 9110, section 9.1), and ends with a version. Which methods there are is
/// for others to say; but a line with one that nobody knows must have a version.
fn http1(read: &[u8]) -> Http1 {
    let is_token = |octet: &u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(octet);
    let length = read.iter().take_while(|octet| is_token(octet)).count();
    let (method, rest) = read.split_at(length);
    match rest.first() {
        // Nobody has so long a method, and it must not matter how it was cut.
        _ if length >= PREFACE.len() => Http1::Not,
        None => Http1::May,
        // Reserved for the preface (RFC 9113, section 11.6).
        Some(b' ') if method.is_empty() || method == b"PRI" => Http1::Not,
        Some(b' ') if METHODS.contains(&method) => Http1::Is,
        Some(b' ') => match rest.iter().position(|&octet| octet == b'\n') {
            Some(end) if is_versioned(rest[..end].trim_ascii_end()) => Http1::Is,
            Some(_) => Http1::Not,
            None if read.len() < REQUEST_LINE_BYTES => Http1::May,
            None => Http1::Is,
        },
        Some(_) => Http1::Not,
    }
}

fn is_versioned(line: &[u8]) -> bool {
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// Reads until it is certain what a connection speaks: the 24 bytes of the
/// preface, or as much as it takes of a request line. Returns them, too; they are
/// no longer in `io`.
///
/// # Errors
/// Those of `io`, which may end before anything is certain. Bytes that are the
/// beginning of neither: section 3.4 has the connection closed.
pub async fn sniff(io: &mut (impl AsyncRead + Unpin)) -> io::Result<(Protocol, Vec<u8>)> {
    let mut read = Vec::with_capacity(PREFACE.len());
    let mut buffer = [0; REQUEST_LINE_BYTES];
    loop {
        let most = match PREFACE.strip_prefix(&read[..]) {
            Some([]) => return Ok((Protocol::Http2, read)),
            Some(rest) => rest.len(),
            None => match http1(&read) {
                Http1::Is => return Ok((Protocol::Http1, read)),
                Http1::May => REQUEST_LINE_BYTES - read.len(),
                Http1::Not => return Err(io::ErrorKind::InvalidData.into()),
            },
        };
        let count = io.read(&mut buffer[..most]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read.extend_from_slice(&buffer[..count]);
    }
}

/// A stream with bytes before it that were read already.
#[derive(Debug)]
pub struct Rewind<I> {
    before: Vec<u8>,
    at: usize,
    io: I,
}

impl<I> Rewind<I> {
    pub(super) const fn new(before: Vec<u8>, io: I) -> Self {
        Self { before, at: 0, io }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Rewind<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.before[self.at..];
        if left.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = left.len().min(buf.remaining());
        buf.put_slice(&left[..count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Rewind<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_begins_with_a_method_is_http1() {
        let check = |read: &[u8], expected: Http1| {
            assert_eq!(http1(read), expected, "{}", read.escape_ascii());
        };
        check(b"GET ", Http1::Is);
        check(b"BREW /pot", Http1::May);
        check(b"BREW /pot HTTP/1.1\r\n", Http1::Is);
        check(b"BREW /pot HTTP/2\r\n", Http1::Not);
        check(b"INVALID CONNECTION PREFACE\r\n\r\n", Http1::Not);
        check(b"A-METHOD-LONGER-THAN-THE-PREFACE", Http1::Not);
        check(b"PRI ", Http1::Not);
        let long = [&b"BREW /"[..], &[b'x'; REQUEST_LINE_BYTES]].concat();
        check(&long[..REQUEST_LINE_BYTES], Http1::Is);
        check(b"", Http1::May);
        check(b"BRE", Http1::May);
        check(b" GET", Http1::Not);
        check(b"\x16\x03\x01", Http1::Not);
        check(b"G\0T ", Http1::Not);
    }
}
