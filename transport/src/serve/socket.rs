//! The socket of a connection, whatever it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP, in clear text.
    Tcp(TcpStream),
    /// A Unix socket, in clear text.
    Unix(UnixStream),
    /// TLS on either of them.
    Tls(Box<TlsSocket>),
}

/// TLS on a socket, after its handshake.
#[derive(Debug)]
pub struct TlsSocket {
    stream: TlsStream<Socket>,
}

impl TlsSocket {
    pub(super) const fn new(stream: TlsStream<Socket>) -> Self {
        Self { stream }
    }
}

impl AsyncRead for TlsSocket {
    /// Reads all the records that are there and that `buf` has room for: each
    /// holds 16 KiB at most, and the answers to one read leave in one write.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let mut filled = before;
        while buf.filled().len() > filled && buf.remaining() > 0 {
            filled = buf.filled().len();
            // An error or an end comes again with the next read, after what was
            // read before it.
            if !matches!(
                Pin::new(&mut self.stream).poll_read(cx, buf),
                Poll::Ready(Ok(()))
            ) {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Calls the same function of whichever socket it is.
macro_rules! each {
    ($socket:expr, $poll:ident($($argument:expr),*)) => {
        match $socket.get_mut() {
            Socket::Tcp(io) => Pin::new(io).$poll($($argument),*),
            Socket::Unix(io) => Pin::new(io).$poll($($argument),*),
            Socket::Tls(io) => Pin::new(&mut **io).$poll($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_shutdown(cx))
    }
}

impl AsyncWrite for TlsSocket {
    /// Encrypts, and writes what the socket takes. Up to 64 KiB that it does not
    /// take are kept, and count as written: [`Self::poll_flush`] goes on with
    /// them.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends `close_notify` (RFC 8446, section 6.1), and ends the writing side.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
