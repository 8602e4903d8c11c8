//! What the client's channel does for calls, by a server of its own in the same process.

#![allow(clippy::unwrap_used, reason = "in a test, a surprise is a failure")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connectrpc::{ConnectError, RequestContext, Response, Router, Server, handler_fn};
use larder_api::accounts_v1 as control;
use larder_api::cache_v1::{self as wire, batch_get_response, get_response, set_response};
use larder_client::{
    AccountChange, Balancing, Client, ClientConfig, Code, Condition, FillError, FillOrigin,
    MetricValue, Metrics, RingHash, SetOptions, Token, TokenRights,
};
use tokio::time::Instant;

const SERVICE: &str = "larder.cache.v1.CacheService";

async fn serve(router: Router) -> ClientConfig {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve(router));
    ClientConfig::new(&format!("http://{address}")).unwrap()
}

/// How often each kind of call was made.
#[derive(Default)]
struct Counts {
    gets: AtomicUsize,
    sets: AtomicUsize,
    batches: AtomicUsize,
    /// What each call had in `traceparent` and in `grpc-previous-rpc-attempts`.
    seen: Mutex<Vec<(Option<String>, Option<String>)>>,
}

impl Counts {
    fn note(&self, context: &RequestContext) {
        let text = |name: &str| {
            let value = context.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let seen = (text("traceparent"), text("grpc-previous-rpc-attempts"));
        self.seen.lock().unwrap().push(seen);
    }
}

fn add(count: &AtomicUsize) -> usize {
    count.fetch_add(1, Ordering::SeqCst) + 1
}

fn outcome(key: &[u8]) -> get_response::Outcome {
    match key.starts_with(b"gone") {
        true => get_response::Miss::default().into(),
        false => get_response::Outcome::from(entry(key)),
    }
}

fn entry(key: &[u8]) -> wire::Entry {
    wire::Entry {
        key: key.to_vec(),
        value: [b"value of ", key].concat(),
        ..wire::Entry::default()
    }
}

/// Has every key that does not begin with `gone`. A get of `flaky` fails on each first try; keys
/// that begin with `bad` are refused; a set of `lost` fails with nobody knowing what it did, and
/// then with a refusal that had no effect.
fn router(counts: &Arc<Counts>) -> Router {
    let seen = Arc::clone(counts);
    let get = handler_fn(move |context: RequestContext, request: wire::GetRequest| {
        seen.note(&context);
        let number = add(&seen.gets);
        async move {
            match &request.key[..] {
                b"flaky" if number % 2 == 1 => Err(ConnectError::unavailable("not now")),
                b"slow" => std::future::pending().await,
                key if key.starts_with(b"bad") => Err(ConnectError::invalid_argument("bad key")),
                key => Response::ok(wire::GetResponse {
                    outcome: Some(outcome(key)),
                    ..wire::GetResponse::default()
                }),
            }
        }
    });
    let seen = Arc::clone(counts);
    let set = handler_fn(move |context: RequestContext, request: wire::SetRequest| {
        seen.note(&context);
        let number = add(&seen.sets);
        async move {
            match (&request.key[..], number) {
                (b"lost", 1) => Err(ConnectError::unavailable("who knows")),
                (b"lost", _) => Err(ConnectError::permission_denied("no")),
                _ => Response::ok(wire::SetResponse {
                    outcome: Some(set_response::Applied::default().into()),
                    ..wire::SetResponse::default()
                }),
            }
        }
    });
    let seen = Arc::clone(counts);
    let batch_get = handler_fn(move |_: RequestContext, request: wire::BatchGetRequest| {
        add(&seen.batches);
        async move {
            if request.keys.iter().any(|key| key.starts_with(b"bad")) {
                return Err(ConnectError::invalid_argument("bad key"));
            }
            let results = request.keys.iter().map(|key| {
                let outcome: batch_get_response::result::Outcome = match outcome(key) {
                    get_response::Outcome::Hit(entry) => (*entry).into(),
                    get_response::Outcome::Miss(miss) => (*miss).into(),
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
        }
    });
    Router::new()
        .route(SERVICE, "Get", get)
        .route(SERVICE, "Set", set)
        .route(SERVICE, "BatchGet", batch_get)
}

async fn client() -> (Client, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let config = serve(router(&counts)).await;
    (Client::connect(config).await.unwrap(), counts)
}

#[tokio::test]
async fn a_read_that_fails_is_tried_again_and_counted() {
    let counts = Arc::<Counts>::default();
    let metrics = Metrics::new("test");
    let config = serve(router(&counts)).await;
    let client = Client::connect(config.with_interceptor(metrics.clone()))
        .await
        .unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = client.traced(parent).unwrap();
    assert!(client.traced("00-x").is_err());
    traced.get("flaky").await.unwrap().unwrap();

    let seen = counts.seen.lock().unwrap().clone();
    let parent = Some(parent.to_owned());
    assert_eq!(seen, [(parent.clone(), None), (parent, Some("1".into()))]);
    let figure = |name: &str, status: Option<Code>| {
        let metrics = metrics.snapshot();
        let found = metrics.into_iter().find(|metric| {
            metric.name == name && metric.status == status && metric.method.ends_with("/Get")
        });
        match found.map(|metric| metric.value) {
            Some(MetricValue::Counter(count)) => count,
            Some(MetricValue::Histogram { counts, .. }) => counts.iter().sum(),
            _ => 0,
        }
    };
    assert_eq!(figure("grpc.client.attempt.started", None), 2);
    let (ok, failed) = (Some(Code::Ok), Some(Code::Unavailable));
    assert_eq!(figure("grpc.client.attempt.duration", ok), 1);
    assert_eq!(figure("grpc.client.attempt.duration", failed), 1);
    assert_eq!(figure("grpc.client.call.duration", ok), 1);
    assert_eq!(figure("grpc.client.call.duration", failed), 0);
    assert_eq!(figure("grpc.client.call.retries", None), 1);
    assert_eq!(figure("grpc.client.call.retry_delay", None), 1);
    let text = metrics.render();
    let line = "grpc_client_attempt_started_total{grpc_method=\"larder.cache.v1.CacheService/Get\",\
                grpc_target=\"test\"} 2";
    assert!(text.contains(line), "{text}");
}

/// Fails the first try of each method, after it may have had its effect.
fn control_plane(ids: &Arc<Mutex<Vec<String>>>) -> Router {
    const SERVICE: &str = "larder.accounts.v1.AccountService";
    let once = |ids: &Arc<Mutex<Vec<String>>>, id: String| {
        let mut ids = ids.lock().unwrap();
        ids.push(id);
        match ids.len() % 2 {
            1 => Err(ConnectError::unavailable("who knows")),
            _ => Ok(()),
        }
    };
    macro_rules! handler {
        ($request:ident => $response:ident { $($field:ident: $value:expr)? }) => {{
            let ids = Arc::clone(ids);
            handler_fn(move |_: RequestContext, request: control::$request| {
                let tried = once(&ids, request.request_id);
                let answer = control::$response {
                    $($field: $value.into(),)?
                    ..Default::default()
                };
                async move { tried.and_then(|()| Response::ok(answer)) }
            })
        }};
    }
    let account = || control::Account {
        name: "accounts/one".into(),
        ..Default::default()
    };
    let token = || control::Token {
        name: "accounts/one/tokens/1".into(),
        ..Default::default()
    };
    let update = handler!(UpdateAccountRequest => UpdateAccountResponse { account: account() });
    let delete = handler!(DeleteAccountRequest => DeleteAccountResponse {});
    let revoke = handler!(RevokeTokenRequest => RevokeTokenResponse {});
    let create = handler!(CreateTokenRequest => CreateTokenResponse { token: token() });
    Router::new()
        .route(SERVICE, "UpdateAccount", update)
        .route(SERVICE, "DeleteAccount", delete)
        .route(SERVICE, "RevokeToken", revoke)
        .route(SERVICE, "CreateToken", create)
}

#[tokio::test]
async fn changes_of_the_control_plane_are_tried_again_under_one_id() {
    let ids = Arc::<Mutex<Vec<String>>>::default();
    let config = serve(control_plane(&ids)).await;
    let accounts = Client::lazy(config).unwrap().accounts();
    let change = AccountChange {
        etag: Some("etag".into()),
        display_name: Some("name".into()),
        ..AccountChange::default()
    };
    accounts.update("one", &change).await.unwrap();
    accounts.delete("one").await.unwrap();
    accounts
        .revoke_token("accounts/one/tokens/1")
        .await
        .unwrap();
    let (secret, rights) = (Token::new("12345678").unwrap(), TokenRights::default());
    let imported = accounts.create_token("one", &rights, Some(&secret), None);
    imported.await.unwrap();
    let tried = std::mem::take(&mut *ids.lock().unwrap());
    assert_eq!(tried.len(), 8);
    let mut calls: Vec<_> = tried.chunks(2).map(|tries| &tries[0]).collect();
    assert!(tried.chunks(2).all(|tries| tries[0] == tries[1]));
    calls.dedup();
    assert!(
        calls.len() == 4 && calls.iter().all(|id| id.len() == 36),
        "{tried:?}"
    );

    // A fresh secret is shown once, and not by the answer to a repeat.
    let error = accounts.create_token("one", &rights, None, None).await;
    let error = error.unwrap_err();
    assert_eq!((error.code(), error.attempts()), (Code::Unavailable, 1));
    assert!(error.may_have_applied() && !error.is_retryable());
    // The id was that of a call; its caller's next is another.
    ids.lock().unwrap().clear();
    let once = r#"{"methodConfig": []}"#;
    let config = serve(control_plane(&ids)).await;
    let client = Client::lazy(config.with_service_config(once).unwrap()).unwrap();
    let error = client.accounts().delete("one").await.unwrap_err();
    assert!(error.may_have_applied() && !error.is_retryable());
}

#[tokio::test]
async fn an_error_speaks_of_all_attempts() {
    let (client, counts) = client().await;
    // Refused at last, but nobody knows what the first did.
    let error = client
        .set("lost", "v", SetOptions::new())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.attempts()),
        (Code::PermissionDenied, 2)
    );
    assert!(error.may_have_applied() && !error.is_retryable());
    // A condition without an id is never sent twice.
    counts.sets.store(0, Ordering::SeqCst);
    let absent = SetOptions::new().condition(Condition::IfAbsent);
    let error = client.set("lost", "v", absent).await.unwrap_err();
    assert_eq!((error.code(), error.attempts()), (Code::Unavailable, 1));
    assert!(error.may_have_applied() && !error.is_retryable());
}

#[tokio::test]
async fn calls_end_within_what_is_left_of_another() {
    let (client, _) = client().await;
    let begun = Instant::now();
    let soon = begun + Duration::from_millis(40);
    let inner = client
        .within((begun + Duration::from_secs(3600)).into_std())
        .within(soon.into_std());
    let error = inner.get("slow").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(4), "its own is 5 s");
    // Over before it begins: nothing is sent.
    let error = inner.get("here").await.unwrap_err();
    assert_eq!(
        (error.code(), error.attempts()),
        (Code::DeadlineExceeded, 0)
    );
}

#[tokio::test]
async fn a_service_config_bounds_time_and_sizes() {
    let counts = Arc::<Counts>::default();
    let config = serve(router(&counts)).await;
    let json = r#"{"methodConfig": [{"name": [{}], "timeout": "0.03s",
        "maxRequestMessageBytes": 100, "maxResponseMessageBytes": 30}]}"#;
    let client = Client::connect(config.with_service_config(json).unwrap())
        .await
        .unwrap();
    let error = client.get("slow").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let error = client.get("k".repeat(100)).await.unwrap_err();
    assert!(error.is_configuration(), "{error}");
    let error = client.get("k".repeat(30)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    client.get("k").await.unwrap();
    // Without a policy nothing is tried again.
    let error = client.get("flaky").await;
    assert!(error.is_err() || client.get("flaky").await.is_err());
}

