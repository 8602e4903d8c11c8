//! Attempts to reach the data of another account, or what a token is not given.
//!
//! A victim has entries in several namespaces; every value, and the flags beside
//! it, hold a mark that nothing else contains. Attackers call every method of both contracts with
//! what they may have learned of the victim: its keys, namespaces, prefixes,
//! versions, page tokens, resume tokens, request ids, the names of its account
//! and tokens. They are another account, tokens of the victim that are confined to
//! a prefix or a namespace where nothing of it is, a cache server's token, and a
//! token that nobody made. An attempt has succeeded when its answer shows the mark
//! in a value or beside it; or, in the end, when anything of the victim's has
//! changed.

#![allow(
    clippy::print_stdout,
    reason = "a command line: standard output is its product"
)]

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;

use crate::calls::{field, prefixed};
use crate::client::{self, Reply};
use crate::random::Random;
use crate::server::{Program, Server, command};

/// Calls in flight.
const CONCURRENCY: usize = 32;
/// In every value of the victim's.
const MARK: &[u8] = b"the victim's own: ";
/// The flags of every entry of the victim's, as a varint: they show in its metadata,
/// too. Versions would not do, as accounts may have the same.
const FLAGS: [u8; 5] = [0xef, 0xfd, 0xb6, 0xf5, 0x0d];
const NAMESPACES: [&str; 3] = ["", "private", "a.b"];
const KEYS: [&str; 6] = ["k", "mine/k", "mine/l", "n", "yours", "z"];
const REQUEST_ID: &str = "6f7c1f5e-8a52-4c65-9d41-6f2f6a1f4c11";

