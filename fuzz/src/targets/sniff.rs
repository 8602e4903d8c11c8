//! RFC 9113, section 3.3: what a connection speaks does not depend on how its
//! first bytes are cut.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use larder_transport::frame::PREFACE;
use larder_transport::serve::{Protocol, REQUEST_LINE_BYTES, sniff};
use tokio::io::{AsyncRead, ReadBuf};

use crate::features::note;

/// Bytes of which no more than `most` are read at once.
struct Pieces<'a> {
    rest: &'a [u8],
    most: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.rest.len().min(self.most).min(buffer.remaining());
        let (now, rest) = self.rest.split_at(count);
        buffer.put_slice(now);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// The first bytes of a connection.
pub(crate) fn run(data: &[u8]) {
    let whole = speaks(data, usize::MAX);
    note(format!("{whole:?}"));
    for most in [1, 2, 3, 5, 7, 23] {
        assert_eq!(speaks(data, most), whole, "in pieces of {most}");
    }
    if whole == Ok(Protocol::Http2) {
        assert!(data.starts_with(PREFACE));
    }
    if data.starts_with(PREFACE) {
        assert_eq!(whole, Ok(Protocol::Http2));
    }
}

fn speaks(data: &[u8], most: usize) -> Result<Protocol, io::ErrorKind> {
    let mut io = Pieces { rest: data, most };
    let polled = {
        let mut cx = Context::from_waker(Waker::noop());
        let sniffed = pin!(sniff(&mut io));
        sniffed.poll(&mut cx)
    };
    let Poll::Ready(sniffed) = polled else {
        unreachable!("nothing here waits")
    };
    let (protocol, read) = sniffed.map_err(|error| error.kind())?;
    let most = match protocol {
        Protocol::Http2 => PREFACE.len(),
        Protocol::Http1 => REQUEST_LINE_BYTES,
    };
    assert!(read.len() <= most);
    assert_eq!([&read, io.rest].concat(), data, "bytes were lost");
    Ok(protocol)
}
