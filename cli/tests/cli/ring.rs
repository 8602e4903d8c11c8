//! Three memory nodes behind ring hash: what is about no one key is about all of them, or fails.

use std::collections::BTreeSet;

use larder_client::{
    AccountSettings, Balancing, Client, ClientConfig, Code, Entry, Error, PageToken, RingHash,
    SetOptions,
};

use crate::server::{ANY_PORT, Server};

const KEYS: usize = 300;

fn ring_of(servers: &[Server]) -> Client {
    let all = servers.iter().map(|server| server.address.to_string());
    let target = format!("ipv4:{}", all.collect::<Vec<_>>().join(","));
    let config = ClientConfig::new(&target).unwrap();
    let balancing = Balancing::ring_hash(RingHash::default());
    Client::lazy(config.with_balancing(balancing)).unwrap()
}

fn key(number: usize) -> String {
    format!("key-{number:03}")
}

async fn fill(client: &Client, value: &'static str) {
    for number in 0..KEYS {
        let set = client.set(key(number), value, SetOptions::new()).await;
        set.unwrap();
    }
}

async fn dumped(client: &Client) -> Result<Vec<Entry>, Error> {
    let mut dump = client.dump("key-");
    let mut entries = Vec::new();
    while let Some(entry) = dump.next().await? {
        entries.push(entry);
    }
    Ok(entries)
}

/// Keys, by pages of a size; how many pages there were.
async fn listed(client: &Client, size: u32) -> Result<(Vec<Vec<u8>>, usize), Error> {
    let (mut keys, mut pages) = (Vec::new(), 0);
    let mut from: Option<PageToken> = None;
    loop {
        let page = client.list_keys("key-", size, from.as_ref()).await?;
        pages += 1;
        keys.extend(page.entries.iter().map(|entry| entry.key.to_vec()));
        match page.next {
            // Whoever keeps it as text has the same place.
            Some(next) => from = Some(PageToken::new(next.as_str())),
            None => return Ok((keys, pages)),
        }
    }
}

fn all_keys() -> BTreeSet<Vec<u8>> {
    (0..KEYS).map(|number| key(number).into_bytes()).collect()
}

async fn keys_on(server: &Server) -> u64 {
    let alone = ClientConfig::new(&format!("http://{}", server.address)).unwrap();
    let alone = Client::lazy(alone).unwrap();
    alone.usage().await.unwrap().quota.key_count
}

#[tokio::test]
async fn dumps_lists_usage_and_deletes_are_of_all_servers_of_a_ring() {
    let servers = [ANY_PORT; 3].map(Server::start);
    let client = ring_of(&servers);
    fill(&client, "value").await;
    for server in &servers {
        let count = keys_on(server).await;
        assert!((30..200).contains(&count), "{count} of {KEYS}");
    }
    assert_eq!(client.usage().await.unwrap().quota.key_count, 300);
    let entries = dumped(&client).await.unwrap();
    assert_eq!(entries.len(), KEYS);
    let keys = entries.iter().map(|entry| entry.key.to_vec());
    assert_eq!(keys.collect::<BTreeSet<_>>(), all_keys());
    for size in [0, 7] {
        let (keys, pages) = listed(&client, size).await.unwrap();
        assert_eq!(keys.len(), KEYS, "pages of {size}");
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), all_keys());
        assert!(if size == 0 {
            pages == 3
        } else {
            pages >= KEYS / 7
        });
    }
    let mut pages = client.keys("key-1");
    let mut hundred = 0;
    while pages.next().await.unwrap().is_some() {
        hundred += 1;
    }
    assert_eq!(hundred, 100);
    let rehearsal = client.dry_run().delete_prefix("key-0").await.unwrap();
    assert_eq!(rehearsal.count, 100);
    assert_eq!(client.delete_prefix("key-0").await.unwrap().count, 100);
    assert_eq!(client.delete_all().await.unwrap().count, 200);
    assert_eq!(client.usage().await.unwrap().quota.key_count, 0);
}

#[tokio::test]
async fn a_ring_of_which_a_server_is_away_gives_no_part_for_the_whole() {
    let mut servers = [ANY_PORT; 3].map(Server::start);
    let client = ring_of(&servers);
    fill(&client, "old").await;
    let first = client.list_keys("", 10, None).await.unwrap();
    let lost = keys_on(&servers[1]).await;
    servers[1].kill();

    let address = servers[1].address.to_string();
    let check = |what: &str, error: Error| {
        assert_eq!(error.code(), Code::Unavailable, "{what}: {error}");
        assert!(error.to_string().contains(&address), "{what}: {error}");
    };
    check("usage", client.usage().await.unwrap_err());
    check("list", listed(&client, 0).await.unwrap_err());
    check("dump", dumped(&client).await.unwrap_err());
    let error = client.delete_prefix("key-").await.unwrap_err();
    assert!(
        !error.may_have_applied(),
        "nothing is deleted before all are there"
    );
    check("delete", error);
    let left = keys_on(&servers[0]).await + keys_on(&servers[2]).await;
    assert_eq!(left, KEYS as u64 - lost);

    // Its keys go elsewhere meanwhile, and stay there when it is back: no get finds them, and so
    // no dump has them.
    fill(&client, "meanwhile").await;
    servers[1] = Server::start(servers[1].address);
    let client = ring_of(&servers);
    fill(&client, "new").await;
    assert_eq!(
        client.usage().await.unwrap().quota.key_count,
        KEYS as u64 + lost
    );
    let entries = dumped(&client).await.unwrap();
    assert_eq!(entries.len(), KEYS);
    assert!(entries.iter().all(|entry| entry.value == "new"));
    assert_eq!(listed(&client, 50).await.unwrap().0.len(), KEYS);
    // They are deleted with the rest.
    assert_eq!(client.delete_all().await.unwrap().count, KEYS as u64 + lost);

    // A listing goes on with the same servers, or not at all.
    let next = first.next.unwrap();
    client.list_keys("", 10, Some(&next)).await.unwrap();
    let fewer = ring_of(&servers[..2]);
    let error = fewer.list_keys("", 10, Some(&next)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.to_string().contains("ring_hash"), "{error}");
    let error = client.list_keys("", 10, Some(&PageToken::new("x"))).await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_of_one_server_is_refused_under_ring_hash() {
    let servers = [ANY_PORT; 2].map(Server::start);
    let client = ring_of(&servers);
    let check = |error: Error| {
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.is_configuration() && error.to_string().contains("ring_hash"));
    };
    client.set("key", "value", SetOptions::new()).await.unwrap();
    let entry = client.get("key").await.unwrap().unwrap();
    check(client.load().push(entry).await.unwrap_err());
    check(client.talk().dump().await.unwrap_err());
    let accounts = client.accounts();
    check(accounts.get("default").await.unwrap_err());
    let settings = AccountSettings::default();
    let create = accounts.create("x", &settings, None).await;
    check(create.unwrap_err());
    // The talk's calls with a key go to its server.
    for number in 0..20 {
        let talk = client.talk();
        talk.store(&key(number), "value").await.unwrap();
        assert_eq!(talk.get(&key(number)).await.unwrap(), "value");
        assert!(client.get(key(number)).await.unwrap().is_some());
    }
}
