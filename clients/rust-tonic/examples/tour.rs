//! larder from Rust, with tonic: each function is one thing that a client
//! meets. The servers are named by the environment; clients/README.md says how.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::time::Duration;

use larder_clients_tonic::larder::cache::v1 as cache;
use larder_clients_tonic::larder::cache::v1::cache_service_client::CacheServiceClient;
use larder_clients_tonic::rpc::cache_client::CacheClient;
use larder_clients_tonic::rpc::{DumpReq, GetReq, StoreReq};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

type Error = Box<dyn std::error::Error>;

const SOON: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to one server, when it is first called.
fn connect(server: &str) -> Result<Channel, Error> {
    Ok(Endpoint::from_shared(format!("http://{server}"))?.connect_lazy())
}

/// A request that has to be answered in time.
fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Stores a value and reads it back, as an account's token.
async fn talk(mut client: CacheClient<Channel>) -> Result<(), Error> {
    let credential: MetadataValue<Ascii> = format!("Bearer {}", variable("TOUR_TOKEN")?).parse()?;

    let mut store = within(PATIENCE, store_request("gopher", "con", None));
    store
        .metadata_mut()
        .insert("authorization", credential.clone());
    client.store(store).await?;

    let mut get = within(PATIENCE, get_request("gopher", None));
    get.metadata_mut().insert("authorization", credential);
    let value = client.get(get).await?.into_inner().val;
    check(value == b"con", || format!("got {value:?}"))
}

/// Stores more keys than the account may have, and reads why not.
async fn quota(mut client: CacheClient<Channel>) -> Result<(), Error> {
    let token = variable("TOUR_TOKEN")?;
    client
        .store(within(PATIENCE, store_request("second", "v", Some(&token))))
        .await?;
    let third = within(PATIENCE, store_request("third", "v", Some(&token)));
    let status = expect(Code::FailedPrecondition, client.store(third).await)?;

    let info = status.get_details_error_info().ok_or("no ErrorInfo")?;
    check(
        info.domain == "larder" && info.reason == "KEY_QUOTA_EXCEEDED",
        || format!("{info:?}"),
    )?;
    let failure = status
        .get_details_quota_failure()
        .ok_or("no QuotaFailure")?;
    check(failure.violations[0].subject.contains("tour"), || {
        format!("{failure:?}")
    })
}

/// Gives up on a slow server, which then leaves the call undone.
async fn deadline() -> Result<(), Error> {
    let token = variable("TOUR_TOKEN")?;
    let mut slow = CacheClient::new(connect(&variable("TOUR_SLOW_SERVER")?)?);
    let late = within(SOON, store_request("late", "v", Some(&token)));
    match slow.store(late).await {
        // tonic's own clock was first, and calls that so.
        Err(status) if status.code() == Code::Cancelled => {}
        answer => drop(expect(Code::DeadlineExceeded, answer)?),
    }
    // Nothing later: it was not stored behind the caller's back.
    let get = within(PATIENCE, get_request("late", Some(&token)));
    expect(Code::NotFound, slow.get(get).await).map(drop)
}

/// Has a store checked but not carried out.
async fn dry_run(mut client: CacheClient<Channel>) -> Result<(), Error> {
    let token = variable("TOUR_TOKEN")?;
    let mut store = within(PATIENCE, store_request("gopher", "phercon", Some(&token)));
    store
        .metadata_mut()
        .insert("dry-run", MetadataValue::from_static("1"));
    let answer = client.store(store).await?;
    // tonic adds the trailers of a unary call to its metadata.
    let echoed = answer.metadata().get("dry-run");
    check(echoed.is_some_and(|value| value == "1"), || {
        format!("{echoed:?}")
    })?;

    let get = within(PATIENCE, get_request("gopher", Some(&token)));
    let value = client.get(get).await?.into_inner().val;
    check(value == b"con", || format!("stored {value:?}"))
}

/// Streams every entry.
async fn dump(mut client: CacheClient<Channel>) -> Result<(), Error> {
    let request = within(3 * PATIENCE, DumpReq::default());
    let mut items = client.dump(request).await?.into_inner();
    let mut entries = HashMap::new();
    while let Some(item) = items.message().await? {
        entries.insert(item.key, item.val);
    }
    let wanted: usize = variable("TOUR_ENTRIES")?.parse()?;
    check(entries.len() == wanted, || {
        format!("{} entries", entries.len())
    })?;
    let wrong = entries
        .iter()
        .find(|(key, value)| **value != format!("value of {key}").into_bytes());
    check(wrong.is_none(), || format!("{wrong:?}"))
}

