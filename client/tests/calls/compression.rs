//! Compression above a size, against connectrpc's own server, which reads what it is
//! sent and compresses answers of 1 KiB and more for whoever offers to read them.

use super::*;

const ABOVE: usize = 4096;
const LARGE: usize = 100_000;

/// What a server saw of a call: `grpc-encoding`, and what was sent.
type Seen = (Option<String>, usize);

fn encoding(context: &RequestContext) -> Option<String> {
    assert_eq!(context.headers()["grpc-accept-encoding"], "gzip");
    let value = context.headers().get("grpc-encoding")?;
    Some(value.to_str().unwrap().to_owned())
}

fn text(bytes: usize) -> Vec<u8> {
    let words = b"the quick brown fox jumps over the lazy dog and goes home ";
    words.iter().copied().cycle().take(bytes).collect()
}

/// Bytes that nothing makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(next).collect()
}

fn large(key: &str) -> wire::Entry {
    wire::Entry {
        value: text(LARGE),
        ..entry(key)
    }
}

/// A server of set, get, dump and load, which writes down what it is sent; and a client
/// of it that compresses.
async fn both(log: &Log<Seen>, sizes: &Log<(String, Option<Code>, u64, u64)>) -> ClientConfig {
    let seen = Arc::clone(log);
    let set = handler_fn(move |context: RequestContext, request: wire::SetRequest| {
        let calls = note(&seen, (encoding(&context), request.value.len()));
        async move {
            if request.key == b"again" && calls == 1 {
                return Err(ConnectError::unavailable("not yet"));
            }
            let stored = set_response::Applied::default();
            Response::ok(wire::SetResponse {
                outcome: Some(stored.into()),
                ..wire::SetResponse::default()
            })
        }
    });
    let get = handler_fn(|context: RequestContext, _: wire::GetRequest| async move {
        assert_eq!(encoding(&context), None);
        Response::ok(wire::GetResponse {
            outcome: Some(large("k").into()),
            ..wire::GetResponse::default()
        })
    });
    let dump = streaming_handler_fn(|context: RequestContext, _: wire::DumpRequest| async move {
        assert_eq!(encoding(&context), None);
        let part = |entry| wire::DumpResponse {
            entries: vec![entry],
            ..wire::DumpResponse::default()
        };
        let parts = [Ok(part(large("a"))), Ok(part(entry("b")))];
        let parts: ServiceStream<_> = Box::pin(futures::stream::iter(parts));
        Response::ok(parts)
    });
    let seen = Arc::clone(log);
    let load = bidi_streaming_handler_fn(
        move |context: RequestContext, parts: ServiceStream<wire::LoadRequest>| {
            let seen = Arc::clone(&seen);
            async move {
                let encoding = encoding(&context);
                let mut stored = 0;
                let replies = parts.map(move |part| {
                    let part = part?;
                    let bytes = part.entries.iter().map(|entry| entry.value.len()).sum();
                    note(&seen, (encoding.clone(), bytes));
                    stored += i64::try_from(part.entries.len()).unwrap();
                    Ok(wire::LoadResponse {
                        stored_count: stored,
                        ..wire::LoadResponse::default()
                    })
                });
                let stream: ServiceStream<wire::LoadResponse> = Box::pin(replies);
                ServiceResult::Ok(Response::new(stream))
            }
        },
    );
    let router = Router::new()
        .route(SERVICE, "Set", set)
        .route(SERVICE, "Get", get)
        .route_server_stream(SERVICE, "Dump", dump)
        .route_bidi_stream(SERVICE, "Load", load);
    serve(router)
        .await
        .with_compression_above(ABOVE)
        .with_interceptor(Watcher(Arc::clone(sizes)))
}

/// Bytes of the messages of the call that ended last, each way.
fn last(sizes: &Log<(String, Option<Code>, u64, u64)>) -> (u64, u64) {
    let sizes = sizes.lock().unwrap();
    let (_, ended, sent, received) = sizes.last().unwrap();
    assert!(ended.is_some());
    (*sent, *received)
}

#[tokio::test]
async fn a_request_is_compressed_from_a_size_on_if_that_makes_it_smaller() {
    let (log, sizes) = (Log::default(), Log::default());
    let client = Client::connect(both(&log, &sizes).await).await.unwrap();
    let message = |value: &[u8]| wire::SetRequest {
        key: b"k".to_vec(),
        value: value.to_vec(),
        ..wire::SetRequest::default()
    };
    let plain = |value: &[u8]| message(value).encode_to_vec().len();
    let overhead = plain(&text(ABOVE)) - ABOVE;
    for (value, is_compressed) in [
        (text(ABOVE - overhead), true),
        (text(ABOVE - overhead - 1), false),
        (text(LARGE), true),
        (noise(LARGE), false),
        (text(10), false),
    ] {
        client
            .set("k", value.clone(), SetOptions::default())
            .await
            .unwrap();
        let expected = is_compressed.then(|| "gzip".to_owned());
        assert_eq!(log.lock().unwrap().last(), Some(&(expected, value.len())));
        let (sent, _) = last(&sizes);
        match is_compressed {
            true => assert!(sent < plain(&value) as u64 / 10, "{sent}"),
            false => assert_eq!(sent, plain(&value) as u64),
        }
    }
}

#[tokio::test]
async fn a_compressed_request_is_sent_again_as_it_was() {
    let (log, sizes) = (Log::default(), Log::default());
    let client = Client::connect(both(&log, &sizes).await).await.unwrap();
    let value = text(LARGE);
    client
        .set("again", value, SetOptions::default())
        .await
        .unwrap();
    let seen = (Some("gzip".to_owned()), LARGE);
    assert_eq!(*log.lock().unwrap(), [seen.clone(), seen]);
}

#[tokio::test]
async fn compressed_replies_are_read_within_the_limit() {
    let (log, sizes) = (Log::default(), Log::default());
    let config = both(&log, &sizes).await;
    let client = Client::connect(config.clone()).await.unwrap();
    let found = client.get("k").await.unwrap().unwrap();
    assert_eq!(found.value, text(LARGE));
    assert!(last(&sizes).1 < LARGE as u64 / 10);
    let mut dump = client.dump("");
    let mut values = Vec::new();
    while let Some(entry) = dump.next().await.unwrap() {
        values.push(entry.value);
    }
    assert_eq!(values, [text(LARGE), b"value".to_vec()]);
    drop(dump);
    assert!(last(&sizes).1 < LARGE as u64 / 10);

    let most = 20_000;
    let bounded = Client::connect(config.with_max_reply_bytes(most))
        .await
        .unwrap();
    for error in [
        bounded.get("k").await.unwrap_err(),
        bounded.dump("").next().await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        assert!(
            error.to_string().contains("at most 20000 are taken"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_messages_of_a_load_are_compressed_one_by_one() {
    let (log, sizes) = (Log::default(), Log::default());
    let client = Client::connect(both(&log, &sizes).await).await.unwrap();
    let mut loader = client.load();
    for (key, value) in [
        ("a", text(300 << 10)),
        ("b", noise(300 << 10)),
        ("c", text(10)),
    ] {
        loader.push(Entry::new(key, value)).await.unwrap();
    }
    assert_eq!(loader.finish().await.unwrap().stored, 3);
    let seen = |bytes| (Some("gzip".to_owned()), bytes);
    let expected = [seen(300 << 10), seen(300 << 10), seen(10)];
    assert_eq!(*log.lock().unwrap(), expected);
    let (sent, _) = last(&sizes);
    assert!((300 << 10..330 << 10).contains(&sent), "{sent}");
}
