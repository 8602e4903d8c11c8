//! Compressed answers: on both lanes, for whoever offers to read them, of messages that
//! are large enough. Requests that are compressed wrongly.

use larder_api::cache_v1 as cache;
use larder_transport::gzip;

use super::*;

const OFFER: (&str, &str) = ("grpc-accept-encoding", "identity, deflate, gzip");

fn compressing(clock: &Arc<Clock>, above: usize) -> Server {
    let answers_above = Some(above);
    set_to(clock, Vec::new(), Compression { answers_above })
}

/// The messages of an answer, framed, each with its flag and as it is when it is whole.
fn messages(mut body: &[u8], encoding: Option<&str>) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into().expect("four bytes"));
        let (message, rest) = rest.split_at(length as usize);
        let message = match head[0] {
            0 => message.to_vec(),
            _ => {
                assert_eq!(encoding, Some("gzip"), "it says so");
                gzip::decompress(message, 1 << 30).expect("a gzip").to_vec()
            }
        };
        found.push((head[0], message));
        body = rest;
    }
    assert!(body.is_empty(), "whole messages");
    found
}

/// The same body, with nothing in it compressed.
pub(super) fn whole(body: &[u8], encoding: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, message) in messages(body, encoding) {
        out.push(0);
        out.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
        out.extend(message);
    }
    out
}

#[tokio::test(start_paused = true)]
async fn both_lanes_say_the_same_when_they_compress() {
    let clock = Arc::new(Clock::start_steady());
    let servers = [compressing(&clock, 64), compressing(&clock, 64)];
    ask_both(&servers, &[OFFER]).await;
}

