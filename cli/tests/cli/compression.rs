//! A client and a server that compress: what is stored and read is the same, and the
//! bytes between them are fewer in both directions.

use std::time::Duration;

use larder_client::{Client, ClientConfig, Entry, SetOptions};
use larder_faults::{Proxy, Schedule, Served};

use crate::server::{ANY_PORT, Server};

const VALUE_BYTES: usize = 200_000;

fn value(name: u8) -> Vec<u8> {
    let text = format!("{{\"name\": \"{name}\", \"what\": \"a value that has much in common\"}}");
    text.bytes().cycle().take(VALUE_BYTES).collect()
}

/// Sets, gets, loads and dumps by a client of this configuration; what crossed the
/// network for that.
async fn talk(server: &Server, configure: fn(ClientConfig) -> ClientConfig) -> Served {
    let no_faults = Schedule::Scripted(Vec::new());
    let proxy = Proxy::start(ANY_PORT, server.address, no_faults)
        .await
        .unwrap();
    let config = ClientConfig::new(&format!("http://{}", proxy.address())).unwrap();
    let client = Client::connect(configure(config)).await.unwrap();
    let mut loader = client.load();
    for name in 0..10 {
        let set = client.set([name], value(name), SetOptions::default()).await;
        set.unwrap();
        let found = client.get([name]).await.unwrap().unwrap();
        assert_eq!(found.value, value(name));
        let entry = Entry::new(vec![100 + name], value(name));
        loader.push(entry).await.unwrap();
    }
    assert_eq!(loader.finish().await.unwrap().stored, 10);
    let mut dump = client.dump("");
    let mut dumped = 0;
    while let Some(entry) = dump.next().await.unwrap() {
        assert_eq!(entry.value, value(entry.key[0] % 100));
        dumped += 1;
    }
    assert_eq!(dumped, 20);
    drop((dump, client));
    // Bytes are told of connections that have ended.
    while proxy.served().down_bytes == 0 || proxy.served().up_bytes == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    proxy.served()
}

#[tokio::test]
async fn whoever_compresses_sends_fewer_bytes_that_are_the_same() {
    let above = [("LARDER_COMPRESSION_ANSWERS_ABOVE", "16KiB")];
    let (plain, set) = (
        Server::start(ANY_PORT),
        Server::start_with(ANY_PORT, &above),
    );
    let usual = |config: ClientConfig| config;
    let compressing = |config: ClientConfig| config.with_compression_above(1024);
    let (sent, received) = (20 * VALUE_BYTES as u64, 30 * VALUE_BYTES as u64);
    for (server, configure, up_is_less, down_is_less) in [
        (&plain, usual as fn(_) -> _, false, false),
        (&plain, compressing, true, false),
        (&set, usual, false, false),
        (&set, compressing, true, true),
    ] {
        let served = talk(server, configure).await;
        for (bytes, of, is_less) in [
            (served.up_bytes, sent, up_is_less),
            (served.down_bytes, received, down_is_less),
        ] {
            match is_less {
                true => assert!(bytes < of / 10, "{served:?}"),
                false => assert!(bytes > of, "{served:?}"),
            }
        }
    }
}
