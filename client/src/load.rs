//! Stores a stream of entries, and goes on after a break.

use std::collections::VecDeque;
use std::fmt;

use larder_api::cache_v1 as wire;

use crate::call::{Replies, Requests};
use crate::client::Client;
use crate::convert;
use crate::dump::backoff;
use crate::error::{Error, Repeat};
use crate::method;
use crate::near::Writes;
use crate::status;
use crate::types::Entry;

/// Most parts sent and not yet acknowledged. They are kept, to be sent again
/// on another stream.
const MAX_UNACKNOWLEDGED: usize = 4;

/// A part is sent once it holds this much, bytes; one entry is never split.
const PART_BYTES: usize = 256 << 10;

/// A part is sent once it holds this many entries: the server's default limit
/// on a batch.
const PART_ENTRIES: usize = 1000;

/// Streams opened without an acknowledgement in between before giving up.
const MAX_RESUMES: u32 = 5;

type PartStream = (Requests<wire::LoadRequest>, Replies<wire::LoadResponse>);

/// A load under way. Holds at most five parts of 256 KiB, more only where a
/// single entry is larger.
///
/// A stream that breaks is taken up after the last acknowledged part, a
/// bounded number of times. Parts that were sent and not acknowledged are then
/// stored a second time, so that a write of somebody else in between may be
/// undone.
#[must_use = "entries are stored for certain only after `finish`"]
pub struct Loader {
    client: Client,
    stream: Option<PartStream>,
    part: Vec<Entry>,
    part_bytes: usize,
    unacknowledged: VecDeque<Vec<Entry>>,
    /// How many of `unacknowledged` went out on the present stream.
    sent: usize,
    /// Of streams that are over.
    earlier: LoadSummary,
    /// Of the present stream.
    present: LoadSummary,
    resumes: u32,
    failed: Option<Error>,
}

/// What a load has done.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LoadSummary {
    /// Entries stored, or in a dry run fit to be.
    pub stored: u64,
    /// Entries that had expired before they arrived.
    pub expired: u64,
    /// Entries refused, by quota or by limit.
    pub refused: u64,
    /// Why the first of them was refused.
    pub first_refusal: Option<Error>,
}

impl Client {
    /// Begins to store a stream of entries in the namespace. Nothing is sent
    /// before the first part is full.
    pub fn load(&self) -> Loader {
        Loader {
            client: self.clone(),
            stream: None,
            part: Vec::new(),
            part_bytes: 0,
            unacknowledged: VecDeque::new(),
            sent: 0,
            earlier: LoadSummary::default(),
            present: LoadSummary::default(),
            resumes: 0,
            failed: None,
        }
    }
}

impl Loader {
    /// Adds one entry. Waits while too many parts are not acknowledged.
    ///
    /// # Errors
    ///
    /// As [`Client::set`], and if the stream broke too often. An error is
    /// final: each later call gives it again. Entries that the server refuses
    /// one by one are no error; see [`LoadSummary::refused`].
    /// Under ring hash it fails ([`Code::FailedPrecondition`](crate::Code::FailedPrecondition)),
    /// for a stream goes to one server: use [`Client::batch_set`].
    pub async fn push(&mut self, entry: Entry) -> Result<(), Error> {
        self.client.is_of_one_server("a load")?;
        let bytes = entry.key.len() + entry.value.len();
        // A part that would grow past the limit goes first, so that a large
        // entry stands alone in its message.
        if !self.part.is_empty() && self.part_bytes + bytes > PART_BYTES {
            self.flush().await?;
        }
        self.part_bytes += bytes;
        self.part.push(entry);
        if self.part_bytes >= PART_BYTES || self.part.len() >= PART_ENTRIES {
            self.flush().await?;
        }
        Ok(())
    }

    /// What is acknowledged so far.
    pub fn progress(&self) -> LoadSummary {
        self.earlier.plus(&self.present)
    }

