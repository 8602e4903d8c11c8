//! Reads.

use std::time::Duration;

use larder_accounts::Action;
use larder_api::cache_v1 as wire;
use larder_api::wire as limits;
use larder_model::{EntryRef, Listed, Page, ReadEffect, Selection, Store};

use super::CacheV1;
use crate::call::Call;
use crate::core::Core;
use crate::failure::Failure;
use crate::rpc::fields::{
    bad_field, batch_fits, entry_in, entry_key, get_and_touch_expiry, key_in_batch, namespace,
    selection,
};
use crate::rpc::reply::{self, ReplyTo, Value};
use crate::rpc::resume;

impl<S: Store> CacheV1<S> {
    pub(crate) async fn get(
        &self,
        call: &Call<S>,
        request: &wire::GetRequestView<'_>,
        reply: impl ReplyTo<wire::GetResponse>,
    ) -> Result<(), Failure> {
        use wire::get_response::OutcomeView as Outcome;

        let at = entry_key(self.limits(), request.namespace, request.key)?;
        let account = &call.may(Action::Read, at)?.tenant.handle;
        let effect = if request.no_touch {
            ReadEffect::Peek
        } else {
            ReadEffect::Use
        };
        let value = if request.omit_value {
            Value::Omitted
        } else {
            Value::Shown
        };
        let clock = &self.core.clock;
        let show = |entry: Option<EntryRef<'_>>| {
            let outcome = match entry {
                Some(entry) => Outcome::Hit(reply::entry_view(clock, entry, value).into()),
                None => Outcome::Miss(Box::default()),
            };
            reply.put(&wire::GetResponseView {
                outcome: Some(outcome),
                ..Default::default()
            });
        };
        self.core
            .store
            .get(account, call.store_call(false), at, effect, show)
            .await
            .map_err(|error| call.store_failure(&error))
    }

    pub(crate) async fn get_and_touch(
        &self,
        call: &Call<S>,
        request: &wire::GetAndTouchRequestView<'_>,
    ) -> Result<wire::GetAndTouchResponse, Failure> {
        let at = entry_key(self.limits(), request.namespace, request.key)?;
        let account = &call.may(Action::Write, at)?.tenant.handle;
        // It reads as well: a token that may only write must not.
        call.may(Action::Read, at)?;
        let clock = &self.core.clock;
        let store_call = call.store_call(request.validate_only);
        let expiry = get_and_touch_expiry(clock, store_call.now, request.expiration.as_ref())?;
        call.begin_mutation()?;
        let show = |entry: Option<EntryRef<'_>>| match entry {
            Some(entry) => reply::entry(clock, entry, Value::Shown).into(),
            None => wire::get_response::Miss::default().into(),
        };
        let outcome: wire::get_and_touch_response::Outcome = self
            .core
            .store
            .get_and_touch(account, store_call, at, expiry, show)
            .await
            .map_err(|error| call.store_failure(&error))?;
        Ok(wire::GetAndTouchResponse {
            outcome: Some(outcome),
            validated_only: call.is_dry(request.validate_only),
            ..Default::default()
        })
    }

    pub(crate) async fn batch_get(
        &self,
        call: &Call<S>,
        request: &wire::BatchGetRequestView<'_>,
    ) -> Result<wire::BatchGetResponse, Failure> {
        batch_fits(self.limits(), "keys", request.keys.len())?;
        let namespace = namespace(request.namespace)?;
        let mut results = Vec::with_capacity(request.keys.len());
        let mut bytes = 0;
        for (index, key) in request.keys.iter().enumerate() {
            call.goes_on(index)?;
            let at = key_in_batch(self.limits(), namespace, index, key)?;
            let account = &call.may(Action::Read, at)?.tenant.handle;
            // The first is always looked up, so that asking again gets on.
            if bytes >= self.limits().max_batch_get_bytes {
                results.push(result(wire::batch_get_response::Deferred::default()));
                continue;
            }
            let coming = request.keys[index..].iter();
            self.expect(
                call,
                index,
                coming.map(|key| entry_in(self.limits(), namespace, key)),
            );
            let room = self.limits().max_batch_get_bytes - bytes;
            let clock = &self.core.clock;
            let show = |entry: Option<EntryRef<'_>>| match entry {
                Some(entry) if index > 0 && entry.value.len() > room => None,
                Some(entry) => Some(Ok(reply::entry(clock, entry, Value::Shown))),
                None => Some(Err(wire::get_response::Miss::default())),
            };
            let shown = self
                .core
                .store
                .get(account, call.store_call(false), at, ReadEffect::Use, show)
                .await
                .map_err(|error| call.store_failure(&error))?;
            results.push(match shown {
                Some(Ok(entry)) => {
                    bytes += entry.key.len() + entry.value.len();
                    result(entry)
                }
                Some(Err(miss)) => result(miss),
                None => {
                    bytes = self.limits().max_batch_get_bytes;
                    result(wire::batch_get_response::Deferred::default())
                }
            });
        }
        Ok(wire::BatchGetResponse {
            results,
            ..Default::default()
        })
    }

    pub(crate) async fn list_keys(
        &self,
        call: &Call<S>,
        request: &wire::ListKeysRequestView<'_>,
    ) -> Result<wire::ListKeysResponse, Failure> {
        let selected = selection(self.limits(), request.namespace, request.prefix)?;
        let Selection { namespace, prefix } = selected;
        let account = &call.may_all(Action::Read, namespace, prefix)?.tenant.handle;
        let most = self.limits().max_list_page;
        let limit = match usize::try_from(request.page_size) {
            Ok(0) => most,
            Ok(asked) => asked.min(most),
            Err(_) => return Err(bad_field("page_size", "must not be negative")),
        };
        let after = resume::page_start(selected, request.page_token)?;
        let mut page = self
            .core
            .store
            .list(
                account,
                call.store_call(false),
                selected,
                after.as_deref(),
                limit,
            )
            .await
            .map_err(|error| call.store_failure(&error))?;
        cut_to_message(&mut page);
        let next_page_token = match page.entries.last() {
            Some(last) if page.more => resume::page_token(selected, &last.key),
            _ => String::new(),
        };
        let entries = page.entries.iter();
        Ok(wire::ListKeysResponse {
            entries: entries
                .map(|entry| reply::metadata(&self.core.clock, &entry.key, &entry.meta))
                .collect(),
            next_page_token,
            ..Default::default()
        })
    }

    pub(crate) async fn get_usage(
        &self,
        call: &Call<S>,
        _: &wire::GetUsageRequestView<'_>,
    ) -> Result<wire::GetUsageResponse, Failure> {
        let account = &call.known()?.tenant.handle;
        let usage = self
            .core
            .store
            .usage(account, call.store_call(false))
            .await
            .map_err(|error| call.store_failure(&error))?;
        let replay = self.core.store.replay_use(account, call.store_call(false));
        let replay = replay.await.map_err(|error| call.store_failure(&error))?;
        Ok(wire::GetUsageResponse {
            quota_usage: buffa::MessageField::some(reply::quota_usage(&usage)),
            hit_count: reply::signed(usage.hits),
            miss_count: reply::signed(usage.misses),
            evicted_count: reply::signed(usage.evicted),
            expired_count: reply::signed(usage.expired),
            request_id_count: reply::signed(replay.recorded),
            forgotten_request_id_count: reply::signed(replay.forgotten_early),
            ..Default::default()
        })
    }

    #[expect(clippy::unused_async, reason = "handlers are alike")]
    pub(crate) async fn get_server_info(
        &self,
        _: &Call<S>,
        _: &wire::GetServerInfoRequestView<'_>,
    ) -> Result<wire::GetServerInfoResponse, Failure> {
        let model = self.limits();
        let transport = &self.core.transport;
        let replay = self.core.store.replay_limits();
        let window_ms = u64::try_from(replay.window.as_millis()).unwrap_or(u64::MAX);
        let sizes = [
            ("max_key_bytes", model.max_key_bytes),
            ("max_value_bytes", model.max_value_bytes),
            ("max_batch_keys", model.max_batch_keys),
            ("max_batch_get_bytes", model.max_batch_get_bytes),
            ("max_list_page", model.max_list_page),
            ("dump_message_bytes", model.dump_message_bytes),
            ("max_namespace_bytes", larder_model::MAX_NAME_BYTES),
            ("max_request_id_bytes", larder_model::MAX_REQUEST_ID_BYTES),
            ("max_request_ids_per_account", replay.max_per_account),
            ("max_request_ids", replay.max_total),
            ("max_connections", transport.max_connections),
            (
                "max_unproven_connections",
                transport.max_unproven_connections,
            ),
            ("max_buffered_bytes", transport.max_buffered_bytes),
            ("max_message_bytes", limits::MAX_MESSAGE_BYTES),
            ("max_calls_in_flight", limits::MAX_CALLS_IN_FLIGHT),
            ("max_receiving_bytes", limits::MAX_RECEIVING_BYTES),
            ("max_replying_bytes", limits::MAX_REPLYING_BYTES),
            ("max_strangers_in_flight", limits::MAX_STRANGERS_IN_FLIGHT),
        ];
        let numbers = [
            ("request_id_window_ms", window_ms),
            ("min_ttl_ms", larder_model::Ttl::MIN.as_millis()),
            ("max_ttl_ms", larder_model::Ttl::MAX.as_millis()),
            (
                "max_metadata_bytes",
                u64::from(transport.limits.max_header_list_bytes),
            ),
            (
                "max_streams_per_connection",
                u64::from(transport.limits.max_concurrent_streams),
            ),
        ];
        let Core {
            admission,
            deadlines,
            ..
        } = &*self.core;
        let more = [
            (
                "max_calls_per_account",
                u64::from(admission.max_calls_per_account),
            ),
            (
                "max_streams_per_account",
                u64::from(admission.max_streams_per_account),
            ),
            ("default_deadline_ms", millis(deadlines.default)),
            ("max_deadline_ms", millis(deadlines.max)),
        ];
        let sizes = sizes.map(|(name, size)| (name, size as u64));
        Ok(wire::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            limits: sizes
                .into_iter()
                .chain(numbers)
                .chain(more)
                .map(|(name, number)| (name.to_owned(), reply::signed(number)))
                .collect(),
            features: self.core.features.iter().map(|&name| name.into()).collect(),
            ..Default::default()
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Keys that one page holds, bytes: stock clients refuse messages over 4 MiB.
const MAX_PAGE_KEY_BYTES: usize = 3 << 20;

/// Leaves of a page of long keys what fits a message; the rest is the next page.
fn cut_to_message(page: &mut Page) {
    let mut bytes = 0;
    let mut fits = |entry: &Listed| {
        bytes += entry.key.len();
        bytes <= MAX_PAGE_KEY_BYTES
    };
    let kept = page
        .entries
        .iter()
        .take_while(|entry| fits(entry))
        .count()
        .max(1);
    if kept < page.entries.len() {
        page.entries.truncate(kept);
        page.more = true;
    }
}

fn result(
    outcome: impl Into<wire::batch_get_response::result::Outcome>,
) -> wire::batch_get_response::Result {
    wire::batch_get_response::Result {
        outcome: Some(outcome.into()),
        ..Default::default()
    }
}
