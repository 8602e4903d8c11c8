//! Calls on one entry, and about the server.

use bytes::Bytes;
use larder_api::cache_v1 as wire;
use larder_api::cache_v1::{
    delete_response, get_and_touch_response, get_response, set_response, touch_response,
};

use crate::client::Client;
use crate::convert;
use crate::error::{Error, Repeat};
use crate::method;
use crate::options::{Condition, DeleteOptions, Expiry, IncrementOptions, RequestId, SetOptions};
use crate::types::{
    DeleteOutcome, DeleteReply, Entry, IncrementReply, ServerInfo, SetOutcome, SetReply, Usage,
};

impl Client {
    /// Reads one entry; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Those of the catalogue: credential, rights, load, deadline, a bad key.
    /// So with every other call.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, Error> {
        self.get_as(wire::GetRequest {
            namespace: self.namespace(),
            key: key.as_ref().to_vec(),
            ..wire::GetRequest::default()
        })
        .await
    }

    /// Reads version, expiry, size and flags of one entry, without its value
    /// and without counting as a use for eviction.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn peek(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, Error> {
        self.get_as(wire::GetRequest {
            namespace: self.namespace(),
            key: key.as_ref().to_vec(),
            no_touch: true,
            omit_value: true,
            ..wire::GetRequest::default()
        })
        .await
    }

    /// Reads one entry and gives it a new expiry; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and for an expiry out of range.
    pub async fn get_and_touch(
        &self,
        key: impl AsRef<[u8]>,
        expiry: Expiry,
    ) -> Result<Option<Entry>, Error> {
        let mut request = convert::get_and_touch_request(self.namespace(), key.as_ref(), expiry);
        request.validate_only = self.is_dry_run();
        let reply = self
            .call(
                method::GET_AND_TOUCH,
                &request,
                Repeat::Same.on(&request.key),
            )
            .await?;
        self.confirm(reply.validated_only)?;
        match reply.outcome {
            Some(get_and_touch_response::Outcome::Hit(entry)) => convert::entry(*entry).map(Some),
            Some(get_and_touch_response::Outcome::Miss(_)) => Ok(None),
            None => Err(no_outcome()),
        }
    }

    /// Stores one entry, under a condition if the options say so. An unmet
    /// condition is an outcome, not an error.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and for a full quota.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: SetOptions,
    ) -> Result<SetReply, Error> {
        let repeat = repeat(options.condition, options.request_id.as_ref());
        let mut request =
            convert::set_request(self.namespace(), key.as_ref(), value.into(), options);
        request.validate_only = self.is_dry_run();
        let reply = self
            .call(method::SET, &request, repeat.on(&request.key))
            .await?;
        self.confirm(reply.validated_only)?;
        set_reply(reply)
    }

    /// Deletes one entry.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn delete(
        &self,
        key: impl AsRef<[u8]>,
        options: DeleteOptions,
    ) -> Result<DeleteReply, Error> {
        let repeat = repeat(options.condition, options.request_id.as_ref());
        let request = wire::DeleteRequest {
            namespace: self.namespace(),
            key: key.as_ref().to_vec(),
            precondition: convert::condition(options.condition).into(),
            request_id: id_text(options.request_id),
            validate_only: self.is_dry_run(),
            ..wire::DeleteRequest::default()
        };
        let reply = self
            .call(method::DELETE, &request, repeat.on(&request.key))
            .await?;
        self.confirm(reply.validated_only)?;
        let outcome = match reply.outcome {
            Some(delete_response::Outcome::Applied(_)) => DeleteOutcome::Deleted,
            Some(delete_response::Outcome::NotApplied(not)) => {
                DeleteOutcome::NotDeleted(convert::optional_entry(not.current.into_option())?)
            }
            None => return Err(no_outcome()),
        };
        Ok(DeleteReply {
            outcome,
            replayed: reply.replayed,
        })
    }

    /// Gives one entry a new expiry; the entry without its value, or `None` if
    /// there is none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and for an expiry out of range.
    pub async fn touch(
        &self,
        key: impl AsRef<[u8]>,
        expiry: Expiry,
    ) -> Result<Option<Entry>, Error> {
        let mut request = convert::touch_request(self.namespace(), key.as_ref(), expiry);
        request.validate_only = self.is_dry_run();
        let reply = self
            .call(method::TOUCH, &request, Repeat::Same.on(&request.key))
            .await?;
        self.confirm(reply.validated_only)?;
        match reply.outcome {
            Some(touch_response::Outcome::Applied(entry)) => convert::entry(*entry).map(Some),
            Some(touch_response::Outcome::Miss(_)) => Ok(None),
            None => Err(no_outcome()),
        }
    }

    /// Adds to a counter, which is a decimal 64-bit number as text. Repeat it
    /// after a failure only with a request id.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and if the value is no number or the sum does
    /// not fit.
    pub async fn increment(
        &self,
        key: impl AsRef<[u8]>,
        delta: i64,
        options: IncrementOptions,
    ) -> Result<IncrementReply, Error> {
        let repeat = match options.request_id {
            Some(_) => Repeat::Once,
            None => Repeat::Effect,
        };
        let request = wire::IncrementRequest {
            namespace: self.namespace(),
            key: key.as_ref().to_vec(),
            delta,
            initial_value: options.initial_value,
            initial_ttl: options.initial_ttl.map(Into::into).into(),
            upper_bound: options.upper_bound,
            lower_bound: options.lower_bound,
            request_id: id_text(options.request_id),
            validate_only: self.is_dry_run(),
            ..wire::IncrementRequest::default()
        };
        let reply = self
            .call(method::INCREMENT, &request, repeat.on(&request.key))
            .await?;
        self.confirm(reply.validated_only)?;
        Ok(IncrementReply {
            value: reply.value,
            applied_delta: reply.applied_delta,
            replayed: reply.replayed,
        })
    }

    /// What the account uses and may use, and how well its cache does. Under ring hash the sums
    /// of all servers, also of the limits, which hold for each server: one of them may be at its
    /// own before the sum is.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). Under ring hash also if any of the servers cannot be reached.
    pub async fn usage(&self) -> Result<Usage, Error> {
        let mut sum: Option<Usage> = None;
        for client in self.each_server(method::GET_USAGE).await? {
            let usage = client.usage_of_server().await?;
            sum = Some(match sum {
                None => usage,
                Some(sum) => sum.plus(&usage),
            });
        }
        Ok(sum.unwrap_or_default())
    }

    async fn usage_of_server(&self) -> Result<Usage, Error> {
        let request = wire::GetUsageRequest::default();
        let reply = self.call(method::GET_USAGE, &request, Repeat::Read).await?;
        let quota = reply.quota_usage.as_option().map(convert::quota_usage);
        Ok(Usage {
            quota: quota.unwrap_or_default(),
            hits: convert::count(reply.hit_count),
            misses: convert::count(reply.miss_count),
            evicted: convert::count(reply.evicted_count),
            expired: convert::count(reply.expired_count),
            request_ids: convert::count(reply.request_id_count),
            forgotten_request_ids: convert::count(reply.forgotten_request_id_count),
        })
    }

    /// Version, limits and features of the server; of several, of any one.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        let request = wire::GetServerInfoRequest::default();
        let reply = self
            .call(method::GET_SERVER_INFO, &request, Repeat::Read)
            .await?;
        Ok(ServerInfo {
            version: reply.version,
            limits: reply.limits.into_iter().collect(),
            features: reply.features,
        })
    }

    async fn get_as(&self, request: wire::GetRequest) -> Result<Option<Entry>, Error> {
        match self
            .call(method::GET, &request, Repeat::Read.on(&request.key))
            .await?
            .outcome
        {
            Some(get_response::Outcome::Hit(entry)) => convert::entry(*entry).map(Some),
            Some(get_response::Outcome::Miss(_)) => Ok(None),
            None => Err(no_outcome()),
        }
    }
}

pub(crate) fn set_reply(reply: wire::SetResponse) -> Result<SetReply, Error> {
    let outcome = match reply.outcome {
        Some(set_response::Outcome::Applied(applied)) => {
            let entry = applied.entry.into_option().unwrap_or_default();
            SetOutcome::Applied(convert::entry(entry)?)
        }
        Some(set_response::Outcome::NotApplied(not)) => {
            SetOutcome::NotApplied(convert::optional_entry(not.current.into_option())?)
        }
        None => return Err(no_outcome()),
    };
    Ok(SetReply {
        outcome,
        replayed: reply.replayed,
    })
}

pub(crate) fn no_outcome() -> Error {
    Error::protocol("the server answered with no outcome that this client knows")
}

pub(crate) fn id_text(id: Option<RequestId>) -> String {
    id.map_or_else(String::new, |id| id.as_str().into())
}

/// Only conditional writes are recorded under their request id; repeating an
/// unconditional one could undo what somebody wrote in between.
pub(crate) fn repeat(condition: Condition, id: Option<&RequestId>) -> Repeat {
    match (condition, id) {
        (Condition::Always, _) => Repeat::Same,
        (_, Some(_)) => Repeat::Once,
        (_, None) => Repeat::Effect,
    }
}
