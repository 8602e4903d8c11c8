//! Every mutation of both contracts, on both lanes: a dry run leaves no trace, and
//! answers as the real call right after.
//!
//! What differs, and why:
//! - `validated_only`, and the metadata `dry-run`: they say that it was dry;
//! - the version of an entry that would be written, also where it is shown as in
//!   the way of a later entry of its batch: none is given out;
//! - `uid` and `etag` of an account, name and secret of a token: they are random, and
//!   randomness that was used up would be a trace.
//!
//! Not foreseen, and so not in here: what entries of a batch or load would evict, of
//! the account or of others; and what others write between the two calls.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use buffa::Message;
use larder_accounts::PageRequest;
use larder_api::accounts_v1::{self as control, AtLimit};
use larder_api::{cache_v1 as cache, protobuf, talk};

use super::*;

const STEPS: usize = 2_500;

/// A mutation: its path, its body, and its body with `validate_only`.
struct Mutation {
    path: String,
    real: Vec<u8>,
    dry: Vec<u8>,
    /// Shows the messages of an answer, but for what differs.
    show: fn(&[u8]) -> String,
}

/// Frames messages as gRPC does.
fn framed<M: Message>(messages: &[M]) -> Vec<u8> {
    let mut body = Vec::new();
    for message in messages {
        let message = message.encode_to_vec();
        body.push(0);
        let length = u32::try_from(message.len()).expect("short");
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&message);
    }
    body
}

/// Shows the messages in `body`, once `strip` took out what differs.
fn shown<M: Message + Debug>(mut body: &[u8], strip: impl Fn(&mut M)) -> String {
    let mut text = String::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into().expect("four bytes"));
        let (message, rest) = rest.split_at(usize::try_from(length).expect("small"));
        let mut message = M::decode(&mut &*message).expect("an answer");
        strip(&mut message);
        writeln!(text, "{message:?}").expect("a String takes it");
        body = rest;
    }
    text
}

/// A mutation by its request and answer; `$strip` takes out what differs beside
/// `validated_only`.
macro_rules! mutation {
    ($package:ident.$service:ident.$method:ident, $request:expr, $answer:ty, $strip:expr) => {{
        let mut request = $request;
        let real = framed(&[request.clone()]);
        request.validate_only = true;
        let package = stringify!($package);
        Mutation {
            path: format!(
                "/larder.{package}.v1.{}/{}",
                stringify!($service),
                stringify!($method)
            ),
            real,
            dry: framed(&[request]),
            show: |body| {
                shown(body, |answer: &mut $answer| {
                    let strip: fn(&mut $answer) = $strip;
                    answer.validated_only = false;
                    strip(answer);
                })
            },
        }
    }};
    ($package:ident.$service:ident.$method:ident, $request:expr, $answer:ty) => {
        mutation!($package.$service.$method, $request, $answer, |_| {})
    };
}

fn key_of(random: &mut Random) -> Vec<u8> {
    match random.below(25) {
        0 => Vec::new(),
        other => format!("k{}", other % 9).into_bytes(),
    }
}

fn value_of(random: &mut Random) -> Vec<u8> {
    vec![b'7'; random.pick(&[0, 1, 50, 400])]
}

fn ttl(random: &mut Random) -> protobuf::Duration {
    protobuf::Duration::from_millis(i64::try_from(random.below(80)).expect("small"))
}

/// An id that comes again now and then, or none.
fn id_of(random: &mut Random) -> String {
    match random.below(3) {
        0 => format!("id-{}", random.below(60)),
        _ => String::new(),
    }
}

fn precondition(random: &mut Random) -> Option<cache::Precondition> {
    use cache::precondition::Condition;
    let condition = match random.below(9) {
        0 => Condition::IfAbsent(true),
        1 => Condition::IfPresent(true),
        2 => Condition::IfVersion(random.next() % 60),
        _ => return None,
    };
    Some(cache::Precondition {
        condition: Some(condition),
        ..Default::default()
    })
}

fn set(random: &mut Random) -> cache::SetRequest {
    use cache::set_request::Expiration;
    cache::SetRequest {
        key: key_of(random),
        value: value_of(random),
        flags: 3,
        expiration: match random.below(5) {
            0 => Some(Expiration::KeepExpireTime(true)),
            1 | 2 => Some(ttl(random).into()),
            _ => None,
        },
        precondition: precondition(random).into(),
        ..Default::default()
    }
}

fn strip_set(answer: &mut cache::SetResponse) {
    use cache::set_response::Outcome;
    answer.validated_only = false;
    if let Some(Outcome::Applied(applied)) = &mut answer.outcome
        && let Some(entry) = applied.entry.as_option_mut()
    {
        entry.version = 0;
    }
}

fn strip_batch(answer: &mut cache::BatchSetResponse) {
    use cache::{batch_set_response::result::Result, set_response::Outcome};
    for result in &mut answer.results {
        let Some(Result::Response(response)) = &mut result.result else {
            continue;
        };
        strip_set(response);
        if let Some(Outcome::NotApplied(not)) = &mut response.outcome
            && let Some(entry) = not.current.as_option_mut()
        {
            entry.version = 0;
        }
    }
}

