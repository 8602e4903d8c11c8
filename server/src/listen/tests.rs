//! A panic, from the socket to the socket: it ends its own call, whatever the lane
//! and the protocol, and neither the others of its connection nor the server.
//! What panics is the store of the edge's tests.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use buffa::Message as _;
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::edge::decode_options;
use crate::edge::tests::server;
use crate::rpc;

/// A server, and its address.
async fn serving() -> (serve::Running, String, impl Sized) {
    let kept = server();
    let core = Arc::clone(&kept.core);
    let (router, _) = rpc::router(&core, Role::Cache).expect("a router");
    let listening = Listening {
        protocols: Protocols::new(router, &core),
        core,
        decode: decode_options(),
        role: Role::Cache,
    };
    let socket = Socket::bind(&"127.0.0.1:0".parse().expect("an address"))
        .await
        .expect("a socket");
    let address = socket.address().expect("an address");
    let config = serve::Config {
        threads: 1,
        ..serve::Config::default()
    };
    let (running, _) = start(vec![socket], None, listening, config).expect("threads");
    (running, address, kept)
}

/// `grpc-status`, and the reason in the details, if there is one.
async fn call(
    client: &SendRequest<Bytes>,
    lane: &[(&str, &str)],
    path: &str,
    message: Vec<u8>,
) -> (String, Option<String>) {
    let mut request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in lane {
        request = request.header(*name, *value);
    }
    let mut client = client.clone().ready().await.expect("a connection");
    let request = request.body(()).expect("a request");
    let (response, mut sender) = client.send_request(request, false).expect("a stream");
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let framed = [&[0][..], &length, &message].concat();
    sender.send_data(framed.into(), true).expect("a request");
    let (head, mut body) = response.await.expect("an answer").into_parts();
    while let Some(data) = body.data().await {
        let data = data.expect("content");
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.expect("trailers");
    let fields = trailers.unwrap_or(head.headers);
    let text = |name: &str| Some(fields.get(name)?.to_str().expect("text").to_owned());
    let reason = text("grpc-status-details-bin").map(|details| {
        let either =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let details = GeneralPurpose::new(&STANDARD, either)
            .decode(details)
            .expect("base64");
        let status = larder_api::google_rpc::Status::decode_from_slice(&details).expect("a status");
        larder_api::google_rpc::ErrorInfo::decode_from_slice(&status.details[0].value)
            .expect("an ErrorInfo")
            .reason
    });
    (text("grpc-status").expect("a status"), reason)
}

fn get(key: &str) -> Vec<u8> {
    larder_api::cache_v1::GetRequest {
        key: key.into(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn set(key: &str) -> Vec<u8> {
    larder_api::cache_v1::SetRequest {
        key: key.into(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn dump(prefix: &str) -> Vec<u8> {
    larder_api::cache_v1::DumpRequest {
        prefix: prefix.into(),
        ..Default::default()
    }
    .encode_to_vec()
}

#[tokio::test]
async fn a_panic_ends_its_own_call_alone_on_both_lanes() {
    const SERVICE: &str = "/larder.cache.v1.CacheService";
    let (running, address, _kept) = serving().await;
    let io = TcpStream::connect(&address).await.expect("a connection");
    let (client, connection) = h2::client::handshake(io).await.expect("HTTP/2");
    tokio::spawn(connection);
    // No message uses it: the call takes the general lane.
    for lane in [&[][..], &[("grpc-encoding", "gzip")]] {
        // Another call of the same connection waits all the while.
        let path = format!("{SERVICE}/Dump");
        let waiting = call(&client, lane, &path, dump("wait"));
        tokio::pin!(waiting);
        let panics = async {
            for (method, panicking, sound) in [
                ("Get", get("panic"), get("k")),
                ("Set", set("panic"), set("k")),
                ("Dump", dump("panic"), dump("k")),
            ] {
                let path = format!("{SERVICE}/{method}");
                for _ in 0..3 {
                    let (status, reason) = call(&client, lane, &path, panicking.clone()).await;
                    assert_eq!(status, "13", "{method} {lane:?}");
                    assert_eq!(reason.as_deref(), Some("INTERNAL_FAULT"));
                }
                let (status, _) = call(&client, lane, &path, sound).await;
                assert_eq!(status, "0", "{method} {lane:?}");
            }
        };
        tokio::select! {
            ended = &mut waiting => panic!("the call that waits ended with {ended:?}"),
            () = panics => {}
        }
    }
    running.abort();
    running.ended().await;
}

#[tokio::test]
async fn a_panic_ends_its_own_call_alone_over_http_1() {
    let (running, address, _kept) = serving().await;
    let mut io = TcpStream::connect(&address).await.expect("a connection");
    let mut received = Vec::new();
    // `panic` and `k`, in base64, on one connection.
    for (key, head, part) in [
        ("cGFuaWM=", "HTTP/1.1 500 ", "INTERNAL_FAULT"),
        ("aw==", "HTTP/1.1 200 ", "\"miss\""),
        ("cGFuaWM=", "HTTP/1.1 500 ", "INTERNAL_FAULT"),
    ] {
        let body = format!("{{\"key\":\"{key}\"}}");
        let request = format!(
            "POST /larder.cache.v1.CacheService/Get HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        io.write_all(request.as_bytes()).await.expect("written");
        received.clear();
        while !String::from_utf8_lossy(&received).contains(part) {
            let read = io.read_buf(&mut received).await.expect("an answer");
            assert!(read > 0, "{key}: {}", String::from_utf8_lossy(&received));
        }
        let text = String::from_utf8_lossy(&received).into_owned();
        assert!(text.starts_with(head), "{text}");
        // All of it, before the next one.
        while !received.ends_with(b"}") {
            io.read_buf(&mut received).await.expect("the rest");
        }
    }
    running.abort();
    running.ended().await;
}