#[tokio::test]
async fn a_value_that_many_want_is_made_once() {
    let (client, counts) = client().await;
    let made = Arc::<AtomicUsize>::default();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (client, made) = (client.clone(), Arc::clone(&made));
            tokio::spawn(async move {
                let fill = async || {
                    made.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, String>("made")
                };
                client.get_or_fill("gone", None, fill).await.unwrap()
            })
        })
        .collect();
    let mut origins = [0; 3];
    for task in tasks {
        let filled = task.await.unwrap();
        assert_eq!(filled.value, "made");
        assert!(filled.store_error.is_none());
        origins[filled.origin as usize] += 1;
    }
    assert_eq!(made.load(Ordering::SeqCst), 1);
    let (cache, once) = (FillOrigin::Cache as usize, FillOrigin::Made as usize);
    assert_eq!((origins[cache], origins[once]), (0, 1));
    assert_eq!(counts.gets.load(Ordering::SeqCst), 1);
    assert_eq!(counts.sets.load(Ordering::SeqCst), 1);

    let never = async || -> Result<&str, String> { panic!("the cache has it") };
    let filled = client.get_or_fill("here", None, never).await.unwrap();
    assert_eq!(filled.origin, FillOrigin::Cache);
    assert_eq!(filled.value, "value of here");
}

