//! How long calls last whose callers give no time, or too much of it.

use super::*;
use crate::refusals::Cause;

/// How long a call took to end, and how.
async fn timed(server: &Server, request: Request<Full<Bytes>>) -> (Ended, Duration) {
    let began = crate::clock::instant();
    let ended = ended(server, request).await;
    (ended, crate::clock::instant() - began)
}

#[tokio::test(start_paused = true)]
async fn a_call_has_the_servers_time_if_its_caller_gives_none_or_more() {
    let server = server();
    let limits = server.core.deadlines;
    let check = async |request: Request<Full<Bytes>>, expected: Duration| {
        let ((code, _), took) = timed(&server, request).await;
        assert_eq!(code, Code::DeadlineExceeded);
        // A timer rounds up to its grain.
        assert!(took >= expected && took < expected + Duration::from_millis(10));
    };
    for kind in PROTOCOLS {
        check(keyed(kind, "Get", "wait"), limits.default).await;
        let name = match kind.starts_with("application/grpc") {
            true => "grpc-timeout",
            false => "connect-timeout-ms",
        };
        let (long, short) = match name {
            "grpc-timeout" => ("9999H", "90S"),
            _ => ("9999999999", "90000"),
        };
        check(with(keyed(kind, "Get", "wait"), name, long), limits.max).await;
        let more_than_usual = Duration::from_secs(90);
        check(
            with(keyed(kind, "Get", "wait"), name, short),
            more_than_usual,
        )
        .await;
    }
    check(dump("application/grpc", "wait"), limits.max).await;
    check(dump("application/grpc-web", "wait"), limits.max).await;
    let ended = server.core.refusals.of(Cause::Deadline);
    assert_eq!(ended, 3 * PROTOCOLS.len() as u64 + 2);
}

/// A request whose body never comes to its end, after what is there.
fn endless(
    request: Request<Full<Bytes>>,
) -> Request<impl http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Unpin + Send> {
    use futures::StreamExt as _;
    let (head, body) = request.into_parts();
    let first = futures::stream::once(async move {
        let bytes = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        bytes.map(http_body::Frame::data)
    });
    let frames = first.chain(futures::stream::pending()).boxed();
    Request::from_parts(head, http_body_util::StreamBody::new(frames))
}

#[tokio::test(start_paused = true)]
async fn a_reflection_stream_ends_with_its_deadline_and_with_the_server() {
    let list_services = [0x3a, 0];
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let ask = || {
            let body = framed("application/grpc", &list_services);
            endless(request("application/grpc", &path, body))
        };
        let check = async |server: Server, request, status: &str, after: Duration| {
            let began = crate::clock::instant();
            let response = server.edge.serve(request).await;
            let collected = response.into_body().collect().await.expect("a body");
            let trailers = collected.trailers().cloned().expect("trailers");
            assert_eq!(trailers["grpc-status"], status);
            assert!(trailers.contains_key("grpc-status-details-bin"));
            let took = crate::clock::instant() - began;
            assert!(
                took >= after && took < after + Duration::from_millis(10),
                "{status} {took:?} {trailers:?}"
            );
        };
        // A body that never ends keeps its call: each has a server of its own.
        check(server(), ask(), "4", Deadlines::default().max).await;
        let mut soon = ask();
        let timeout = "3S".parse().expect("a header value");
        soon.headers_mut().insert("grpc-timeout", timeout);
        check(server(), soon, "4", Duration::from_secs(3)).await;
        let stopped = server();
        let stop = stopped.core.stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            stop.cancel();
        });
        check(stopped, ask(), "14", Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn callers_who_go_away_are_counted() {
    let server = server();
    let request = keyed("application/grpc", "Get", "wait");
    let gone = async { server.edge.serve(request).await };
    meanwhile(gone, std::future::ready(())).await;
    assert_eq!(server.core.refusals.of(Cause::Cancelled), 1);
}

#[tokio::test]
async fn an_account_has_so_many_streams_and_calls_at_a_time() {
    let check = async |limits: (u32, u32), first: &str, refused: &str, served: &str| {
        let server = server_with(Admission {
            max_calls_per_account: limits.0,
            max_streams_per_account: limits.1,
            ..Admission::default()
        });
        let call = |method: &str, key: &str| match method {
            "Dump" => dump("application/grpc", key),
            // Nobody's.
            "Check" => {
                let body = framed("application/grpc", &[]);
                request("application/grpc", "/grpc.health.v1.Health/Check", body)
            }
            method => keyed("application/grpc", method, key),
        };
        let mut waiting = Box::pin(ended(&server, call(first, "wait")));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let limited = failed(Reason::ConcurrencyLimited);
        assert_eq!(ended(&server, call(refused, "k")).await, limited);
        assert_eq!(ended(&server, call(served, "k")).await, OK);
        assert_eq!(server.core.refusals.of(Cause::ConcurrencyLimited), 1);
        drop(waiting);
        assert_eq!(ended(&server, call(refused, "k")).await, OK);
    };
    check((2, 1), "Dump", "Dump", "Get").await;
    check((1, 1), "Get", "Get", "Check").await;
}