fn framed(message: &impl buffa::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// A call's answer as it came: `grpc-encoding`, its status, and its body.
async fn raw(
    client: &SendRequest<Bytes>,
    path: &str,
    metadata: &[(&str, &str)],
    body: Vec<u8>,
) -> (HeaderMap, HeaderMap, Vec<u8>) {
    let mut request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let mut client = client.clone().ready().await.expect("a connection");
    let request = request.body(()).expect("a request");
    let (response, mut sender) = client.send_request(request, false).expect("a stream");
    let _ = sender.send_data(body.into(), true);
    let (head, mut received) = response.await.expect("an answer").into_parts();
    let mut body = Vec::new();
    while let Some(data) = received.data().await {
        let data = data.expect("content");
        let _ = received.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let trailers = received.trailers().await.expect("trailers");
    (head.headers, trailers.unwrap_or_default(), body)
}

const GET: &str = "/larder.cache.v1.CacheService/Get";
const DUMP: &str = "/larder.cache.v1.CacheService/Dump";
const LOAD: &str = "/larder.cache.v1.CacheService/Load";
const ABOVE: usize = 4096;
/// Which lane a request takes.
const LANES: [&[(&str, &str)]; 2] = [&[], &[("grpc-encoding", "gzip")]];

/// A server with a large text, as much noise, and a small value.
async fn filled(server: &Server) -> (SendRequest<Bytes>, impl Sized + use<>) {
    let (client, course) = connect(server).await;
    let mut random = Random(7);
    let noise = (0..5000).map(|_| random.next().to_le_bytes()[0]).collect();
    let text = b"the quick brown fox ".repeat(1000);
    for (key, value) in [
        ("text", text),
        ("noise", noise),
        ("small", vec![b'x'; 1000]),
    ] {
        let set = cache::SetRequest {
            key: key.into(),
            value,
            ..cache::SetRequest::default()
        };
        let path = "/larder.cache.v1.CacheService/Set";
        let (_, trailers, _) = raw(&client, path, &[], framed(&set)).await;
        assert_eq!(trailers["grpc-status"], "0");
    }
    (client, course)
}

fn get(key: &str) -> Vec<u8> {
    framed(&cache::GetRequest {
        key: key.into(),
        ..cache::GetRequest::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_message_is_compressed_that_is_large_and_whose_caller_offers_to_read_it() {
    let clock = Arc::new(Clock::start_steady());
    let on = compressing(&clock, ABOVE);
    let off = server(&clock);
    let sent = |server: &Server| {
        let totals = server.listening.core.telemetry.meters.totals();
        totals.series.iter().map(|it| it.sent.sum).sum::<u64>()
    };
    for lane in LANES {
        let offered = |value: &'static str| [lane, &[("grpc-accept-encoding", value)]].concat();
        let is_typed = lane.is_empty();
        for (server, key, metadata, flag) in [
            (&on, "text", offered(OFFER.1), 1),
            (&on, "text", offered("gzip"), 1),
            (&on, "text", offered("zstd,br"), 0),
            (&on, "text", lane.to_vec(), 0),
            (&on, "small", offered(OFFER.1), 0),
            // connectrpc does not ask whether it is smaller.
            (&on, "noise", offered(OFFER.1), u8::from(!is_typed)),
            (&off, "text", offered(OFFER.1), 0),
        ] {
            let (client, _course) = filled(server).await;
            let before = sent(server);
            let (head, trailers, body) = raw(&client, GET, &metadata, get(key)).await;
            assert_eq!(trailers["grpc-status"], "0");
            let encoding = head
                .get("grpc-encoding")
                .map(|it| it.to_str().expect("text"));
            if is_typed {
                assert_eq!(encoding.is_some(), flag == 1, "{key} {metadata:?}");
            }
            let seen = messages(&body, encoding);
            assert_eq!((seen.len(), seen[0].0), (1, flag), "{key} {metadata:?}");
            assert!(seen[0].1.len() > 1000);
            assert_eq!(flag == 1 && key == "text", body.len() < 500);
            // What was sent counts, and not what it stands for.
            assert_eq!(sent(server) - before, body.len() as u64 - 5);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dump_is_compressed_message_by_message() {
    let server = compressing(&Arc::new(Clock::start_steady()), ABOVE);
    let (client, _course) = filled(&server).await;
    for lane in LANES {
        let metadata = [lane, &[OFFER]].concat();
        let (head, trailers, body) = raw(&client, DUMP, &metadata, vec![0; 5]).await;
        assert_eq!(
            (&head["grpc-encoding"], &trailers["grpc-status"]),
            (
                &"gzip".parse().expect("a value"),
                &"0".parse().expect("a value")
            )
        );
        assert!(body.len() < 10_000, "{}", body.len());
        let seen = messages(&body, Some("gzip"));
        assert!(
            seen.iter()
                .any(|(flag, message)| *flag == 1 && message.len() > 20_000)
        );
        let (_, _, plain) = raw(&client, DUMP, lane, vec![0; 5]).await;
        assert_eq!(whole(&body, Some("gzip")), plain);
        // A failure has no head of its own.
        let bad = framed(&cache::DumpRequest {
            namespace: "\u{e4}".into(),
            ..cache::DumpRequest::default()
        });
        let (head, _, _) = raw(&client, DUMP, &metadata, bad).await;
        assert_eq!(head["grpc-status"], "3", "without trailers");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_in_another_encoding_is_told_those_that_there_are() {
    let server = server(&Arc::new(Clock::start_steady()));
    let (client, _course) = connect(&server).await;
    for encoding in ["br", "snappy", "deflate", "GZIP"] {
        for path in [GET, DUMP, LOAD] {
            let mut body = get("k");
            body[0] = 1;
            let metadata = [("grpc-encoding", encoding)];
            let (head, trailers, _) = raw(&client, path, &metadata, body).await;
            let status = head.get("grpc-status").or(trailers.get("grpc-status"));
            assert_eq!(status.expect("a status"), "12", "{path}: UNIMPLEMENTED");
            assert_eq!(head["grpc-accept-encoding"], "gzip, zstd", "{path}");
        }
    }
}

/// The most that the server of these tests receives at a time is 1 MiB.
#[tokio::test(start_paused = true)]
async fn what_a_request_is_when_it_is_whole_counts_as_received() {
    let server = server(&Arc::new(Clock::start_steady()));
    let (client, _course) = connect(&server).await;
    let zipped = |message: Vec<u8>| {
        let packed = gzip::compress(&message).expect("smaller");
        let length = u32::try_from(packed.len()).expect("short");
        [&[1][..], &length.to_be_bytes(), &packed].concat()
    };
    let set = |bytes: usize| cache::SetRequest {
        key: b"k".to_vec(),
        value: vec![b'x'; bytes],
        ..cache::SetRequest::default()
    };
    let load = |bytes: usize| cache::LoadRequest {
        entries: vec![cache::Entry {
            key: b"k".to_vec(),
            value: vec![b'x'; bytes],
            ..cache::Entry::default()
        }],
        ..cache::LoadRequest::default()
    };
    let metadata = [("grpc-encoding", "gzip".to_owned())];
    for (bytes, status, reason) in [
        (900 << 10, "0", None),
        (2 << 20, "14", Some("OVERLOADED")),
        (900 << 10, "0", None),
        (6 << 20, "8", Some("MESSAGE_TOO_LARGE")),
        (900 << 10, "0", None),
    ] {
        for (path, body) in [
            (
                "/larder.cache.v1.CacheService/Set",
                set(bytes).encode_to_vec(),
            ),
            (LOAD, load(bytes).encode_to_vec()),
        ] {
            let body = zipped(body);
            assert!(body.len() < 10_000);
            let seen = ask(&client, path, &metadata, &body).await;
            assert_eq!(seen.status.as_deref(), Some(status), "{path} {bytes}");
            let shown = format!("{:?}", seen.details);
            assert!(
                reason.is_none_or(|reason| shown.contains(reason)),
                "{shown}"
            );
            seen.check_reason();
        }
    }
}