/// Is told at once what another attempt would not change, or might do twice.
async fn once(mut faulty: CacheServiceClient<Channel>) -> Result<(), Error> {
    for (key, code) in [
        ("not-found", Code::NotFound),
        ("failed-precondition", Code::FailedPrecondition),
    ] {
        let get = cache::GetRequest {
            key: key.into(),
            ..cache::GetRequest::default()
        };
        expect(code, faulty.get(within(PATIENCE, get)).await)?;
    }
    let increment = cache::IncrementRequest {
        key: "unavailable-twice".into(),
        delta: 1,
        ..cache::IncrementRequest::default()
    };
    let answer = faulty.increment(within(PATIENCE, increment)).await;
    expect(Code::Unavailable, answer).map(drop)
}

/// Goes on with the second server when the first one dies.
async fn failover() -> Result<(), Error> {
    let pair = variable("TOUR_PAIR")?;
    let endpoints = pair
        .split(',')
        .map(|server| Endpoint::from_shared(format!("http://{server}")))
        .collect::<Result<Vec<_>, _>>()?;
    let mut client = CacheServiceClient::new(Channel::balance_list(endpoints.into_iter()));
    let set = |key: &str| {
        let message = cache::SetRequest {
            key: key.into(),
            ..cache::SetRequest::default()
        };
        within(PATIENCE, message)
    };

    client.set(set("before")).await?;
    report("failover", "waiting", "");
    std::io::stdin().lock().read_line(&mut String::new())?;

    // tonic may still choose the dead one. Its calls fail with UNAVAILABLE, or
    // with UNKNOWN if the connection broke under them; a set may be made twice.
    let mut last = Status::unknown("not called");
    for _ in 0..20 {
        match client.set(set("after")).await {
            Ok(_) => return Ok(()),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => {
                last = status;
            }
            Err(status) => return Err(status.into()),
        }
    }
    Err(last.into())
}

fn store_request(key: &str, value: &str, token: Option<&str>) -> StoreReq {
    StoreReq {
        key: key.to_owned(),
        val: value.into(),
        account_token: token.unwrap_or_default().to_owned(),
    }
}

fn get_request(key: &str, token: Option<&str>) -> GetReq {
    GetReq {
        key: key.to_owned(),
        account_token: token.unwrap_or_default().to_owned(),
    }
}

fn expect<T>(code: Code, answer: Result<T, Status>) -> Result<Status, Error> {
    match answer {
        Err(status) if status.code() == code => Ok(status),
        Err(status) => Err(format!("wanted {code:?}, got {status:?}").into()),
        Ok(_) => Err(format!("wanted {code:?}, and the call went well").into()),
    }
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(otherwise().into())
    }
}

fn variable(name: &str) -> Result<String, Error> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

fn report(behaviour: &str, outcome: &str, why: &str) {
    let line = serde_json::json!({ "behaviour": behaviour, "outcome": outcome, "why": why });
    println!("{line}");
}

fn tell(behaviour: &str, result: Result<(), Error>, note: &str) {
    match result {
        Ok(()) => report(behaviour, "passed", note),
        Err(error) => report(behaviour, "failed", &error.to_string()),
    }
}

/// Makes the whole tour.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let client = CacheClient::new(connect(&variable("TOUR_SERVER")?)?);
    let faulty = CacheServiceClient::new(connect(&variable("TOUR_FAULTY_SERVER")?)?);
    tell("talk", talk(client.clone()).await, "");
    tell("quota", quota(client.clone()).await, "");
    tell("deadline", deadline().await, "");
    tell("dry-run", dry_run(client.clone()).await, "");
    tell("dump", dump(client).await, "");
    report(
        "retry",
        "unsupported",
        "tonic has no retries and reads no service configuration",
    );
    tell("once", once(faulty).await, "");
    tell(
        "failover",
        failover().await,
        "the program asks again by itself: tonic has no retries",
    );
    Ok(())
}