    /// Sends what is left, waits for the last acknowledgement and ends the
    /// stream.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub async fn finish(mut self) -> Result<LoadSummary, Error> {
        self.flush().await?;
        self.drain_to(0).await?;
        if let Some((requests, mut replies)) = self.stream.take() {
            requests.finish();
            // All is acknowledged. Waiting for the end only lets the server see
            // an orderly one; how it comes out changes nothing.
            let _ = tokio::time::timeout(self.client.timeout, replies.message()).await;
        }
        Ok(self.progress())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.part.is_empty() {
            return Ok(());
        }
        self.drain_to(MAX_UNACKNOWLEDGED - 1).await?;
        self.part_bytes = 0;
        self.unacknowledged
            .push_back(std::mem::take(&mut self.part));
        // Sending is the other half of draining: with room for one more it
        // sends and waits for nothing.
        self.drain_to(MAX_UNACKNOWLEDGED).await
    }

    /// Sends what is unsent, and waits until at most `most` parts are
    /// unacknowledged.
    async fn drain_to(&mut self, most: usize) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        while self.sent < self.unacknowledged.len() || self.unacknowledged.len() > most {
            let step = if self.sent < self.unacknowledged.len() {
                self.send_next().await
            } else {
                self.receive().await
            };
            if let Err(error) = step {
                self.recover(error).await?;
            }
        }
        Ok(())
    }

    async fn send_next(&mut self) -> Result<(), Error> {
        let part = self.unacknowledged[self.sent].iter();
        let first = self.stream.is_none();
        let request = wire::LoadRequest {
            namespace: if first {
                self.client.namespace()
            } else {
                String::new()
            },
            entries: part.map(convert::wire_entry).collect(),
            validate_only: first && self.client.is_dry_run(),
            ..wire::LoadRequest::default()
        };
        let patience = self.client.timeout;
        let sending = tokio::time::timeout(patience, async {
            let (requests, replies) = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let opened = self.client.open(method::LOAD, Repeat::Effect).await?;
                    self.stream.insert(opened)
                }
            };
            if requests.send(&request).await?.is_err() {
                // The stream is over; its end says why.
                return Err(match replies.message().await {
                    Err(error) => error,
                    Ok(_) => Error::protocol("the server ended a load early"),
                });
            }
            Ok(())
        });
        sending.await.map_err(|_| {
            Error::stalled("room for a part of the load", patience, Repeat::Effect)
        })??;
        self.sent += 1;
        Ok(())
    }

    async fn receive(&mut self) -> Result<(), Error> {
        let patience = self.client.timeout;
        let Some((_, replies)) = &mut self.stream else {
            return Err(Error::protocol("a load waits without a stream"));
        };
        let reply = tokio::time::timeout(patience, replies.message())
            .await
            .map_err(|_| Error::stalled("acknowledgement of the load", patience, Repeat::Effect))??
            .ok_or_else(|| Error::protocol("the server ended a load early"))?;
        self.client.confirm(reply.validated_only)?;
        self.present = LoadSummary {
            stored: convert::count(reply.stored_count),
            expired: convert::count(reply.expired_count),
            refused: convert::count(reply.refused_count),
            first_refusal: reply
                .first_refusal
                .as_option()
                .map(|refusal| status::from_status(refusal, Repeat::Effect)),
        };
        if let Some(part) = self.unacknowledged.pop_front() {
            let keys = self.client.written_keys(part.iter().map(|it| &*it.key));
            let writing = self.client.writing(Writes::Keys(&keys));
            writing.end(&Ok::<(), Error>(()));
        }
        self.sent = self.sent.saturating_sub(1);
        self.resumes = 0;
        Ok(())
    }

    /// Prepares another stream, or gives the error back if there is to be none.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        self.sent = 0;
        self.earlier = self.progress();
        self.present = LoadSummary::default();
        if !error.breaks_stream() || self.resumes >= MAX_RESUMES {
            self.failed = Some(error.clone());
            self.leave_in_doubt();
            return Err(error);
        }
        if let Some(delay) = backoff(self.resumes, &error) {
            tokio::time::sleep(delay).await;
        }
        self.resumes += 1;
        Ok(())
    }

    /// Gives up what is not acknowledged, which may be stored all the same.
    fn leave_in_doubt(&mut self) {
        let lost = std::mem::take(&mut self.unacknowledged);
        if lost.is_empty() {
            return;
        }
        let keys = lost.iter().flatten().map(|entry| &*entry.key);
        let keys = self.client.written_keys(keys);
        // Never ended, it is in doubt.
        drop(self.client.writing(Writes::Keys(&keys)));
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.leave_in_doubt();
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("progress", &self.progress())
            .field("unacknowledged_parts", &self.unacknowledged.len())
            .field("resumes", &self.resumes)
            .finish_non_exhaustive()
    }
}

impl LoadSummary {
    fn plus(&self, other: &Self) -> Self {
        Self {
            stored: self.stored.saturating_add(other.stored),
            expired: self.expired.saturating_add(other.expired),
            refused: self.refused.saturating_add(other.refused),
            first_refusal: self
                .first_refusal
                .clone()
                .or_else(|| other.first_refusal.clone()),
        }
    }
}
