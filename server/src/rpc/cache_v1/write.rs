//! Writes.

use larder_accounts::Action;
use larder_api::cache_v1 as wire;
use larder_model::{
    Deleted, EntryKey, Expiry, Increment, Incremented, Mode, Selection, Set, Store, Written,
};

use super::CacheV1;
use crate::call::Call;
use crate::failure::Failure;
use crate::rpc::fields::{
    bad_field, batch_fits, condition, entry_key, key_in_batch, namespace, no_request_id, selection,
    set_expiry, touch_expiry, ttl, value_fits,
};
use crate::rpc::{reply, status};

impl<S: Store> CacheV1<S> {
    pub(crate) async fn set(
        &self,
        call: &Call<S>,
        request: &wire::SetRequestView<'_>,
    ) -> Result<wire::SetResponse, Failure> {
        no_request_id(request.request_id)?;
        self.set_one(call, request, request.validate_only).await
    }

    /// A write alone or in a batch, which decides whether it takes effect.
    async fn set_one(
        &self,
        call: &Call<S>,
        request: &wire::SetRequestView<'_>,
        validate_only: bool,
    ) -> Result<wire::SetResponse, Failure> {
        use wire::set_response::{Applied, NotApplied, Outcome};

        let at = entry_key(self.limits(), request.namespace, request.key)?;
        value_fits(self.limits(), "value", request.value)?;
        let store_call = call.store_call(validate_only);
        let clock = &self.core.clock;
        let set = Set {
            at,
            value: request.value,
            flags: request.flags,
            expiry: set_expiry(clock, store_call.now, request.expiration.as_ref())?,
            condition: condition(request.precondition.as_option())?,
        };
        let account = &call.may(Action::Write, at)?.tenant.handle;
        call.begin_mutation()?;
        let written = call
            .set(account, store_call, set)
            .await
            .map_err(|error| call.store_failure(&error))?;
        let shown = |meta| reply::metadata(clock, request.key, &meta);
        let outcome: Outcome = match written {
            Written::Applied(meta) => Applied {
                entry: Some(shown(meta)).into(),
                ..Default::default()
            }
            .into(),
            Written::NotApplied(current) => NotApplied {
                current: current.map(shown).into(),
                ..Default::default()
            }
            .into(),
        };
        Ok(wire::SetResponse {
            outcome: Some(outcome),
            validated_only: call.is_dry(validate_only),
            ..Default::default()
        })
    }

    pub(crate) async fn batch_set(
        &self,
        call: &Call<S>,
        request: &wire::BatchSetRequestView<'_>,
    ) -> Result<wire::BatchSetResponse, Failure> {
        use wire::batch_set_response::result::Result as Outcome;

        no_request_id(request.request_id)?;
        batch_fits(self.limits(), "requests", request.requests.len())?;
        let mut results = Vec::with_capacity(request.requests.len());
        for (index, one) in request.requests.iter().enumerate() {
            call.goes_on(index)?;
            let done = match alone_in_batch(one) {
                Ok(()) => self.set_one(call, one, request.validate_only).await,
                Err(failure) => Err(failure),
            };
            let outcome: Outcome = match done {
                Ok(response) => response.into(),
                Err(failure) => status::status(&failure.within("requests", index)).into(),
            };
            results.push(wire::batch_set_response::Result {
                result: Some(outcome),
                ..Default::default()
            });
        }
        Ok(wire::BatchSetResponse {
            results,
            validated_only: call.is_dry(request.validate_only),
            ..Default::default()
        })
    }

    pub(crate) async fn delete(
        &self,
        call: &Call<S>,
        request: &wire::DeleteRequestView<'_>,
    ) -> Result<wire::DeleteResponse, Failure> {
        use wire::delete_response::{Applied, NotApplied, Outcome};

        no_request_id(request.request_id)?;
        let at = entry_key(self.limits(), request.namespace, request.key)?;
        let condition = condition(request.precondition.as_option())?;
        let account = &call.may(Action::Write, at)?.tenant.handle;
        call.begin_mutation()?;
        let deleted = self
            .core
            .store
            .delete(
                account,
                call.store_call(request.validate_only),
                at,
                condition,
            )
            .await
            .map_err(|error| call.store_failure(&error))?;
        let outcome: Outcome = match deleted {
            Deleted::Applied => Applied::default().into(),
            Deleted::NotApplied(current) => NotApplied {
                current: current
                    .map(|meta| reply::metadata(&self.core.clock, request.key, &meta))
                    .into(),
                ..Default::default()
            }
            .into(),
        };
        Ok(wire::DeleteResponse {
            outcome: Some(outcome),
            validated_only: call.is_dry(request.validate_only),
            ..Default::default()
        })
    }

    pub(crate) async fn batch_delete(
        &self,
        call: &Call<S>,
        request: &wire::BatchDeleteRequestView<'_>,
    ) -> Result<wire::BatchDeleteResponse, Failure> {
        use wire::batch_delete_response::result::Result as Outcome;

        no_request_id(request.request_id)?;
        batch_fits(self.limits(), "keys", request.keys.len())?;
        let namespace = namespace(request.namespace)?;
        let mut results = Vec::with_capacity(request.keys.len());
        for (index, key) in request.keys.iter().enumerate() {
            call.goes_on(index)?;
            let done = match key_in_batch(self.limits(), namespace, index, key) {
                Ok(at) => self.delete_one(call, at, request.validate_only).await,
                Err(failure) => Err(failure),
            };
            results.push(wire::batch_delete_response::Result {
                result: Some(match done {
                    Ok(deleted) => Outcome::Deleted(deleted),
                    Err(failure) => status::status(&failure).into(),
                }),
                ..Default::default()
            });
        }
        Ok(wire::BatchDeleteResponse {
            results,
            validated_only: call.is_dry(request.validate_only),
            ..Default::default()
        })
    }