/// A mutation of one entry.
fn one(random: &mut Random) -> Mutation {
    let (key, request_id) = (key_of(random), id_of(random));
    match random.below(8) {
        0..=3 => {
            let request = cache::SetRequest {
                request_id,
                ..set(random)
            };
            mutation!(
                cache.CacheService.Set,
                request,
                cache::SetResponse,
                strip_set
            )
        }
        4 => {
            let request = cache::DeleteRequest {
                key,
                precondition: precondition(random).into(),
                request_id,
                ..Default::default()
            };
            mutation!(cache.CacheService.Delete, request, cache::DeleteResponse)
        }
        5 => {
            let request = cache::TouchRequest {
                key,
                expiration: Some(ttl(random).into()),
                request_id,
                ..Default::default()
            };
            mutation!(cache.CacheService.Touch, request, cache::TouchResponse)
        }
        6 => {
            let request = cache::GetAndTouchRequest {
                key,
                expiration: Some(ttl(random).into()),
                ..Default::default()
            };
            mutation!(
                cache.CacheService.GetAndTouch,
                request,
                cache::GetAndTouchResponse
            )
        }
        _ => {
            let request = cache::IncrementRequest {
                key,
                delta: random.pick(&[1, -7, i64::MAX]),
                request_id,
                ..Default::default()
            };
            mutation!(
                cache.CacheService.Increment,
                request,
                cache::IncrementResponse
            )
        }
    }
}

/// A mutation of many entries.
fn many(random: &mut Random) -> Mutation {
    let request_id = id_of(random);
    match random.below(4) {
        0 | 1 => {
            let request = cache::BatchSetRequest {
                requests: (0..random.below(8)).map(|_| set(random)).collect(),
                request_id,
                ..Default::default()
            };
            mutation!(
                cache.CacheService.BatchSet,
                request,
                cache::BatchSetResponse,
                strip_batch
            )
        }
        2 => {
            let request = cache::BatchDeleteRequest {
                keys: (0..random.below(3)).map(|_| key_of(random)).collect(),
                request_id,
                ..Default::default()
            };
            mutation!(
                cache.CacheService.BatchDelete,
                request,
                cache::BatchDeleteResponse
            )
        }
        _ => {
            let request = cache::DeletePrefixRequest {
                prefix: key_of(random),
                request_id,
                ..Default::default()
            };
            mutation!(
                cache.CacheService.DeletePrefix,
                request,
                cache::DeletePrefixResponse
            )
        }
    }
}

/// A load of a few parts; `validate_only` stands in the first.
fn load(random: &mut Random) -> Mutation {
    let mut parts = Vec::new();
    for _ in 0..=random.below(3) {
        let entry = |_| cache::Entry {
            key: key_of(random),
            value: value_of(random),
            ..Default::default()
        };
        parts.push(cache::LoadRequest {
            entries: (0..6).map(entry).collect(),
            ..Default::default()
        });
    }
    let real = framed(&parts);
    parts[0].validate_only = true;
    Mutation {
        path: "/larder.cache.v1.CacheService/Load".into(),
        real,
        dry: framed(&parts),
        show: |body| {
            shown(body, |it: &mut cache::LoadResponse| {
                it.validated_only = false;
            })
        },
    }
}

/// The talk's mutation, which only metadata can make dry.
fn store(random: &mut Random) -> Mutation {
    let request = talk::StoreReq {
        key: String::from_utf8(key_of(random)).expect("text"),
        val: value_of(random),
        ..Default::default()
    };
    let body = framed(&[request]);
    Mutation {
        path: "/rpc.Cache/Store".into(),
        dry: body.clone(),
        real: body,
        show: |body| shown(body, |_: &mut talk::StoreResp| {}),
    }
}

fn strip_account(account: Option<&mut control::Account>) {
    if let Some(account) = account {
        account.uid.clear();
        account.etag.clear();
    }
}

