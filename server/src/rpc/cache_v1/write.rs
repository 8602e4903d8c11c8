//! Writes.

use std::collections::HashSet;

use buffa::ViewEncode as _;
use larder_accounts::Action;
use larder_api::cache_v1 as wire;
use larder_api::errors::Reason;
use larder_model::{
    Deleted, EntryKey, Expiry, Increment, Mode, Outcome, Rehearsal, Request, Selection, Set, Store,
    Write, Written,
};

use super::CacheV1;
use super::once::{Way, repeat_under};
use crate::call::Call;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::rpc::fields::{
    bad_field, batch_fits, condition, entry_in, entry_key, key_in_batch, namespace, selection,
    set_expiry, touch_expiry, ttl, value_fits,
};
use crate::rpc::request_id::{Repeat, check_attempt};
use crate::rpc::{reply, status};

impl<S: Store> CacheV1<S> {
    pub(crate) async fn set(
        &self,
        call: &Call<S>,
        request: &wire::SetRequestView<'_>,
    ) -> Result<wire::SetResponse, Failure> {
        let body = body!(SetRequestView, request);
        let asked = self.request(call, request.request_id, body).await?;
        let part = Part {
            validate_only: request.validate_only,
            asked,
            rehearsal: None,
        };
        self.set_one(call, request, part).await
    }

    /// A write alone or in a batch, which decides whether it takes effect.
    async fn set_one(
        &self,
        call: &Call<S>,
        request: &wire::SetRequestView<'_>,
        part: Part<'_>,
    ) -> Result<wire::SetResponse, Failure> {
        let at = entry_key(self.limits(), request.namespace, request.key)?;
        value_fits(self.limits(), "value", request.value)?;
        let store_call = call.store_call(part.validate_only);
        let clock = &self.core.clock;
        let set = Set {
            at,
            value: request.value,
            flags: request.flags,
            expiry: set_expiry(clock, store_call.now, request.expiration.as_ref())?,
            condition: condition(request.precondition.as_option())?,
        };
        let account = &call.may(Action::Write, at)?.tenant.handle;
        let way = Way::of(call, part.asked, repeat_under(set.condition))?;
        if let Way::Vetted(request) = way {
            self.recall(call, account, request).await?;
        }
        call.begin_mutation()?;
        let (written, replayed) = match (way, part.rehearsal) {
            (way, Some(rehearsal)) => {
                let rehearsed = self.rehearse(call, account, (store_call, set), way, rehearsal);
                Box::pin(rehearsed).await?
            }
            (Way::Once(request), None) => {
                let write = (Write::Set(set), Outcome::set as fn(_) -> _);
                let done = self.once(call, account, store_call, request, write).await?;
                if let (written, false) = &done {
                    call.count_set(written, store_call.mode);
                }
                done
            }
            (Way::Plain | Way::Vetted(_), None) => {
                let written = call.set(account, store_call, set).await;
                (written.map_err(|error| call.store_failure(&error))?, false)
            }
        };
        Ok(wire::SetResponse {
            outcome: Some(set_outcome(clock, request.key, written)),
            validated_only: call.is_dry(part.validate_only),
            replayed,
            ..Default::default()
        })
    }

