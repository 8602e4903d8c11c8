//! The client against a small server in the same process, which misbehaves in
//! the ways that matter.

#![allow(clippy::unwrap_used, reason = "in a test, a surprise is a failure")]

#[path = "calls/compression.rs"]
mod compression;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use buffa::Message as _;
use connectrpc::{
    ConnectError, RequestContext, Response, Router, Server, ServiceResult, ServiceStream,
    bidi_streaming_handler_fn, handler_fn, streaming_handler_fn,
};
use futures::StreamExt as _;
use larder_api::cache_v1::{self as wire, batch_get_response, get_response, set_response};
use larder_client::{
    CallEnd, CallStart, Client, ClientConfig, Code, DeleteOptions, Entry, IncrementOptions,
    Interceptor, Metadata, SetOptions, SetOutcome, Token,
};

const SERVICE: &str = "larder.cache.v1.CacheService";

/// What a handler writes down, for the test to look at.
type Log<T> = Arc<Mutex<Vec<T>>>;

async fn serve(router: Router) -> ClientConfig {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve(router));
    ClientConfig::new(&format!("http://{address}")).unwrap()
}

fn note<T>(log: &Log<T>, item: T) -> usize {
    let mut log = log.lock().unwrap();
    log.push(item);
    log.len()
}

fn entry(key: &str) -> wire::Entry {
    wire::Entry {
        key: key.into(),
        value: b"value".to_vec(),
        version: 7,
        ..wire::Entry::default()
    }
}

fn keys(entries: &[Entry]) -> Vec<String> {
    let texts = entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.key));
    texts.map(std::borrow::Cow::into_owned).collect()
}

#[tokio::test]
async fn a_call_carries_credential_deadline_and_namespace() {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let get = handler_fn(move |ctx: RequestContext, request: wire::GetRequest| {
        note(&seen, (ctx.headers().clone(), request.clone()));
        async move {
            let outcome = match &request.key[..] {
                b"here" => get_response::Outcome::from(entry("here")),
                _ => get_response::Miss::default().into(),
            };
            Response::ok(wire::GetResponse {
                outcome: Some(outcome),
                ..wire::GetResponse::default()
            })
        }
    });
    let config = serve(Router::new().route(SERVICE, "Get", get)).await;
    let config = config
        .with_token(Token::new("s3cret").unwrap())
        .with_timeout(Duration::from_secs(30));
    let client = Client::connect(config).await.unwrap();

    let found = client
        .in_namespace("other")
        .get("here")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&found.value[..], found.version), (&b"value"[..], 7));
    assert_eq!(client.get("gone").await.unwrap(), None);

    let log = log.lock().unwrap();
    let (headers, request) = &log[0];
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert!(headers.contains_key("grpc-timeout"));
    assert!(!headers.contains_key("grpc-accept-encoding"));
    assert!(!headers.contains_key("dry-run"));
    assert_eq!(request.namespace, "other");
    assert_eq!(log[1].1.namespace, "");
}

/// Writes down every call.
struct Watcher(Log<(String, Option<Code>, u64, u64)>);

impl Interceptor for Watcher {
    fn start(&self, call: &CallStart<'_>, metadata: &mut Metadata<'_>) {
        assert!(metadata.get("authorization").is_none());
        metadata.insert("x-watched", "yes").unwrap();
        note(&self.0, (call.method.to_owned(), None, 0, 0));
    }

    fn end(&self, call: &CallEnd<'_>) {
        let method = call.method.to_owned();
        let seen = (
            method,
            Some(call.code),
            call.request_bytes,
            call.response_bytes,
        );
        note(&self.0, seen);
    }
}

