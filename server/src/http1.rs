//! HTTP/1.1, by hyper, on a connection of the transport.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Longest time for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// hyper takes no smaller one.
const SMALLEST_BUFFER_BYTES: usize = 8192;
/// How long a connection without a request may go on once the server drains: for
/// the rest of a head that was on its way.
const LAST_HEAD: Duration = Duration::from_secs(1);

/// Serves a connection. When `drain` turns true it ends with the requests in
/// flight, each answered with `connection: close`. A head that is not whole is no
/// request yet: it has a second more. A head of more than four times `max_metadata_bytes`
/// ends the connection with 431; whoever answers tells of those above it in more words.
pub(crate) async fn serve<I, B, F>(
    io: I,
    max_metadata_bytes: u32,
    answer: impl Fn(Request<Incoming>) -> F,
    mut drain: watch::Receiver<bool>,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
    B: Body<Error = Infallible> + 'static,
    F: Future<Output = Response<B>>,
{
    let busy = Arc::new(watch::Sender::new(0));
    let clogged = Arc::new(AtomicBool::new(false));
    let io = Watched {
        io,
        clogged: Arc::clone(&clogged),
    };
    let in_flight = Arc::clone(&busy);
    let service = service_fn(move |request| {
        let request_in_flight = InFlight::new(Arc::clone(&in_flight));
        let answered = answer(request);
        async move {
            let response = answered.await;
            Ok::<_, Infallible>(response.map(|body| Answer {
                body: Box::pin(body),
                _in_flight: request_in_flight,
            }))
        }
    });
    let connection = builder(max_metadata_bytes).serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let told = async {
        if drain.wait_for(|drain| *drain).await.is_err() {
            // Nobody can tell it to drain any more.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = connection.as_mut() => return served,
        () = told => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        served = connection.as_mut() => served,
        () = idle(busy.subscribe(), &clogged) => Ok(()),
    }
}

fn builder(max_metadata_bytes: u32) -> http1::Builder {
    let head_bytes = (max_metadata_bytes as usize).saturating_mul(4);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(head_bytes.max(SMALLEST_BUFFER_BYTES));
    builder
}

/// Waits until there was no request for a second, nor the rest of an answer.
async fn idle(mut busy: watch::Receiver<usize>, clogged: &AtomicBool) {
    loop {
        // The sender lives as long as the connection.
        let _ = busy.wait_for(|requests| *requests == 0).await;
        tokio::time::sleep(LAST_HEAD).await;
        if *busy.borrow_and_update() == 0 && !clogged.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// A request whose answer has not ended.
struct InFlight(Arc<watch::Sender<usize>>);

impl InFlight {
    fn new(count: Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|requests| *requests += 1);
        Self(count)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

/// The body of an answer.
struct Answer<B> {
    body: Pin<Box<B>>,
    _in_flight: InFlight,
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket of which it is known whether it holds up what is to be written.
struct Watched<I> {
    io: I,
    clogged: Arc<AtomicBool>,
}

impl<I> Watched<I> {
    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.clogged.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// Sends `first`, drains, sends `then` after a while, and reads all that comes
    /// in `patience`. Returns what came, and how long the connection lived on.
    async fn check(first: &[u8], then: &[u8], takes: Duration, size: usize) -> (String, Duration) {
        let (mut client, server) = tokio::io::duplex(4096);
        let (drain, drained) = watch::channel(false);
        let answer = move |_| async move {
            tokio::time::sleep(takes).await;
            Response::new(Full::new(Bytes::from("x".repeat(size))))
        };
        let served = tokio::spawn(async move {
            let served = serve(server, 4096, answer, drained).await;
            (served, tokio::time::Instant::now())
        });
        client.write_all(first).await.expect("a connection");
        tokio::time::sleep(Duration::from_millis(1)).await;
        drain.send_replace(true);
        let begun = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // It may be closed already.
        let _ = client.write_all(then).await;
        if size > 4096 {
            // A client that takes its time.
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let mut came = Vec::new();
        client.read_to_end(&mut came).await.expect("an end");
        let (_, ended) = served.await.expect("no panic");
        let came = String::from_utf8(came).expect("text");
        (came, ended.duration_since(begun))
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_does_not_hold_up_the_drain() {
        let (came, took) = check(&HEAD[..10], b"", Duration::ZERO, 1).await;
        assert_eq!((came.as_str(), took.as_secs()), ("", 1));
        // None at all: at once.
        let (came, took) = check(b"", b"", Duration::ZERO, 1).await;
        assert_eq!((came.as_str(), took), ("", Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_becomes_whole_is_answered() {
        let (came, _) = check(&HEAD[..10], &HEAD[10..], Duration::from_secs(5), 1).await;
        assert!(came.starts_with("HTTP/1.1 200"), "{came}");
        assert!(
            came.contains("connection: close") && came.ends_with("\r\n\r\nx"),
            "{came}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_flight_ends_however_long_it_takes() {
        let (came, took) = check(HEAD, b"", Duration::from_secs(8), 1).await;
        assert!(came.ends_with("\r\n\r\nx"), "{came}");
        assert_eq!(took.as_secs(), 7, "since the drain, a millisecond late");
        let (came, _) = check(HEAD, b"", Duration::ZERO, 100_000).await;
        let body = came.split("\r\n\r\n").nth(1).expect("a body");
        assert_eq!(body.len(), 100_000, "a client that reads slowly is not cut");
    }
}
