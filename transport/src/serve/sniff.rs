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

/// RFC 9110, section 9.1, and RFC 5789.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
];

/// Reads until it is certain what a connection speaks: at most the 24 bytes of
/// the preface. Returns them, too; they are no longer in `io`.
///
/// # Errors
/// Those of `io`, which may end before anything is certain. Bytes that are the
/// beginning of neither: section 3.4 has the connection closed.
pub async fn sniff(io: &mut (impl AsyncRead + Unpin)) -> io::Result<(Protocol, Vec<u8>)> {
    let mut read = Vec::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() {
        let mut rest = [0; PREFACE.len()];
        let most = PREFACE.len() - read.len();
        let count = io.read(&mut rest[..most]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read.extend_from_slice(&rest[..count]);
        if METHODS.iter().any(|method| read.starts_with(method)) {
            return Ok((Protocol::Http1, read));
        }
        if !PREFACE.starts_with(&read) && !METHODS.iter().any(|method| method.starts_with(&read)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok((Protocol::Http2, read))
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