#[tokio::test]
async fn a_fill_that_ends_badly_leaves_its_place_to_the_next() {
    let (client, _) = client().await;
    let (started, mut starts) = tokio::sync::mpsc::channel(1);
    let first = tokio::spawn({
        let client = client.clone();
        async move {
            let fill = async || -> Result<&str, String> {
                started.send(()).await.unwrap();
                std::future::pending().await
            };
            client.get_or_fill("gone", None, fill).await
        }
    });
    starts.recv().await.unwrap();
    // One waits only as long as its own time.
    let hasty = client.with_timeout(Duration::from_millis(20));
    let never = async || -> Result<&str, String> { panic!("somebody makes it") };
    let error = hasty.get_or_fill("gone", None, never).await.unwrap_err();
    assert!(
        matches!(&error, FillError::Cache(error) if error.code() == Code::DeadlineExceeded),
        "{error}"
    );
    let second = tokio::spawn({
        let client = client.clone();
        async move {
            let fill = async || Ok::<_, String>("second");
            client.get_or_fill("gone", None, fill).await
        }
    });
    tokio::task::yield_now().await;
    first.abort();
    let filled = second.await.unwrap().unwrap();
    assert_eq!(
        (filled.origin, &filled.value[..]),
        (FillOrigin::Made, &b"second"[..])
    );

    let fail = async || Err::<&str, _>("no".to_owned());
    let error = client.get_or_fill("gone", None, fail).await.unwrap_err();
    assert!(matches!(error, FillError::Fill(why) if why == "no"));
}