#[tokio::test]
async fn an_interceptor_sees_the_start_and_the_end_of_every_call() {
    let get = handler_fn(
        |ctx: RequestContext, request: wire::GetRequest| async move {
            assert_eq!(ctx.headers()["x-watched"], "yes");
            match &request.key[..] {
                b"bad" => Err(ConnectError::permission_denied("no")),
                b"slow" => std::future::pending().await,
                _ => Response::ok(wire::GetResponse {
                    outcome: Some(get_response::Miss::default().into()),
                    ..wire::GetResponse::default()
                }),
            }
        },
    );
    let dump = streaming_handler_fn(|_: RequestContext, _: wire::DumpRequest| async move {
        let part = wire::DumpResponse {
            entries: vec![entry("a")],
            ..wire::DumpResponse::default()
        };
        let parts: ServiceStream<_> = Box::pin(futures::stream::iter([Ok(part.clone()), Ok(part)]));
        Response::ok(parts)
    });
    let router = Router::new()
        .route(SERVICE, "Get", get)
        .route_server_stream(SERVICE, "Dump", dump);
    let log = Log::default();
    let config = serve(router)
        .await
        .with_token(Token::new("s3cret").unwrap())
        .with_interceptor(Watcher(Arc::clone(&log)));
    let client = Client::connect(config).await.unwrap();
    client.get("gone").await.unwrap();
    client.get("bad").await.unwrap_err();
    let hasty = client.with_timeout(Duration::from_millis(50));
    hasty.get("slow").await.unwrap_err();
    let mut parts = client.dump("");
    while parts.next().await.unwrap().is_some() {}
    drop(parts);

    let log = log.lock().unwrap();
    let check = |at: usize, method: &str, code: Code, request: u64, response: u64| {
        let path = format!("/{SERVICE}/{method}");
        assert_eq!(log[2 * at], (path.clone(), None, 0, 0));
        let (ended, ended_with, sent, received) = &log[2 * at + 1];
        assert_eq!((ended, *ended_with), (&path, Some(code)));
        assert_eq!((*sent, *received), (request, response), "{method}");
    };
    let message = |key: &str| key.len() as u64 + 2;
    check(0, "Get", Code::Ok, message("gone"), 2);
    check(1, "Get", Code::PermissionDenied, message("bad"), 0);
    check(2, "Get", Code::DeadlineExceeded, message("slow"), 0);
    let part = 2 + entry("a").encode_to_vec().len() as u64;
    check(3, "Dump", Code::Ok, 0, 2 * part);
    assert_eq!(log.len(), 8);
}

#[tokio::test]
async fn an_interceptor_is_told_what_the_caller_is_of_an_answer_that_is_of_no_use() {
    let get = handler_fn(|_: RequestContext, _: wire::GetRequest| async {
        Response::ok(wire::GetResponse {
            outcome: Some(entry("a").into()),
            ..wire::GetResponse::default()
        })
    });
    let log = Log::default();
    let limit = r#"{"methodConfig": [{"name": [{}], "maxResponseMessageBytes": 1}]}"#;
    let config = serve(Router::new().route(SERVICE, "Get", get))
        .await
        .with_service_config(limit)
        .unwrap()
        .with_interceptor(Watcher(Arc::clone(&log)));
    let client = Client::connect(config).await.unwrap();
    let error = client.get("a").await.unwrap_err();
    let (_, ended_with, ..) = log.lock().unwrap()[1];
    assert_eq!(ended_with, Some(error.code()));
    assert_ne!(error.code(), Code::Ok);
}

#[tokio::test]
async fn a_dry_run_that_is_not_confirmed_is_an_error() {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let set = handler_fn(move |ctx: RequestContext, request: wire::SetRequest| {
        let marked = ctx
            .headers()
            .get("dry-run")
            .is_some_and(|value| value == "1");
        note(&seen, (marked, request.validate_only));
        async move {
            Response::ok(wire::SetResponse {
                outcome: Some(set_response::Applied::default().into()),
                // An old server, which knows no dry run, under one key.
                validated_only: request.validate_only && request.key != b"old",
                ..wire::SetResponse::default()
            })
        }
    });
    let client = Client::connect(serve(Router::new().route(SERVICE, "Set", set)).await)
        .await
        .unwrap();

    let rehearsal = client.dry_run();
    let reply = rehearsal.set("new", "v", SetOptions::new()).await.unwrap();
    assert!(matches!(reply.outcome, SetOutcome::Applied(_)));
    let error = rehearsal
        .set("old", "v", SetOptions::new())
        .await
        .unwrap_err();
    assert!(error.may_have_applied());
    assert!(!error.is_retryable());
    client.set("old", "v", SetOptions::new()).await.unwrap();
    assert_eq!(
        *log.lock().unwrap(),
        [(true, true), (true, true), (false, false)]
    );
}