/// What a field of a request is filled with.
#[derive(Clone, Copy)]
enum Fill {
    Namespace(u8),
    Key(u8),
    /// Several keys.
    Keys(u8),
    Prefix(u8),
    PageToken(u8),
    ResumeToken(u8),
    RequestId(u8),
    Secret(u8),
    Account(u8),
    AccountId(u8),
    Token(u8),
    Value(u8),
    True(u8),
    /// `Precondition.if_version`.
    IfVersion(u8),
    /// Messages that are filled so.
    Within(u8, &'static [Fill]),
}

use Fill::{
    Account, AccountId, IfVersion, Key, Keys, Namespace, PageToken, Prefix, RequestId, ResumeToken,
    Secret, Token, True, Value, Within,
};

const SET: &[Fill] = &[Namespace(1), Key(2), Value(3), IfVersion(7), RequestId(9)];

/// Every method that serves accounts, and its request. What would fail at once
/// for want of a field has it.
const METHODS: &[(&str, &[Fill])] = &[
    ("/rpc.Cache/Get", &[Key(1), Secret(2)]),
    ("/rpc.Cache/Store", &[Key(1), Value(2), Secret(3)]),
    ("/rpc.Cache/Dump", &[Secret(1)]),
    ("/rpc.Accounts/GetByToken", &[Secret(1)]),
    ("/larder.cache.v1.CacheService/Get", &[Namespace(1), Key(2)]),
    (
        "/larder.cache.v1.CacheService/GetAndTouch",
        &[Namespace(1), Key(2), True(5)],
    ),
    (
        "/larder.cache.v1.CacheService/BatchGet",
        &[Namespace(1), Keys(2)],
    ),
    ("/larder.cache.v1.CacheService/Set", SET),
    (
        "/larder.cache.v1.CacheService/Delete",
        &[Namespace(1), Key(2), IfVersion(3), RequestId(4)],
    ),
    (
        "/larder.cache.v1.CacheService/BatchSet",
        &[Within(1, SET), Within(1, SET), RequestId(2)],
    ),
    (
        "/larder.cache.v1.CacheService/BatchDelete",
        &[Namespace(1), Keys(2), RequestId(3)],
    ),
    (
        "/larder.cache.v1.CacheService/Touch",
        &[Namespace(1), Key(2), True(5), RequestId(6)],
    ),
    (
        "/larder.cache.v1.CacheService/DeletePrefix",
        &[Namespace(1), Prefix(2), RequestId(4)],
    ),
    (
        "/larder.cache.v1.CacheService/DeletePrefix",
        &[Namespace(1), True(3)],
    ),
    (
        "/larder.cache.v1.CacheService/Increment",
        &[Namespace(1), Key(2), RequestId(8)],
    ),
    (
        "/larder.cache.v1.CacheService/ListKeys",
        &[Namespace(1), Prefix(2), PageToken(4)],
    ),
    (
        "/larder.cache.v1.CacheService/Dump",
        &[Namespace(1), Prefix(2), ResumeToken(3)],
    ),
    (
        "/larder.cache.v1.CacheService/Load",
        &[Namespace(1), Within(2, &[Key(1), Value(2)])],
    ),
    ("/larder.cache.v1.CacheService/GetUsage", &[]),
    ("/larder.cache.v1.CacheService/GetServerInfo", &[]),
    (
        "/larder.accounts.v1.AccountService/CreateAccount",
        &[AccountId(1), RequestId(3)],
    ),
    (
        "/larder.accounts.v1.AccountService/GetAccount",
        &[Account(1)],
    ),
    (
        "/larder.accounts.v1.AccountService/ListAccounts",
        &[PageToken(2)],
    ),
    (
        "/larder.accounts.v1.AccountService/UpdateAccount",
        &[Within(1, &[Account(1)]), RequestId(3)],
    ),
    (
        "/larder.accounts.v1.AccountService/DeleteAccount",
        &[Account(1), RequestId(2)],
    ),
    (
        "/larder.accounts.v1.AccountService/CreateToken",
        &[Account(1), RequestId(4)],
    ),
    (
        "/larder.accounts.v1.AccountService/ListTokens",
        &[Account(1), PageToken(3)],
    ),
    (
        "/larder.accounts.v1.AccountService/RevokeToken",
        &[Token(1), RequestId(2)],
    ),
    (
        "/larder.accounts.v1.AccountService/VerifyToken",
        &[Secret(1)],
    ),
];

/// What attackers know of the victim.
struct Known {
    versions: Vec<[u8; 8]>,
    page_tokens: Vec<Vec<u8>>,
    resume_tokens: Vec<Vec<u8>>,
    token_names: Vec<String>,
}

/// Who attacks.
struct Attacker {
    name: &'static str,
    secret: String,
}

fn fill(random: &mut Random, known: &Known, attacker: &Attacker, fields: &[Fill]) -> Vec<u8> {
    let mut out = Vec::new();
    for each in fields {
        // Now and then one is left out.
        if random.one_in(12) {
            continue;
        }
        let text = |number, text: &[u8]| field(number, text);
        let filled = match *each {
            Namespace(number) => text(number, random.pick(&NAMESPACES).as_bytes()),
            Key(number) => text(number, random.pick(&KEYS).as_bytes()),
            Keys(number) => [
                text(number, random.pick(&KEYS).as_bytes()),
                text(number, random.pick(&KEYS).as_bytes()),
            ]
            .concat(),
            Prefix(number) => text(number, random.pick(&["", "mine/", "m", "k"]).as_bytes()),
            PageToken(number) => text(number, random.pick::<Vec<u8>>(&known.page_tokens)),
            ResumeToken(number) => text(number, random.pick::<Vec<u8>>(&known.resume_tokens)),
            // Most methods refuse any, so it is rare.
            RequestId(number) if random.one_in(8) => text(number, REQUEST_ID.as_bytes()),
            RequestId(_) => Vec::new(),
            Secret(number) => text(number, attacker.secret.as_bytes()),
            Account(number) => text(number, b"accounts/victim"),
            AccountId(number) => text(number, b"victim"),
            Token(number) => text(number, random.pick(&known.token_names).as_bytes()),
            Value(number) => text(number, b"overwritten"),
            True(number) => vec![number << 3, 1],
            IfVersion(number) if random.one_in(2) => {
                // `fixed64 if_version = 3`.
                let version = random.pick(&known.versions);
                text(number, &[&[3 << 3 | 1], &version[..]].concat())
            }
            IfVersion(_) => Vec::new(),
            Within(number, fields) => text(number, &fill(random, known, attacker, fields)),
        };
        out.extend(filled);
    }
    out
}

/// One attempt: who, what, and with which metadata.
struct Attempt {
    attacker: &'static str,
    path: &'static str,
    metadata: Vec<(&'static str, String)>,
    message: Vec<u8>,
}

fn attempt(random: &mut Random, known: &Known, attackers: &[Attacker]) -> Attempt {
    let attacker = random.pick(attackers);
    let (path, fields) = *random.pick(METHODS);
    let mut metadata = Vec::new();
    // The talk's calls may show it in the request alone; nobody's is an attempt too.
    if !random.one_in(8) {
        metadata.push(("authorization", format!("Bearer {}", attacker.secret)));
    }
    // No message uses it; the call takes the other lane.
    if random.one_in(2) {
        metadata.push(("grpc-encoding", "gzip".to_owned()));
    }
    Attempt {
        attacker: attacker.name,
        path,
        metadata,
        message: prefixed(&fill(random, known, attacker, fields)),
    }
}

/// Makes the attempts; false if one succeeded.
///
/// # Errors
/// The server cannot be used.
pub(crate) fn run(larder: &Path, attempts: u64, seed: u64) -> anyhow::Result<bool> {
    let program = Program::Larder(larder.into());
    // Anonymous calls have an account of their own, which is one attacker more.
    let server = Server::start(&program, 1024)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let good = runtime.block_on(torture(larder, &server, attempts, seed))?;
    Ok(good)
}

async fn torture(larder: &Path, server: &Server, attempts: u64, seed: u64) -> anyhow::Result<bool> {
    let admin = server.admin_token_file();
    let run = |arguments: &[&str]| command(larder, server.address, &admin, arguments);
    let token = |arguments: &[&str]| -> anyhow::Result<(String, String)> {
        let made = run(&[&["token", "create"], arguments].concat())?;
        let made: serde_json::Value = serde_json::from_slice(&made)?;
        let text = |name: &str| made[name].as_str().map(str::to_owned).context("a token");
        Ok((text("name")?, text("secret")?))
    };
    run(&["account", "create", "attacker"])?;
    let mut names = Vec::new();
    let mut attackers = Vec::new();
    for (name, arguments) in [
        ("another account", &["attacker"][..]),
        (
            "a foreign prefix",
            &["victim", "--prefix", "theirs/", "--prefix", "mine/x"],
        ),
        (
            "a foreign namespace",
            &["victim", "--namespace-scope", "elsewhere"],
        ),
        ("a cache server", &["attacker", "--verify"]),
    ] {
        let (resource, secret) = token(arguments)?;
        names.push(resource);
        attackers.push(Attacker { name, secret });
    }
    attackers.push(Attacker {
        name: "nobody's token",
        secret: "nobody-made-this".to_owned(),
    });
    let io = TcpStream::connect(server.address).await?;
    let client = client::connect(io).await?;
    let victim = Victim {
        client: client.clone(),
        token: format!("Bearer {}", server.token),
    };
    let known = victim.prepare(names).await?;
    let before = victim.content().await?;
    let is_marked = |content: &Vec<u8>| holds(content, MARK) && holds(content, &FLAGS);
    ensure!(
        before.iter().all(is_marked),
        "the victim does not see its own marks"
    );

    let mut random = Random(seed);
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    let mut succeeded = 0_u64;
    let mut left = attempts;
    while left > 0 {
        let several = left.min(CONCURRENCY as u64);
        left -= several;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..several {
            let attempt = attempt(&mut random, &known, &attackers);
            calls.spawn(make(client.clone(), attempt));
        }
        while let Some(made) = calls.join_next().await {
            let (attempt, reply) = made??;
            if shows(&reply) {
                succeeded += 1;
                println!("{} by {} shows: {reply:?}", attempt.path, attempt.attacker);
            }
            *statuses.entry(reply.status).or_default() += 1;
        }
    }
    let kept = victim.content().await? == before;
    println!(
        "{attempts} attempts, seed {seed}, {} methods: {succeeded} succeeded; the victim's entries are {}",
        METHODS.len(),
        if kept { "as they were" } else { "CHANGED" },
    );
    println!("by grpc-status: {statuses:?}");
    // A run in which nothing was served, or nothing refused, would show nothing.
    let both = statuses.contains_key("0") && statuses.contains_key("7");
    ensure!(
        both || attempts < 1000,
        "the attempts were all alike: {statuses:?}"
    );
    Ok(succeeded == 0 && kept)
}

async fn make(client: SendRequest<Bytes>, attempt: Attempt) -> anyhow::Result<(Attempt, Reply)> {
    let metadata: Vec<(&str, &str)> = attempt
        .metadata
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let message = attempt.message.clone();
    let reply = client::call(client, attempt.path, &metadata, message).await?;
    Ok((attempt, reply))
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|found| found == part)
}

/// True if an answer, or anything beside it, shows what is the victim's alone.
fn shows(reply: &Reply) -> bool {
    let fields = reply.fields.values().map(http::HeaderValue::as_bytes);
    std::iter::once(&reply.content[..])
        .chain(fields)
        .any(|text| holds(text, MARK) || holds(text, &FLAGS))
}

/// The account under attack.
struct Victim {
    client: SendRequest<Bytes>,
    token: String,
}

impl Victim {
    async fn call(&self, method: &str, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let path = format!("/larder.cache.v1.CacheService/{method}");
        let metadata = [("authorization", &self.token[..])];
        let client = self.client.clone();
        let reply = client::call(client, &path, &metadata, prefixed(message)).await?;
        ensure!(
            reply.status == "0",
            "{method}: grpc-status {}",
            reply.status
        );
        Ok(reply.content)
    }