    /// A dry write of a batch, after those before it. One that was made before is
    /// not made again, and so changes nothing for the next one.
    async fn rehearse(
        &self,
        call: &Call<S>,
        account: &S::Account,
        (store_call, set): (larder_model::Call, Set<'_>),
        way: Way<'_>,
        rehearsal: &mut Rehearsal,
    ) -> Result<(Written, bool), Failure> {
        if let Way::Once(request) = way
            && let Some(outcome) = self.recall(call, account, request).await?
            && let Some(written) = outcome.set()
        {
            return Ok((written, true));
        }
        let store = &self.core.store;
        let written = store.rehearse(account, store_call, set, rehearsal).await;
        Ok((written.map_err(|error| call.store_failure(&error))?, false))
    }

    pub(crate) async fn batch_set(
        &self,
        call: &Call<S>,
        request: &wire::BatchSetRequestView<'_>,
    ) -> Result<wire::BatchSetResponse, Failure> {
        use wire::batch_set_response::result::Result as Shown;

        batch_fits(self.limits(), "requests", request.requests.len())?;
        let body = body!(BatchSetRequestView, request);
        let asked = self.request(call, request.request_id, body).await?;
        let conditional = |one: &wire::SetRequestView<'_>| one.precondition.is_set();
        match asked {
            Some(asked) => {
                let account = &call.known()?.tenant.handle;
                self.recall(call, account, asked).await?;
            }
            None if request.requests.iter().any(conditional) => {
                check_attempt(call, Repeat::Counts)?;
            }
            None => {}
        }
        let mut results = Vec::with_capacity(request.requests.len());
        let mut replayed = false;
        let mut rehearsal = Rehearsal::default();
        let is_dry = call.is_dry(request.validate_only);
        for (index, one) in request.requests.iter().enumerate() {
            call.goes_on(index)?;
            let coming = request.requests[index..].iter();
            let entries = coming.map(|one| {
                let namespace = namespace(one.namespace).ok()?;
                entry_in(self.limits(), namespace, one.key)
            });
            self.expect(call, index, entries);
            let asked = asked.filter(|_| conditional(one)).map(|asked| Request {
                item: u32::try_from(index).unwrap_or(u32::MAX),
                ..asked
            });
            let done = match alone_in_batch(one) {
                Ok(()) => {
                    let part = Part {
                        validate_only: request.validate_only,
                        asked,
                        rehearsal: is_dry.then_some(&mut rehearsal),
                    };
                    self.set_one(call, one, part).await
                }
                Err(failure) => Err(failure),
            };
            let outcome: Shown = match done {
                Ok(response) => {
                    replayed |= response.replayed;
                    response.into()
                }
                Err(failure) if ends_batch(&failure) => return Err(failure),
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
            replayed,
            ..Default::default()
        })
    }

    pub(crate) async fn delete(
        &self,
        call: &Call<S>,
        request: &wire::DeleteRequestView<'_>,
    ) -> Result<wire::DeleteResponse, Failure> {
        use wire::delete_response::{Applied, NotApplied};

        let body = body!(DeleteRequestView, request);
        let asked = self.request(call, request.request_id, body).await?;
        let at = entry_key(self.limits(), request.namespace, request.key)?;
        let condition = condition(request.precondition.as_option())?;
        let account = &call.may(Action::Write, at)?.tenant.handle;
        let way = Way::of(call, asked, repeat_under(condition))?;
        if let Way::Vetted(request) = way {
            self.recall(call, account, request).await?;
        }
        call.begin_mutation()?;
        let store_call = call.store_call(request.validate_only);
        let (deleted, replayed) = match way {
            Way::Once(request) => {
                let write = Write::Delete { at, condition };
                let write = (write, Outcome::delete as fn(_) -> _);
                self.once(call, account, store_call, request, write).await?
            }
            Way::Plain | Way::Vetted(_) => {
                let store = &self.core.store;
                let deleted = store.delete(account, store_call, at, condition).await;
                (deleted.map_err(|error| call.store_failure(&error))?, false)
            }
        };
        let outcome: wire::delete_response::Outcome = match deleted {
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
            replayed,
            ..Default::default()
        })
    }

