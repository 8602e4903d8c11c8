//! The talk's own contract: keys are text, and a miss is an error.

use std::fmt;

use bytes::Bytes;
use connectrpc::client::ServerStream;
use larder_api::talk as wire;
use larder_api::talk::DumpItemView;
use larder_api::wire::SKIPPED;

use crate::channel::{Client, ReplyBody, answer};
use crate::error::{Error, Repeat};
use crate::status;

/// Calls of `rpc.Cache`. They know the namespace `default` only, and reply
/// to a dry run with metadata alone, which this client does not check: use
/// [`Client::set`] for a rehearsal that is confirmed.
#[derive(Debug, Clone)]
pub struct Talk(Client);

/// A dump of `rpc.Cache` under way. It cannot be taken up after a break.
pub struct TalkDump {
    client: Client,
    stream: Option<Box<ServerStream<ReplyBody, DumpItemView<'static>>>>,
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
        let call = self
            .0
            .channel
            .talk
            .store_with_options(request, self.0.unary_options());
        answer(call, Repeat::Effect).await.map(drop)
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
        let call = self
            .0
            .channel
            .talk
            .get_with_options(request, self.0.unary_options());
        Ok(Bytes::from(answer(call, Repeat::Read).await?.val))
    }

    /// Streams every entry that the caller may see.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn dump(&self) -> Result<TalkDump, Error> {
        let request = wire::DumpReq::default();
        let opening = self
            .0
            .channel
            .talk
            .dump_with_options(request, self.0.stream_options());
        let patience = self.0.timeout;
        let stream = tokio::time::timeout(patience, opening)
            .await
            .map_err(|_| Error::stalled("answer to the dump", patience, Repeat::Read))?
            .map_err(|error| status::from_call(&error, Repeat::Read))?;
        Ok(TalkDump {
            client: self.0.clone(),
            stream: Some(Box::new(stream)),
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
            .and_then(|message| message.map_err(|error| status::from_call(&error, Repeat::Read)));
        match received {
            Ok(Some(message)) => {
                let item: wire::DumpItem = message.to_owned_message();
                Ok(Some((item.key, Bytes::from(item.val))))
            }
            end => {
                self.skipped = stream
                    .trailers()
                    .and_then(|trailers| trailers.get(SKIPPED))
                    .and_then(|value| value.to_str().ok()?.parse().ok());
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
