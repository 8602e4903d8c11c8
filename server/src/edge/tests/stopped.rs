//! Calls whose callers have gone, or whose time is over: nothing more is done for them.
//! What is done is counted in the store, on both lanes, over a connection.

use std::cell::Cell;

use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason as ResetReason, RecvStream, SendStream};
use larder_api::cache_v1 as wire;
use larder_transport::serve::Course;
use tokio::sync::watch;

use super::*;
use crate::edge::decode_options;
use crate::listen::Listening;
use crate::refusals::Cause;
use crate::typed::tests::connect_to;

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
    static SETS: Cell<usize> = const { Cell::new(0) };
}

/// A step of a walk that has no end; it finds an entry unless it looks for `barren`.
pub(super) fn step(selection: Selection<'_>, mut visit: impl FnMut(EntryRef<'_>)) -> Cursor {
    STEPS.set(STEPS.get() + 1);
    if selection.prefix != b"barren" {
        visit(EntryRef {
            namespace: "default",
            key: b"endless",
            value: &LARGE[..10_000],
            meta: larder_model::EntryMeta {
                version: larder_model::Version::new(1),
                expiry: Expiry::Never,
                size_bytes: 1,
                flags: 0,
            },
        });
    }
    Cursor([1, STEPS.get() as u64])
}

/// A write; that of `slow` takes two seconds.
pub(super) async fn set(at: EntryKey<'_>) {
    SETS.set(SETS.get() + 1);
    if at.key.as_bytes() == b"slow" {
        tokio::time::advance(Duration::from_secs(2)).await;
    }
}

#[derive(Debug, Clone, Copy)]
enum Lane {
    Typed,
    General,
}

/// What a client reads before it opens its window again.
const WINDOW: u32 = 65_535;

struct Client {
    server: Server,
    calls: SendRequest<Bytes>,
    _course: watch::Sender<Course>,
}

impl Client {
    async fn connect() -> Self {
        let server = server();
        let (router, _) = rpc::router(&server.core, Role::Cache).expect("a router");
        let listening = Listening {
            core: Arc::clone(&server.core),
            protocols: Protocols::new(router, &server.core),
            decode: decode_options(),
            role: Role::Cache,
        };
        let (calls, course) = connect_to(&listening, WINDOW).await;
        Self {
            server,
            calls,
            _course: course,
        }
    }

    async fn begin(
        &self,
        lane: Lane,
        method: &str,
        timeout: &str,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let path = format!("http://localhost/larder.cache.v1.CacheService/{method}");
        let mut request = Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", timeout);
        if let Lane::General = lane {
            // No message uses it.
            request = request.header("grpc-encoding", "gzip");
        }
        let request = request.body(()).expect("a request");
        let mut calls = self.calls.clone().ready().await.expect("a connection");
        calls.send_request(request, false).expect("a stream")
    }

    /// Dumps what begins with a prefix.
    async fn dump(&self, lane: Lane, prefix: &str, timeout: &str) -> ResponseFuture {
        let message = wire::DumpRequest {
            prefix: prefix.into(),
            ..Default::default()
        };
        let (response, mut body) = self.begin(lane, "Dump", timeout).await;
        let message = framed("application/grpc", &message.encode_to_vec());
        body.send_data(message.into(), true).expect("a request");
        response
    }

    fn stopped(&self, cause: Cause) -> u64 {
        self.server.core.refusals.of(cause)
    }

    /// The server has done what it does of itself.
    async fn settled(&self) {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.server.core.calls.available_permits(), PLACES);
    }
}

/// Reads as much as the window lets through.
async fn read_window(body: &mut RecvStream) -> usize {
    let mut read = 0;
    while read < WINDOW as usize {
        read += body.data().await.expect("content").expect("content").len();
    }
    read
}

async fn status(response: ResponseFuture) -> String {
    let (head, mut body) = response.await.expect("an answer").into_parts();
    while let Some(data) = body.data().await {
        let data = data.expect("content");
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.expect("trailers");
    // Of a stream without a message they stand in the head.
    let trailers = trailers.unwrap_or(head.headers);
    let status = trailers["grpc-status"].to_str().expect("a number");
    status.to_owned()
}

#[tokio::test]
async fn a_dump_that_is_taken_back_is_walked_no_further() {
    for lane in [Lane::Typed, Lane::General] {
        let client = Client::connect().await;
        let response = client.dump(lane, "endless", "60S").await.await;
        let mut body = response.expect("an answer").into_body();
        let read = read_window(&mut body).await;
        let before = STEPS.get();
        // It goes on as its client reads.
        let _ = body.flow_control().release_capacity(read);
        let read = read_window(&mut body).await;
        assert!(STEPS.get() > before, "{lane:?}");
        // Its window is open; but nobody reads any more.
        let _ = body.flow_control().release_capacity(read);
        drop(body);
        client.settled().await;
        let walked = STEPS.get();
        client.settled().await;
        assert_eq!(STEPS.get(), walked, "{lane:?}");
        assert_eq!(client.stopped(Cause::Cancelled), 1, "{lane:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dump_whose_time_is_over_is_walked_no_further() {
    for lane in [Lane::Typed, Lane::General] {
        for prefix in ["endless", "barren"] {
            let client = Client::connect().await;
            let response = client.dump(lane, prefix, "1S").await;
            // It looks for something all the while, or waits for its client.
            let began = STEPS.get();
            while STEPS.get() < began + 5 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(Duration::from_secs(2)).await;
            assert_eq!(status(response).await, "4", "{lane:?} {prefix}");
            client.settled().await;
            let walked = STEPS.get();
            client.settled().await;
            assert_eq!(STEPS.get(), walked, "{lane:?} {prefix}");
            assert_eq!(client.stopped(Cause::Deadline), 1, "{lane:?} {prefix}");
        }
    }
}

/// A part of a load.
fn part(keys: &[&str]) -> Bytes {
    let entry = |key: &&str| wire::Entry {
        key: key.as_bytes().into(),
        ..Default::default()
    };
    let part = wire::LoadRequest {
        entries: keys.iter().map(entry).collect(),
        ..Default::default()
    };
    framed("application/grpc", &part.encode_to_vec()).into()
}

#[tokio::test]
async fn a_load_that_is_taken_back_stores_no_further() {
    let client = Client::connect().await;
    let (response, mut body) = client.begin(Lane::General, "Load", "60S").await;
    let first = SETS.get();
    body.send_data(part(&["a", "b"]), false).expect("a part");
    let mut answers = response.await.expect("an answer").into_body();
    answers.data().await.expect("a message").expect("a message");
    assert_eq!(SETS.get(), first + 2);
    body.send_data(part(&["c", "wait", "d"]), false)
        .expect("a part");
    body.send_data(part(&["e"]), false).expect("a part");
    while SETS.get() < first + 3 {
        tokio::task::yield_now().await;
    }
    body.send_reset(ResetReason::CANCEL);
    drop(answers);
    client.settled().await;
    assert_eq!(SETS.get(), first + 3);
    assert_eq!(client.stopped(Cause::Cancelled), 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_whose_time_is_over_stores_no_further() {
    let client = Client::connect().await;
    let (response, mut body) = client.begin(Lane::General, "Load", "1S").await;
    let first = SETS.get();
    let keys = ["a", "slow", "b"].repeat(20);
    body.send_data(part(&keys), false).expect("a part");
    body.send_data(part(&["c"]), true).expect("a part");
    assert_eq!(status(response).await, "4");
    client.settled().await;
    assert_eq!(SETS.get(), first + 2);
    assert_eq!(client.stopped(Cause::Deadline), 1);
}