/// A change of the accounts; most are of the quota that all others meet.
fn change(random: &mut Random) -> Mutation {
    let account_id = random.pick(&["default", "one", "two"]);
    let (name, request_id) = (format!("accounts/{account_id}"), id_of(random));
    match random.below(8) {
        0 | 1 => {
            let request = control::CreateAccountRequest {
                account_id: account_id.into(),
                request_id,
                ..Default::default()
            };
            type Answer = control::CreateAccountResponse;
            mutation!(
                accounts.AccountService.CreateAccount,
                request,
                Answer,
                |it| {
                    strip_account(it.account.as_option_mut());
                }
            )
        }
        2..=4 => {
            let account = control::Account {
                name: random.pick(&["accounts/default", &name]).into(),
                max_keys: random.pick(&[1, 3, 8, 1000]),
                max_bytes: random.pick(&[100, 700, 2_000, 1 << 30]),
                at_limit: AtLimit::AT_LIMIT_REFUSE.into(),
                etag: random.pick(&["", "", "", "old"]).into(),
                ..Default::default()
            };
            let request = control::UpdateAccountRequest {
                account: Some(account).into(),
                request_id,
                ..Default::default()
            };
            type Answer = control::UpdateAccountResponse;
            mutation!(
                accounts.AccountService.UpdateAccount,
                request,
                Answer,
                |it| {
                    strip_account(it.account.as_option_mut());
                }
            )
        }
        5 => {
            let request = control::DeleteAccountRequest {
                name,
                request_id,
                ..Default::default()
            };
            type Answer = control::DeleteAccountResponse;
            mutation!(accounts.AccountService.DeleteAccount, request, Answer)
        }
        6 => {
            let request = control::CreateTokenRequest {
                parent: name,
                secret: format!("a-secret-{}", random.below(40)),
                request_id,
                ..Default::default()
            };
            type Answer = control::CreateTokenResponse;
            mutation!(accounts.AccountService.CreateToken, request, Answer, |it| {
                it.secret.clear();
                if let Some(token) = it.token.as_option_mut() {
                    token.name.clear();
                }
            })
        }
        _ => {
            let request = control::RevokeTokenRequest {
                name: format!("{name}/tokens/nobody"),
                request_id,
                ..Default::default()
            };
            type Answer = control::RevokeTokenResponse;
            mutation!(accounts.AccountService.RevokeToken, request, Answer)
        }
    }
}

/// All that a server holds: of its store whatever `Debug` shows, which is all; of
/// its accounts what can be asked, and how often they changed.
fn portrait(server: &Server) -> String {
    let core = &server.listening.core;
    let accounts = core.accounts.as_ref().expect("they are here");
    let all = PageRequest {
        page_size: 1000,
        page_token: "",
    };
    let mut text = format!("{:?} {}", core.store, accounts.generation());
    for account in accounts.list_accounts(all).expect("a page").items {
        let tokens = accounts.list_tokens(&account.name, all).expect("a page");
        write!(text, "{account:?} {:?}", tokens.items).expect("a String takes it");
    }
    text
}

impl Seen {
    /// Without what differs between a dry run and the real call.
    fn stripped(mut self, mutation: &Mutation) -> (String, Self) {
        let messages = std::mem::take(&mut self.messages);
        self.metadata.retain(|(name, _)| *name != "dry-run");
        ((mutation.show)(&messages), self)
    }
}

/// Runs a mutation dry, on either lane, by field or by metadata, and then in
/// earnest; true if it was refused.
async fn check(
    (server, client): (&Server, &SendRequest<Bytes>),
    random: &mut Random,
    mutation: &Mutation,
) -> bool {
    let mut head = Vec::new();
    if mutation.path.contains("AccountService") {
        head.push(("authorization", format!("Bearer {}", server.admin)));
    }
    if random.one_in(2) {
        head.push(("grpc-encoding", "gzip".into()));
    }
    let (mut dry_head, mut body) = (head.clone(), &mutation.dry);
    if mutation.dry == mutation.real || random.one_in(2) {
        dry_head.push(("dry-run", "1".into()));
        body = &mutation.real;
    }
    // An account is opened, with the quota that it has by now, by whoever calls
    // next, whatever the call.
    let quiet = [("dry-run", "1".to_owned())];
    let get = framed(&[cache::GetRequest::default()]);
    ask(client, "/larder.cache.v1.CacheService/Get", &quiet, &get).await;
    let before = portrait(server);
    let dry = ask(client, &mutation.path, &dry_head, body).await;
    let told = format!("{} {:?} {dry_head:?}", mutation.path, mutation.real);
    assert!(
        before == portrait(server),
        "{told}: the dry run left a trace"
    );
    let real = ask(client, &mutation.path, &head, &mutation.real).await;
    let refused = real.status.as_deref() != Some("0");
    assert_eq!(dry.stripped(mutation), real.stripped(mutation), "{told}");
    refused
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_leaves_no_trace_and_answers_as_the_real_call() {
    let server = server(&Arc::new(Clock::start_steady()));
    let (client, _course) = connect(&server).await;
    let mut random = Random(4);
    let mut outcomes = BTreeMap::<String, [usize; 2]>::new();
    for _ in 0..STEPS {
        let mutation = match random.below(20) {
            0..=8 => one(&mut random),
            9..=13 => many(&mut random),
            14 | 15 => load(&mut random),
            16 | 17 => store(&mut random),
            _ => change(&mut random),
        };
        let refused = check((&server, &client), &mut random, &mutation).await;
        outcomes.entry(mutation.path).or_default()[usize::from(refused)] += 1;
        let ms = random.next() % 30;
        tokio::time::advance(std::time::Duration::from_millis(ms)).await;
    }
    for method in METHODS.iter().filter(|method| method.mutates()) {
        let counts = outcomes.get(method.path);
        assert!(
            counts.is_some_and(|it| it[0] + it[1] > 10),
            "{} {counts:?}",
            method.path
        );
    }
}