    /// Stores entries, and learns what can be known of them.
    async fn prepare(&self, token_names: Vec<String>) -> anyhow::Result<Known> {
        let mut known = Known {
            versions: Vec::new(),
            page_tokens: vec![b"made-up".to_vec()],
            resume_tokens: vec![b"made-up".to_vec()],
            token_names,
        };
        for namespace in NAMESPACES {
            for key in KEYS {
                let value = [MARK, namespace.as_bytes(), key.as_bytes()].concat();
                let set = [
                    field(1, namespace.as_bytes()),
                    field(2, key.as_bytes()),
                    field(3, &value),
                    // `uint32 flags = 11`.
                    vec![11 << 3],
                    FLAGS.to_vec(),
                ];
                let reply = self.call("Set", &set.concat()).await?;
                known.versions.push(version(&reply).context("a version")?);
            }
            let list = [field(1, namespace.as_bytes()), vec![3 << 3, 2]].concat();
            let reply = self.call("ListKeys", &list).await?;
            known
                .page_tokens
                .push(last_text(&reply).context("a page token")?);
            let reply = self.call("Dump", &field(1, namespace.as_bytes())).await?;
            known
                .resume_tokens
                .push(last_text(&reply).context("a resume token")?);
        }
        Ok(known)
    }

    /// Everything that it holds, with versions.
    async fn content(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut content = Vec::new();
        for namespace in NAMESPACES {
            for key in KEYS {
                let get = [field(1, namespace.as_bytes()), field(2, key.as_bytes())].concat();
                content.push(self.call("Get", &get).await?);
            }
        }
        Ok(content)
    }
}

/// `SetResponse.applied.entry.version`, the one `fixed64` in there: all versions of
/// a server have the same upper part, so what comes before it is its tag.
fn version(content: &[u8]) -> Option<[u8; 8]> {
    let applied = message(content.get(5..)?, 1)?;
    let entry = message(applied, 1)?;
    // `fixed64 version` is the only field of its wire type in an entry.
    let mut rest = entry;
    while let Some((&tag, after)) = rest.split_first() {
        rest = match tag & 7 {
            1 => return after.get(..8)?.try_into().ok(),
            2 => {
                let (length, from) = varint(after)?;
                after.get(from + length..)?
            }
            0 => after.get(varint(after)?.1..)?,
            _ => return None,
        };
    }
    None
}

/// The last text on the first level of the last message of an answer: its token.
fn last_text(content: &[u8]) -> Option<Vec<u8>> {
    let mut rest = content;
    let mut found = None;
    while rest.len() >= 5 {
        let length = u32::from_be_bytes(rest.get(1..5)?.try_into().ok()?) as usize;
        found = message(rest.get(5..5 + length)?, 2)
            .map(<[u8]>::to_vec)
            .or(found);
        rest = rest.get(5 + length..)?;
    }
    found
}

/// The field of that number whose content has a length.
fn message(of: &[u8], number: u8) -> Option<&[u8]> {
    let mut rest = of;
    let mut found = None;
    while let Some((&tag, after)) = rest.split_first() {
        rest = match tag & 7 {
            1 => after.get(8..)?,
            2 => {
                let (length, from) = varint(after)?;
                if tag >> 3 == number {
                    found = after.get(from..from + length);
                }
                after.get(from + length..)?
            }
            0 => after.get(varint(after)?.1..)?,
            _ => return None,
        };
    }
    found
}

/// A number, and its length.
fn varint(of: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0_usize;
    for (place, byte) in of.iter().take(9).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, place + 1));
        }
    }
    None
}