    pub(crate) async fn batch_delete(
        &self,
        call: &Call<S>,
        request: &wire::BatchDeleteRequestView<'_>,
    ) -> Result<wire::BatchDeleteResponse, Failure> {
        use wire::batch_delete_response::result::Result as Outcome;

        batch_fits(self.limits(), "keys", request.keys.len())?;
        let namespace = namespace(request.namespace)?;
        let body = body!(BatchDeleteRequestView, request);
        if let Some(asked) = self.request(call, request.request_id, body).await? {
            let account = &call.known()?.tenant.handle;
            self.recall(call, account, asked).await?;
        }
        // What a dry run would have deleted is there still.
        let mut gone = HashSet::new();
        let is_dry = call.is_dry(request.validate_only);
        let mut results = Vec::with_capacity(request.keys.len());
        for (index, key) in request.keys.iter().enumerate() {
            call.goes_on(index)?;
            let coming = request.keys[index..].iter();
            self.expect(
                call,
                index,
                coming.map(|key| entry_in(self.limits(), namespace, key)),
            );
            let done = match key_in_batch(self.limits(), namespace, index, key) {
                Ok(at) => {
                    let deleted = self.delete_one(call, at, request.validate_only).await;
                    deleted.map(|deleted| deleted && (!is_dry || gone.insert(*key)))
                }
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
            validated_only: is_dry,
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
        let body = body!(TouchRequestView, request);
        let asked = self.request(call, request.request_id, body).await?;
        let at = entry_key(self.limits(), request.namespace, request.key)?;
        let clock = &self.core.clock;
        let store_call = call.store_call(request.validate_only);
        let expiry = touch_expiry(clock, store_call.now, request.expiration.as_ref())?;
        let account = &call.may(Action::Write, at)?.tenant.handle;
        if let Some(asked) = asked {
            self.recall(call, account, asked).await?;
        }
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
        let body = body!(IncrementRequestView, request);
        let asked = self.request(call, request.request_id, body).await?;
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
        let way = Way::of(call, asked, Repeat::Counts)?;
        call.begin_mutation()?;
        let (done, replayed) = match way {
            Way::Once(request) => {
                let write = Write::Increment(increment);
                let write = (write, Outcome::increment as fn(_) -> _);
                self.once(call, account, store_call, request, write).await?
            }
            Way::Plain | Way::Vetted(_) => {
                let store = &self.core.store;
                let done = store.increment(account, store_call, increment).await;
                (done.map_err(|error| call.store_failure(&error))?, false)
            }
        };
        Ok(wire::IncrementResponse {
            value: done.value,
            applied_delta: done.applied_delta,
            replayed,
            validated_only: call.is_dry(request.validate_only),
            ..Default::default()
        })
    }

    pub(crate) async fn delete_prefix(
        &self,
        call: &Call<S>,
        request: &wire::DeletePrefixRequestView<'_>,
    ) -> Result<wire::DeletePrefixResponse, Failure> {
        let body = body!(DeletePrefixRequestView, request);
        let asked = self.request(call, request.request_id, body).await?;
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
        if let Some(asked) = asked {
            self.recall(call, account, asked).await?;
        }
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

/// What a write is told by the call that it is a part of.
struct Part<'p> {
    validate_only: bool,
    asked: Option<Request<'p>>,
    /// The writes before it, where they and it are dry.
    rehearsal: Option<&'p mut Rehearsal>,
}

/// The batch decides for all of its entries.
fn alone_in_batch(request: &wire::SetRequestView<'_>) -> Result<(), Failure> {
    if !request.request_id.is_empty() {
        return Err(bad_field(
            "request_id",
            "belongs to the batch, not to its entries",
        ));
    }
    if request.validate_only {
        return Err(bad_field(
            "validate_only",
            "belongs to the batch, not to its entries",
        ));
    }
    Ok(())
}

/// True for what is said of the id of a batch: it is no matter of one entry.
const fn ends_batch(failure: &Failure) -> bool {
    matches!(
        failure.reason,
        Reason::RequestIdReused | Reason::RequestInProgress | Reason::Overloaded
    )
}

fn set_outcome(clock: &Clock, key: &[u8], written: Written) -> wire::set_response::Outcome {
    use wire::set_response::{Applied, NotApplied};

    let shown = |meta| reply::metadata(clock, key, &meta);
    match written {
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
    }
}
