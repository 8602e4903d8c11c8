//! Calls on many entries.

use larder_api::cache_v1 as wire;
use larder_api::cache_v1::{batch_delete_response, batch_get_response, batch_set_response};

use crate::cache::{no_outcome, set_reply};
use crate::client::Client;
use crate::convert;
use crate::error::{Error, Repeat};
use crate::method;
use crate::near::Writes;
use crate::options::Condition;
use crate::status;
use crate::types::{BatchSetItem, DeletedPrefix, Entry, SetReply};

impl Client {
    /// Reads many entries; one result for each key, in the order of the keys.
    ///
    /// The server ends a reply at a size of its own and defers the remaining
    /// keys; this asks again until all are answered, so a large batch takes
    /// several calls, each with its own deadline.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and for more keys than the server allows in a
    /// batch.
    pub async fn batch_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Entry>>, Error> {
        if self.spreads_keys() {
            return self.spread_get(keys).await;
        }
        let mut found: Vec<Option<Entry>> = vec![None; keys.len()];
        let mut open: Vec<usize> = (0..keys.len()).collect();
        while !open.is_empty() {
            let request = wire::BatchGetRequest {
                namespace: self.namespace(),
                keys: open.iter().map(|&at| keys[at].as_ref().to_vec()).collect(),
                ..wire::BatchGetRequest::default()
            };
            let reply = self.call(method::BATCH_GET, &request, Repeat::Read).await?;
            check_count(reply.results.len(), open.len())?;
            let mut deferred = Vec::new();
            for (&at, result) in open.iter().zip(reply.results) {
                match result.outcome {
                    Some(batch_get_response::result::Outcome::Hit(entry)) => {
                        found[at] = Some(convert::entry(*entry)?);
                    }
                    Some(batch_get_response::result::Outcome::Miss(_)) => {}
                    Some(batch_get_response::result::Outcome::Deferred(_)) => deferred.push(at),
                    None => return Err(no_outcome()),
                }
            }
            // Each round must answer something, or this would never end.
            if deferred.len() == open.len() {
                return Err(Error::protocol("the server deferred every key of a batch"));
            }
            open = deferred;
        }
        Ok(found)
    }

    /// Stores many entries, each with its own outcome or error, in the order
    /// given. Not atomic as a whole.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), for the call as a whole.
    pub async fn batch_set(
        &self,
        items: Vec<BatchSetItem>,
    ) -> Result<Vec<Result<SetReply, Error>>, Error> {
        if self.spreads_keys() {
            return Ok(self.spread_set(items).await);
        }
        let count = items.len();
        let is_same = |item: &BatchSetItem| item.options.condition == Condition::Always;
        let repeat = match items.iter().all(is_same) {
            true => Repeat::Same,
            false => Repeat::Effect,
        };
        let requests = items.into_iter().map(|item| {
            convert::set_request(self.namespace(), &item.key, item.value, item.options)
        });
        let request = wire::BatchSetRequest {
            requests: requests.collect(),
            validate_only: self.is_dry_run(),
            ..wire::BatchSetRequest::default()
        };
        let keys = self.written_keys(request.requests.iter().map(|request| &*request.key));
        let how = repeat.over(Writes::Keys(&keys));
        let reply = self.call(method::BATCH_SET, &request, how).await?;
        self.confirm(reply.validated_only)?;
        check_count(reply.results.len(), count)?;
        let results = reply.results.into_iter().map(|result| match result.result {
            Some(batch_set_response::result::Result::Response(reply)) => set_reply(*reply),
            Some(batch_set_response::result::Result::Error(error)) => {
                Err(status::from_status(&error, Repeat::Effect))
            }
            None => Err(no_outcome()),
        });
        Ok(results.collect())
    }

    /// Deletes many entries; for each key, in order, whether there was an
    /// entry, or an error of its own.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), for the call as a whole.
    pub async fn batch_delete<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Result<bool, Error>>, Error> {
        if self.spreads_keys() {
            return Ok(self.spread_delete(keys).await);
        }
        let request = wire::BatchDeleteRequest {
            namespace: self.namespace(),
            keys: keys.iter().map(|key| key.as_ref().to_vec()).collect(),
            validate_only: self.is_dry_run(),
            ..wire::BatchDeleteRequest::default()
        };
        let keys = self.written_keys(keys.iter().map(AsRef::as_ref));
        let how = Repeat::Same.over(Writes::Keys(&keys));
        let reply = self.call(method::BATCH_DELETE, &request, how).await?;
        self.confirm(reply.validated_only)?;
        check_count(reply.results.len(), request.keys.len())?;
        let results = reply.results.into_iter().map(|result| match result.result {
            Some(batch_delete_response::result::Result::Deleted(deleted)) => Ok(deleted),
            Some(batch_delete_response::result::Result::Error(error)) => {
                Err(status::from_status(&error, Repeat::Effect))
            }
            None => Err(no_outcome()),
        });
        Ok(results.collect())
    }

    /// Deletes all entries whose key begins with a prefix of at least one byte.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<DeletedPrefix, Error> {
        self.delete_many(wire::DeletePrefixRequest {
            prefix: prefix.as_ref().to_vec(),
            ..wire::DeletePrefixRequest::default()
        })
        .await
    }

    /// Deletes all entries of the namespace.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn delete_all(&self) -> Result<DeletedPrefix, Error> {
        self.delete_many(wire::DeletePrefixRequest {
            all: true,
            ..wire::DeletePrefixRequest::default()
        })
        .await
    }

    /// By all servers that have a part of the keys, once each of them can be reached.
    async fn delete_many(
        &self,
        mut request: wire::DeletePrefixRequest,
    ) -> Result<DeletedPrefix, Error> {
        request.namespace = self.namespace();
        request.validate_only = self.is_dry_run();
        let clients = self.each_server(method::DELETE_PREFIX).await?;
        if let [one] = &clients[..] {
            return one.delete_many_of_server(&request).await;
        }
        for client in &clients {
            client.reached(method::DELETE_PREFIX).await?;
        }
        let mut sum = DeletedPrefix::default();
        for (done, client) in clients.iter().enumerate() {
            let deleted = client.delete_many_of_server(&request).await;
            let deleted = deleted.map_err(|error| match self.is_dry_run() {
                true => error,
                false => error.after_others(done),
            })?;
            sum.count = sum.count.saturating_add(deleted.count);
        }
        Ok(sum)
    }

    async fn delete_many_of_server(
        &self,
        request: &wire::DeletePrefixRequest,
    ) -> Result<DeletedPrefix, Error> {
        // Empty where it is about all keys.
        let how = Repeat::Same.over(Writes::Prefix(&request.prefix));
        let reply = self.call(method::DELETE_PREFIX, request, how).await?;
        self.confirm(reply.validated_only)?;
        Ok(DeletedPrefix {
            count: convert::count(reply.deleted_count),
            replayed: reply.replayed,
        })
    }
}

fn check_count(results: usize, asked: usize) -> Result<(), Error> {
    if results == asked {
        Ok(())
    } else {
        Err(Error::protocol(format!(
            "the server gave {results} results for {asked} keys"
        )))
    }
}
