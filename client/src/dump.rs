//! Streams entries with their values, and goes on after a break.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use larder_api::cache_v1 as wire;

use crate::call::Replies;
use crate::client::Client;
use crate::convert;
use crate::error::{Error, Repeat};
use crate::method;
use crate::ring::Walk;
use crate::types::Entry;

/// Tries to take up a broken stream before giving up; each part that arrives
/// starts the count again.
const MAX_RESUMES: u32 = 5;

/// Wait before the second try; doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// Longest wait between tries, also where the server asks for more.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

type PartStream = Replies<wire::DumpResponse>;

/// A dump under way. Holds one part, whatever the size of the cache.
///
/// A stream that breaks is taken up where it broke, a bounded number of times.
/// Entries that change while the dump runs may appear in their old or new
/// form.
///
/// Under ring hash all servers are dumped, one after the other, and of each the entries whose keys
/// are its own: those that a get would find. If one cannot be reached, or the servers change
/// meanwhile, the dump fails.
pub struct DumpStream {
    client: Client,
    prefix: Vec<u8>,
    /// Under ring hash, once the first stream is opened.
    walk: Option<Walk>,
    stream: Option<PartStream>,
    resume_token: String,
    resumes: u32,
    buffered: VecDeque<Entry>,
    ended: bool,
}

impl Client {
    /// Streams all entries of the namespace whose key begins with `prefix`.
    /// Nothing is sent before the first entry is asked for.
    pub fn dump(&self, prefix: impl AsRef<[u8]>) -> DumpStream {
        DumpStream {
            client: self.clone(),
            prefix: prefix.as_ref().to_vec(),
            walk: None,
            stream: None,
            resume_token: String::new(),
            resumes: 0,
            buffered: VecDeque::new(),
            ended: false,
        }
    }
}

impl DumpStream {
    /// The next entry; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`next_part`](Self::next_part).
    pub async fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(entry) = self.buffered.pop_front() {
                return Ok(Some(entry));
            }
            match self.next_part().await? {
                Some(part) => self.buffered.extend(part),
                None => return Ok(None),
            }
        }
    }

    /// The next entries, as the server grouped them (256 KiB, or one entry if
    /// that is larger); `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]; also if the stream broke too often, or the point to
    /// resume from is gone
    /// ([`Reason::ResumeTokenExpired`](crate::Reason::ResumeTokenExpired)).
    /// An error is final.
    pub async fn next_part(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        if !self.buffered.is_empty() {
            return Ok(Some(self.buffered.drain(..).collect()));
        }
        if self.ended {
            return Ok(None);
        }
        loop {
            match self.receive().await {
                Ok(Some(mut part)) => {
                    self.resumes = 0;
                    if let Some(walk) = &self.walk {
                        walk.keep_own(&mut part, |entry| &entry.key);
                        if part.is_empty() {
                            continue;
                        }
                    }
                    return Ok(Some(part));
                }
                Ok(None) if self.walk.as_mut().is_some_and(Walk::advance) => {
                    self.stream = None;
                    self.resume_token.clear();
                    self.resumes = 0;
                }
                Ok(None) => {
                    self.finish();
                    return Ok(None);
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// How often the stream was taken up again since the last part.
    pub fn resumes(&self) -> u32 {
        self.resumes
    }

    async fn receive(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        let patience = self.client.timeout;
        let received = tokio::time::timeout(patience, async {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    Walk::go_on(&mut self.walk, &self.client, method::DUMP).await?;
                    let client = match &self.walk {
                        Some(walk) => &walk.client(&self.client)?,
                        None => &self.client,
                    };
                    let opened = open(client, &self.prefix, &self.resume_token).await?;
                    self.stream.insert(opened)
                }
            };
            stream.message().await
        })
        .await
        .map_err(|_| Error::stalled("part of the dump", patience, Repeat::Read))??;
        let Some(part) = received else {
            return Ok(None);
        };
        let entries = convert::entries(part.entries)?;
        // Only now: a part that could not be understood is not passed over.
        if !part.resume_token.is_empty() {
            self.resume_token = part.resume_token;
        }
        Ok(Some(entries))
    }

    /// Prepares another try, or gives the error back if there is to be none.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        if !error.breaks_stream() || self.resumes >= MAX_RESUMES {
            self.finish();
            return Err(error);
        }
        if let Some(delay) = backoff(self.resumes, &error) {
            tokio::time::sleep(delay).await;
        }
        self.resumes += 1;
        Ok(())
    }

    fn finish(&mut self) {
        self.stream = None;
        self.ended = true;
    }
}

impl fmt::Debug for DumpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DumpStream")
            .field("prefix", &self.prefix)
            .field("resumes", &self.resumes)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// The wait before try number `tries`; the first comes at once unless the
/// server asks for patience.
pub(crate) fn backoff(tries: u32, error: &Error) -> Option<Duration> {
    let doubled = match tries {
        0 => Duration::ZERO,
        _ => FIRST_BACKOFF.saturating_mul(1 << (tries - 1).min(16)),
    };
    let asked = error.retry_after().unwrap_or_default();
    Some(doubled.max(asked).min(MAX_BACKOFF)).filter(|delay| !delay.is_zero())
}

async fn open(client: &Client, prefix: &[u8], resume_token: &str) -> Result<PartStream, Error> {
    let request = wire::DumpRequest {
        namespace: client.namespace(),
        prefix: prefix.to_vec(),
        resume_token: resume_token.into(),
        ..wire::DumpRequest::default()
    };
    client
        .open_replies(method::DUMP, &request, Repeat::Read)
        .await
}