    async fn delete_one(
        &self,
        call: &Call<S>,
        at: EntryKey<'_>,
        validate_only: bool,
    ) -> Result<bool, Failure> {
        let account = &call.may(Action::Write, at)?.tenant.handle;
        call.begin_mutation()?;
        let always = larder_model::Condition::Always;
        let deleted = self
            .core
            .store
            .delete(account, call.store_call(validate_only), at, always)
            .await
            .map_err(|error| call.store_failure(&error))?;
        Ok(deleted == Deleted::Applied)
    }

    pub(crate) async fn touch(
        &self,
        call: &Call<S>,
        request: &wire::TouchRequestView<'_>,
    ) -> Result<wire::TouchResponse, Failure> {
        no_request_id(request.request_id)?;
        let at = entry_key(self.limits(), request.namespace, request.key)?;
        let clock = &self.core.clock;
        let store_call = call.store_call(request.validate_only);
        let expiry = touch_expiry(clock, store_call.now, request.expiration.as_ref())?;
        let account = &call.may(Action::Write, at)?.tenant.handle;
        call.begin_mutation()?;
        let outcome: wire::touch_response::Outcome = self
            .core
            .store
            .get_and_touch(account, store_call, at, expiry, |entry| match entry {
                Some(entry) => reply::entry(clock, entry, reply::Value::Omitted).into(),
                None => wire::get_response::Miss::default().into(),
            })
            .await
            .map_err(|error| call.store_failure(&error))?;
        Ok(wire::TouchResponse {
            outcome: Some(outcome),
            validated_only: call.is_dry(request.validate_only),
            ..Default::default()
        })
    }

    pub(crate) async fn increment(
        &self,
        call: &Call<S>,
        request: &wire::IncrementRequestView<'_>,
    ) -> Result<wire::IncrementResponse, Failure> {
        no_request_id(request.request_id)?;
        let at = entry_key(self.limits(), request.namespace, request.key)?;
        let store_call = call.store_call(request.validate_only);
        let initial_expiry = match request.initial_ttl.as_option() {
            None => Expiry::Never,
            Some(d) => ttl(store_call.now, "initial_ttl", d.seconds, d.nanos)?,
        };
        if let (Some(lower), Some(upper)) = (request.lower_bound, request.upper_bound)
            && lower > upper
        {
            return Err(bad_field("lower_bound", "must not be above upper_bound"));
        }
        let increment = Increment {
            at,
            delta: request.delta,
            initial: request.initial_value,
            initial_expiry,
            upper_bound: request.upper_bound,
            lower_bound: request.lower_bound,
        };
        let account = &call.may(Action::Write, at)?.tenant.handle;
        call.begin_mutation()?;
        let Incremented {
            value,
            applied_delta,
        } = self
            .core
            .store
            .increment(account, store_call, increment)
            .await
            .map_err(|error| call.store_failure(&error))?;
        Ok(wire::IncrementResponse {
            value,
            applied_delta,
            validated_only: call.is_dry(request.validate_only),
            ..Default::default()
        })
    }

    pub(crate) async fn delete_prefix(
        &self,
        call: &Call<S>,
        request: &wire::DeletePrefixRequestView<'_>,
    ) -> Result<wire::DeletePrefixResponse, Failure> {
        no_request_id(request.request_id)?;
        let selected = selection(self.limits(), request.namespace, request.prefix)?;
        match (request.prefix.is_empty(), request.all) {
            (true, false) => {
                return Err(bad_field("prefix", "must not be empty unless all is set"));
            }
            (false, true) => return Err(bad_field("prefix", "must be empty where all is set")),
            (true, true) | (false, false) => {}
        }
        let Selection { namespace, prefix } = selected;
        let account = &call
            .may_all(Action::Write, namespace, prefix)?
            .tenant
            .handle;
        call.begin_mutation()?;
        let deleted = self
            .core
            .store
            .delete_prefix(account, call.store_call(request.validate_only), selected)
            .await
            .map_err(|error| call.store_failure(&error))?;
        Ok(wire::DeletePrefixResponse {
            deleted_count: reply::signed(deleted),
            validated_only: call.is_dry(request.validate_only),
            ..Default::default()
        })
    }
}

impl<S: Store> Call<S> {
    /// True when the reply must say that nothing was changed.
    pub(super) fn is_dry(&self, validate_only: bool) -> bool {
        self.mode(validate_only) == Mode::DryRun
    }
}

/// The batch decides for all of its entries.
fn alone_in_batch(request: &wire::SetRequestView<'_>) -> Result<(), Failure> {
    no_request_id(request.request_id)?;
    if request.validate_only {
        return Err(bad_field(
            "validate_only",
            "belongs to the batch, not to its entries",
        ));
    }
    Ok(())
}
