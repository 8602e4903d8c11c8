//! Clients that write all the while, and know what was acknowledged.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::ledger::{Key, Ledger, unix_ms};
use crate::calls;

/// Values are numbers, and this much longer, so that a snapshot takes its time.
const PADDING: usize = 2_000;
/// `NOT_FOUND`.
const NOT_FOUND: &str = "5";

/// Clients at work.
pub(super) struct Writers {
    tasks: JoinSet<(usize, Written)>,
}

/// What they did.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) acknowledged: u64,
    /// Calls that the server said it did not take, when it went away.
    pub(super) not_taken: u64,
    /// Calls that it took and did not answer, or not well.
    pub(super) cut: Vec<String>,
    pub(super) writes: Vec<Vec<Key>>,
}

/// What one of them did.
struct Written {
    keys: Vec<Key>,
    acknowledged: u64,
    end: CallEnd,
}

/// How a call went.
enum CallEnd {
    /// `OK`.
    Answered,
    /// It never left, or the server says that it was not taken.
    NotTaken,
    /// Anything else.
    Cut(String),
}

impl Writers {
    /// Connects, and lets them write until their connections end.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(super) async fn start(
        address: SocketAddr,
        ledger: &Ledger,
        connections: usize,
        streams: usize,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            let client = connect(address).await?;
            for stream in 0..streams {
                let number = connection * streams + stream;
                let keys = ledger.writers[number].clone();
                let client = client.clone();
                tasks.spawn(async move { (number, write(client, number, keys).await) });
            }
        }
        Ok(Self { tasks })
    }

    /// Waits until they have ended: with the server.
    pub(super) async fn end(mut self) -> Ended {
        let mut ended = Ended::default();
        let mut writes = Vec::new();
        while let Some(written) = self.tasks.join_next().await {
            let Ok((number, written)) = written else {
                ended.cut.push("a writer panicked".to_owned());
                continue;
            };
            ended.acknowledged += written.acknowledged;
            match written.end {
                CallEnd::Answered => {}
                CallEnd::NotTaken => ended.not_taken += 1,
                CallEnd::Cut(why) => ended.cut.push(format!("a call was cut: {why}")),
            }
            writes.push((number, written.keys));
        }
        writes.sort_unstable_by_key(|(number, _)| *number);
        ended.writes = writes.into_iter().map(|(_, keys)| keys).collect();
        ended
    }
}

/// Writes to one key after the other, until a call is not answered.
async fn write(client: SendRequest<Bytes>, number: usize, mut keys: Vec<Key>) -> Written {
    let mut acknowledged = 0;
    loop {
        for (place, key) in keys.iter_mut().enumerate() {
            key.tried += 1;
            let value = format!("{:0>1$}", key.tried, PADDING);
            let message = calls::store(&name(number, place), value.as_bytes());
            match store(client.clone(), message).await {
                CallEnd::Answered => {
                    acknowledged += 1;
                    key.acknowledged.push((key.tried, unix_ms()));
                }
                end => {
                    return Written {
                        keys,
                        acknowledged,
                        end,
                    };
                }
            }
        }
    }
}

fn name(writer: usize, place: usize) -> String {
    format!("w{writer}-k{place}")
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Bytes>> {
    let io = TcpStream::connect(address).await?;
    io.set_nodelay(true)?;
    let (client, connection) = h2::client::handshake(io).await?;
    // Its error is that of the calls.
    tokio::spawn(connection);
    Ok(client)
}

async fn store(client: SendRequest<Bytes>, message: Vec<u8>) -> CallEnd {
    let Ok(client) = client.ready().await else {
        return CallEnd::NotTaken;
    };
    match call(client, calls::STORE, message).await {
        Ok((status, _)) if status == "0" => CallEnd::Answered,
        Ok((status, _)) => CallEnd::Cut(format!("grpc-status {status}")),
        Err(error) => match error.downcast_ref::<h2::Error>() {
            // RFC 9113, section 6.8: above the last stream that GOAWAY names.
            Some(h2) if h2.is_go_away() && h2.reason() == Some(Reason::NO_ERROR) => {
                CallEnd::NotTaken
            }
            Some(h2) if h2.reason() == Some(Reason::REFUSED_STREAM) => CallEnd::NotTaken,
            _ => CallEnd::Cut(format!("{error:#}")),
        },
    }
}

/// One call; its status, and its message with its prefix.
async fn call(
    mut client: SendRequest<Bytes>,
    path: &str,
    message: Vec<u8>,
) -> anyhow::Result<(String, Bytes)> {
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = client.send_request(request, false)?;
    body.send_data(message.into(), true)?;
    let response = response.await?;
    let status = |map: &http::HeaderMap| {
        let status = map.get("grpc-status")?;
        Some(status.to_str().ok()?.to_owned())
    };
    if let Some(status) = status(response.headers()) {
        return Ok((status, Bytes::new()));
    }
    let mut body = response.into_body();
    let mut content = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        content.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.context("an answer has trailers")?;
    let status = status(&trailers).context("an answer has a status")?;
    Ok((status, content.freeze()))
}

/// What every key holds, in the order of the ledger; 0 for nothing.
///
/// # Errors
/// A call fails, or a value was never written.
pub(super) async fn read_all(address: SocketAddr, ledger: &Ledger) -> anyhow::Result<Vec<u64>> {
    let client = connect(address).await?;
    let mut found = Vec::new();
    for (writer, keys) in ledger.writers.iter().enumerate() {
        for place in 0..keys.len() {
            let key = name(writer, place);
            let ready = client.clone().ready().await?;
            let (status, message) = call(ready, calls::GET, calls::get(&key)).await?;
            found.push(match status.as_str() {
                "0" => number(&message).with_context(|| format!("{key} holds {message:?}"))?,
                NOT_FOUND => 0,
                _ => bail!("{key}: grpc-status {status}"),
            });
        }
    }
    Ok(found)
}

/// The number at the end of a `GetResp` with its prefix.
fn number(message: &[u8]) -> Option<u64> {
    let value = message.get(message.len().checked_sub(PADDING)?..)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}
