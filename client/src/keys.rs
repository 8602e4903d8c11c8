//! Lists keys, page by page.

use std::collections::VecDeque;

use larder_api::cache_v1 as wire;

use crate::client::Client;
use crate::convert;
use crate::error::{Error, Repeat};
use crate::method;
use crate::ring::Walk;
use crate::types::Entry;

/// Where the next page begins; opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(pub(crate) String);

/// One page of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPage {
    /// Entries without values, in key order; under ring hash in that of each server, one server
    /// after the other.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PageToken>,
}

/// All keys under a prefix, fetched page by page as they are asked for. Holds
/// one page.
#[derive(Debug)]
pub struct KeyPages {
    client: Client,
    prefix: Vec<u8>,
    buffered: VecDeque<Entry>,
    next: Next,
}

/// What a listing does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    First,
    Page(PageToken),
    End,
}

impl PageToken {
    /// A token from the text of an earlier one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_wire(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }
}

impl Next {
    /// What stands in the request, or `None` at the end.
    pub(crate) fn token(&self) -> Option<Option<&PageToken>> {
        match self {
            Self::First => Some(None),
            Self::Page(token) => Some(Some(token)),
            Self::End => None,
        }
    }

    /// Goes on. A server that gives the same token again would be asked for
    /// ever.
    pub(crate) fn advance(&mut self, next: Option<PageToken>) -> Result<(), Error> {
        let next = next.map_or(Self::End, Self::Page);
        if next != Self::End && next == *self {
            return Err(Error::protocol("the server gave the same page token twice"));
        }
        *self = next;
        Ok(())
    }
}

impl Client {
    /// One page of keys that begin with `prefix`. `page_size` 0 leaves its
    /// size to the server. A page may be empty and not the last. Under ring hash all servers are
    /// listed, one after the other.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and for a token that this listing did not give.
    /// Under ring hash also if a server cannot be reached, or if the servers are others than when
    /// the token was given ([`Code::FailedPrecondition`](crate::Code::FailedPrecondition)).
    pub async fn list_keys(
        &self,
        prefix: impl AsRef<[u8]>,
        page_size: u32,
        from: Option<&PageToken>,
    ) -> Result<KeyPage, Error> {
        let Some(homes) = self.homes(method::LIST_KEYS).await? else {
            return self.page(prefix.as_ref(), page_size, from).await;
        };
        let (walk, from) = Walk::from_token(homes, from)?;
        let client = walk.client(self)?;
        let page = client.page(prefix.as_ref(), page_size, from.as_ref());
        Ok(walk.page(page.await?))
    }

    /// One page of one server.
    async fn page(
        &self,
        prefix: &[u8],
        page_size: u32,
        from: Option<&PageToken>,
    ) -> Result<KeyPage, Error> {
        let request = wire::ListKeysRequest {
            namespace: self.namespace(),
            prefix: prefix.to_vec(),
            page_size: i32::try_from(page_size).unwrap_or(i32::MAX),
            page_token: from.map_or_else(String::new, |token| token.0.clone()),
            ..wire::ListKeysRequest::default()
        };
        let reply = self.call(method::LIST_KEYS, &request, Repeat::Read).await?;
        Ok(KeyPage {
            entries: convert::entries(reply.entries)?,
            next: PageToken::from_wire(reply.next_page_token),
        })
    }

    /// All keys that begin with `prefix`.
    pub fn keys(&self, prefix: impl AsRef<[u8]>) -> KeyPages {
        KeyPages {
            client: self.clone(),
            prefix: prefix.as_ref().to_vec(),
            buffered: VecDeque::new(),
            next: Next::First,
        }
    }
}

impl KeyPages {
    /// The next entry, without its value; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Client::list_keys`]. After an error the next call asks for the
    /// same page again.
    pub async fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(entry) = self.buffered.pop_front() {
                return Ok(Some(entry));
            }
            match self.next_page().await? {
                Some(entries) => self.buffered.extend(entries),
                None => return Ok(None),
            }
        }
    }

    /// The next page, which may be empty; `None` at the end. Entries that
    /// [`next`](Self::next) has fetched and not given out come first.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub async fn next_page(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        if !self.buffered.is_empty() {
            return Ok(Some(self.buffered.drain(..).collect()));
        }
        let Some(token) = self.next.token() else {
            return Ok(None);
        };
        let page = self.client.list_keys(&self.prefix, 0, token).await?;
        self.next.advance(page.next)?;
        Ok(Some(page.entries))
    }
}
