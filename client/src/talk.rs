//! The talk's own contract: keys are text, and a miss is an error.

use std::fmt;

use bytes::Bytes;
use larder_api::talk as wire;
use larder_api::wire::SKIPPED;

use crate::call::Replies;
use crate::client::Client;
use crate::error::{Error, Repeat};
use crate::method;
use crate::near::Writes;

/// Calls of `rpc.Cache`. They know the namespace `default` only, and reply
/// to a dry run with metadata alone, which this client does not check: use
/// [`Client::set`] for a rehearsal that is confirmed.
#[derive(Debug, Clone)]
pub struct Talk(Client);

/// A dump of `rpc.Cache` under way. It cannot be taken up after a break.
pub struct TalkDump {
    client: Client,
    stream: Option<Replies<wire::DumpItem>>,
    skipped: Option<u64>,
}

impl Talk {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Stores a value under a key, replacing what was there.
    ///
    /// # Errors
    ///
    /// As [`Client::set`]; a full quota is
    /// [`Code::FailedPrecondition`](crate::Code::FailedPrecondition).
    pub async fn store(&self, key: &str, value: impl Into<Bytes>) -> Result<(), Error> {
        let request = wire::StoreReq {
            key: key.into(),
            val: Vec::from(value.into()),
            ..wire::StoreReq::default()
        };
        let stored = self.0.call(
            method::TALK_STORE,
            &request,
            Repeat::Effect
                .on(key.as_bytes())
                .over(Writes::DefaultKey(key.as_bytes())),
        );
        stored.await.map(drop)
    }

    /// Reads the value of a key.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]; a miss is
    /// [`Reason::KeyNotFound`](crate::Reason::KeyNotFound).
    pub async fn get(&self, key: &str) -> Result<Bytes, Error> {
        let request = wire::GetReq {
            key: key.into(),
            ..wire::GetReq::default()
        };
        let reply = self
            .0
            .call(method::TALK_GET, &request, Repeat::Read.on(key.as_bytes()));
        Ok(Bytes::from(reply.await?.val))
    }

    /// Streams every entry that the caller may see.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]; under ring hash
    /// [`Code::FailedPrecondition`](crate::Code::FailedPrecondition), as it is one server that
    /// dumps: use [`Client::dump`].
    pub async fn dump(&self) -> Result<TalkDump, Error> {
        self.0.is_of_one_server("a dump of rpc.Cache")?;
        let request = wire::DumpReq::default();
        let opening = async {
            let mut replies = self
                .0
                .open_replies(method::TALK_DUMP, &request, Repeat::Read)
                .await?;
            replies.begun().await?;
            Ok(replies)
        };
        let patience = self.0.timeout;
        let stream = tokio::time::timeout(patience, opening)
            .await
            .map_err(|_| Error::stalled("answer to the dump", patience, Repeat::Read))??;
        Ok(TalkDump {
            client: self.0.clone(),
            stream: Some(stream),
            skipped: None,
        })
    }
}

impl TalkDump {
    /// The next key and value; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]. An error is final.
    pub async fn next(&mut self) -> Result<Option<(String, Bytes)>, Error> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let patience = self.client.timeout;
        let received = tokio::time::timeout(patience, stream.message())
            .await
            .map_err(|_| Error::stalled("entry of the dump", patience, Repeat::Read))
            .flatten();
        match received {
            Ok(Some(item)) => Ok(Some((item.key, Bytes::from(item.val)))),
            end => {
                self.skipped = stream.trailer(SKIPPED).and_then(|it| it.parse().ok());
                self.stream = None;
                end.map(|_| None)
            }
        }
    }

    /// After the end: how many entries were left out because their keys are no
    /// UTF-8, if the server told.
    pub fn skipped(&self) -> Option<u64> {
        self.skipped
    }
}

impl fmt::Debug for TalkDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TalkDump")
            .field("ended", &self.stream.is_none())
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}