#[tokio::test]
async fn deferred_keys_are_asked_for_again() {
    // Answers the first key of each call and defers the rest.
    let batch_get = handler_fn(
        |_: RequestContext, request: wire::BatchGetRequest| async move {
            let results = request.keys.iter().enumerate().map(|(at, key)| {
                let outcome: batch_get_response::result::Outcome = match (at, &key[..]) {
                    (_, b"stuck") | (1.., _) => batch_get_response::Deferred::default().into(),
                    (0, b"gone") => get_response::Miss::default().into(),
                    (0, key) => entry(std::str::from_utf8(key).unwrap()).into(),
                };
                batch_get_response::Result {
                    outcome: Some(outcome),
                    ..Default::default()
                }
            });
            Response::ok(wire::BatchGetResponse {
                results: results.collect(),
                ..wire::BatchGetResponse::default()
            })
        },
    );
    let client = Client::connect(serve(Router::new().route(SERVICE, "BatchGet", batch_get)).await)
        .await
        .unwrap();
    let found = client.batch_get(&["a", "gone", "b"]).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|entry| entry.as_ref().map(|entry| &entry.key[..]))
        .collect();
    assert_eq!(found, [Some(&b"a"[..]), None, Some(b"b")]);
    assert_eq!(client.batch_get::<&str>(&[]).await.unwrap(), []);
    let error = client.batch_get(&["stuck"]).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test]