#[tokio::test]
async fn gets_of_the_same_moment_leave_as_one_batch() {
    let (client, counts) = client().await;
    let batched = client.batched();
    let (a, b, gone, again) = tokio::join!(
        batched.get("a"),
        batched.get("b"),
        batched.get("gone"),
        batched.get("a"),
    );
    assert_eq!(a.unwrap().unwrap().value, "value of a");
    assert_eq!(b.unwrap().unwrap().value, "value of b");
    assert_eq!(gone.unwrap(), None);
    assert_eq!(again.unwrap().unwrap().value, "value of a");
    let made = || {
        let count = |cell: &AtomicUsize| cell.swap(0, Ordering::SeqCst);
        (count(&counts.batches), count(&counts.gets))
    };
    assert_eq!(made(), (1, 0));

    // Alone it is a get; a bad key fails alone; and a batch that is full leaves at once.
    batched.get("a").await.unwrap().unwrap();
    assert_eq!(made(), (0, 1));
    let (good, bad) = tokio::join!(batched.get("a"), batched.get("bad"));
    assert!(good.unwrap().is_some());
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(made(), (1, 2));
    let small = batched.with_max_keys(2);
    let (a, b, c) = tokio::join!(small.get("a"), small.get("b"), small.get("c"));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(made(), (1, 1));
    // One that is dropped harms nobody, and is not asked for.
    let kept = {
        let mut dropped = Box::pin(batched.get("dropped"));
        let poll = futures::poll!(&mut dropped);
        assert!(poll.is_pending());
        drop(dropped);
        batched.get("kept")
    };
    assert!(kept.await.unwrap().is_some());
    assert_eq!(made(), (0, 1));
}

#[tokio::test]
async fn on_a_ring_the_keys_of_a_batch_go_where_each_belongs() {
    let all = [Arc::<Counts>::default(), Arc::default()];
    let mut target = Vec::new();
    for counts in &all {
        let config = serve(router(counts)).await;
        target.push(config.endpoint().to_string().replace("http://", ""));
    }
    let config = ClientConfig::new(&format!("ipv4:{}", target.join(","))).unwrap();
    let config = config.with_balancing(Balancing::ring_hash(RingHash::default()));
    let client = Client::lazy(config).unwrap();
    let keys: Vec<String> = (0..100).map(|number| format!("key-{number}")).collect();
    let gets = || {
        all.each_ref()
            .map(|counts| counts.gets.load(Ordering::SeqCst))
    };
    for key in &keys {
        client.get(key).await.unwrap().unwrap();
    }
    let alone = gets();
    assert!(alone.iter().all(|gets| *gets > 20), "{alone:?}");
    let found = client.batch_get(&keys).await.unwrap();
    for (key, entry) in keys.iter().zip(found) {
        assert_eq!(&entry.unwrap().key[..], key.as_bytes());
    }
    assert_eq!(gets(), alone.map(|gets| 2 * gets));
    let batches = all.each_ref().map(|it| it.batches.load(Ordering::SeqCst));
    assert_eq!(batches, [0, 0]);
}