async fn a_broken_dump_goes_on_where_it_broke() {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let dump = streaming_handler_fn(move |_: RequestContext, request: wire::DumpRequest| {
        let call = note(&seen, request.resume_token.clone());
        async move {
            let first: usize = request.resume_token.parse().unwrap_or(0);
            let parts = (first..4).map(|at| {
                Ok::<_, ConnectError>(wire::DumpResponse {
                    entries: vec![entry(&format!("k{at}"))],
                    resume_token: (at + 1).to_string(),
                    ..wire::DumpResponse::default()
                })
            });
            let parts: Vec<_> = match call {
                1 => parts
                    .take(2)
                    .chain([Err(ConnectError::unavailable("gone"))])
                    .collect(),
                2 => vec![Err(ConnectError::internal("cut"))],
                _ => parts.collect(),
            };
            let stream: ServiceStream<wire::DumpResponse> = Box::pin(futures::stream::iter(parts));
            ServiceResult::Ok(Response::new(stream))
        }
    });
    let client =
        Client::connect(serve(Router::new().route_server_stream(SERVICE, "Dump", dump)).await)
            .await
            .unwrap();
    let mut dump = client.dump("");
    let mut found = Vec::new();
    while let Some(entry) = dump.next().await.unwrap() {
        found.push(entry);
    }
    assert_eq!(keys(&found), ["k0", "k1", "k2", "k3"]);
    assert_eq!(*log.lock().unwrap(), ["", "2", "2"]);
    assert_eq!(dump.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_dump_that_is_refused_is_not_tried_again() {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let dump = streaming_handler_fn(move |_: RequestContext, _: wire::DumpRequest| {
        note(&seen, ());
        async move {
            let refused = ConnectError::permission_denied("no");
            ServiceResult::<ServiceStream<wire::DumpResponse>>::Err(refused)
        }
    });
    let client =
        Client::connect(serve(Router::new().route_server_stream(SERVICE, "Dump", dump)).await)
            .await
            .unwrap();
    let mut dump = client.dump("");
    assert_eq!(
        dump.next().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(log.lock().unwrap().len(), 1);
    assert_eq!(dump.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_broken_load_sends_again_what_was_not_acknowledged() {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let load = bidi_streaming_handler_fn(
        move |_: RequestContext, parts: ServiceStream<wire::LoadRequest>| {
            let seen = Arc::clone(&seen);
            async move {
                let mut stored = 0i64;
                let replies = parts.map(move |part| {
                    let part = part?;
                    let keys = part.entries.iter().map(|entry| entry.key[0]);
                    let calls = note(&seen, (part.namespace.clone(), keys.collect::<Vec<u8>>()));
                    if calls == 2 {
                        return Err(ConnectError::unavailable("gone"));
                    }
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
    let config = serve(Router::new().route_bidi_stream(SERVICE, "Load", load)).await;
    let client = Client::connect(config.with_namespace("ns")).await.unwrap();
    let mut loader = client.load();
    // Each fills a part of its own.
    for key in ["a", "b", "c"] {
        loader
            .push(Entry::new(key, vec![0; 300 << 10]))
            .await
            .unwrap();
    }
    let summary = loader.finish().await.unwrap();
    assert_eq!((summary.stored, summary.refused), (3, 0));
    let log = log.lock().unwrap();
    let sent: Vec<_> = log.iter().map(|(_, keys)| keys[0]).collect();
    // `a` was acknowledged, or not yet when the stream broke; never is a key
    // left out, and the namespace opens each stream.
    assert!(sent.starts_with(b"ab") && sent.ends_with(b"bc"), "{sent:?}");
    assert_eq!(log[0].0, "ns");
    assert_eq!(log[1].0, "");
    assert_eq!(log[2].0, "ns");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = ClientConfig::new(&server).unwrap();
    let error = Client::connect(config.clone()).await.unwrap_err();
    assert!(error.is_connect() && error.is_retryable() && !error.may_have_applied());

    let client = Client::lazy(config).unwrap();
    let error = client.set("k", "v", SetOptions::new()).await.unwrap_err();
    assert!(error.is_connect() && !error.may_have_applied(), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
}

/// Carries bytes to a server; each connection can be cut.
async fn proxy(to: String) -> (String, Log<tokio::task::AbortHandle>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let connections = Log::default();
    let made = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(&to).await.unwrap();
            let carried = tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
            note(&made, carried.abort_handle());
        }
    });
    (server, connections)
}

#[tokio::test]
async fn calls_share_a_connection_and_make_another_when_it_is_gone() {
    let get = handler_fn(|_: RequestContext, request: wire::GetRequest| async move {
        if request.key == b"slow" {
            std::future::pending::<()>().await;
        }
        Response::ok(wire::GetResponse {
            outcome: Some(get_response::Miss::default().into()),
            ..wire::GetResponse::default()
        })
    });
    let config = serve(Router::new().route(SERVICE, "Get", get)).await;
    let behind = Client::lazy(config).unwrap().endpoint().to_string();
    let (server, connections) = proxy(behind.replace("http://", "")).await;
    // Without a policy that tries it again: what is lost is seen to be lost.
    let config = ClientConfig::new(&server).unwrap();
    let client = Client::lazy(config.with_service_config("{}").unwrap()).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calls.spawn(async move { client.get("x").await });
    }
    while let Some(found) = calls.join_next().await {
        assert_eq!(found.unwrap().unwrap(), None);
    }
    assert_eq!(connections.lock().unwrap().len(), 1);

    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.get("slow").await }
    });
    client.get("x").await.unwrap();
    connections.lock().unwrap()[0].abort();
    let error = slow.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(!error.is_connect() && error.is_retryable());
    client.get("x").await.unwrap();
    client.get("x").await.unwrap();
    assert_eq!(connections.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_deadline_ends_the_wait() {
    let get = handler_fn(|_: RequestContext, _: wire::GetRequest| {
        std::future::pending::<ServiceResult<wire::GetResponse>>()
    });
    let config = serve(Router::new().route(SERVICE, "Get", get)).await;
    let client = Client::connect(config.with_timeout(Duration::from_millis(20)))
        .await
        .unwrap();
    let error = client.get("k").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(!error.may_have_applied());
}

/// It need not run: that a call may cross threads is the promise.
fn spawnable<T: Send>(future: impl Future<Output = T> + Send + 'static) {
    drop(future);
}

#[tokio::test]
async fn every_call_may_cross_threads() {
    let config = || ClientConfig::new("http://127.0.0.1:1").expect("a URL");
    let client = || Client::lazy(config()).expect("a client");
    let c = client();
    spawnable(async move { c.get("x").await.is_ok() });
    let c = client();
    spawnable(async move { c.set("x", "y", SetOptions::new()).await.is_ok() });
    let c = client();
    spawnable(async move { c.delete("x", DeleteOptions::new()).await.is_ok() });
    let c = client();
    spawnable(async move { c.increment("x", 1, IncrementOptions::new()).await.is_ok() });
    let c = client();
    spawnable(async move { c.usage().await.is_ok() });
    let c = client();
    spawnable(async move { c.batch_get(&["a"]).await.is_ok() });
    let c = client();
    spawnable(async move { c.load().push(Entry::new("a", "b")).await.is_ok() });
    let c = client();
    spawnable(async move { c.dump("x").next_part().await.is_ok() });
    let c = client();
    spawnable(async move { c.accounts().get("x").await.is_ok() });
    let c = client();
    spawnable(async move { c.accounts().pages().next_page().await.is_ok() });
    let c = client();
    spawnable(async move { c.talk().dump().await.is_ok() });
    spawnable(async move { Client::connect(config()).await.is_ok() });
}
