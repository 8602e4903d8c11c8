//! Streams over many entries: out and in.

use std::sync::Arc;

use connectrpc::{InboundStream, StreamMessage};
use futures::{Stream, StreamExt as _};
use larder_accounts::Action;
use larder_api::cache_v1 as wire;
use larder_api::errors::Reason;
use larder_api::wire::MAX_REHEARSAL_BYTES;
use larder_model::{
    Condition, Cursor, EntryKey, EntryRef, Expiry, ExpiryChange, Mode, Rehearsal, ScanBudget,
    Selection, Set, Store,
};

use super::CacheV1;
use crate::call::Call;
use crate::core::Core;
use crate::failure::Failure;
use crate::gauge::Held;
use crate::layers::admit::{overloaded, still_good};
use crate::rpc::fields::{
    bad_field, batch_fits, entry_key, expire_time, millis_until, namespace, selection, value_fits,
};
use crate::rpc::reply::{self, Value};
use crate::rpc::{resume, status};

/// Entries that one step of a dump looks at, shown or not: a bound on how long
/// others on this thread wait.
const STEP_ENTRIES: usize = 4096;

impl<S: Store> CacheV1<S> {
    /// The parts of a dump. Holds one part at a time; the next is read when the
    /// caller has taken the one before.
    pub(crate) fn dump(
        &self,
        call: &Arc<Call<S>>,
        request: &wire::DumpRequestView<'_>,
    ) -> Result<impl Stream<Item = Result<wire::DumpResponse, Failure>> + Send + use<S>, Failure>
    {
        let selected = selection(self.limits(), request.namespace, request.prefix)?;
        call.may_all(Action::Read, selected.namespace, selected.prefix)?;
        let walk = Walk {
            core: Arc::clone(&self.core),
            call: Arc::clone(call),
            namespace: selected.namespace.as_str().into(),
            prefix: selected.prefix.into(),
            next: resume::resume_start(selected, request.resume_token)?,
        };
        Ok(futures::stream::try_unfold(walk, Walk::part))
    }
}

/// A dump under way.
struct Walk<S: Store> {
    core: Arc<Core<S>>,
    call: Arc<Call<S>>,
    namespace: Box<str>,
    prefix: Box<[u8]>,
    /// `None` at the end.
    next: Option<Cursor>,
}

impl<S: Store> Walk<S> {
    async fn part(mut self) -> Result<Option<(wire::DumpResponse, Self)>, Failure> {
        while let Some(from) = self.next {
            still_good(&self.call).await?;
            let mut entries = Vec::new();
            self.next = self.step(from, &mut entries).await?;
            if entries.is_empty() && self.next.is_some() {
                // Nothing in this stretch: let others have a turn.
                tokio::task::yield_now().await;
                continue;
            }
            if entries.is_empty() {
                break;
            }
            let part = wire::DumpResponse {
                entries,
                resume_token: resume::resume_token(self.selection()?, self.next),
                ..Default::default()
            };
            return Ok(Some((part, self)));
        }
        Ok(None)
    }

    async fn step(
        &self,
        from: Cursor,
        entries: &mut Vec<wire::Entry>,
    ) -> Result<Option<Cursor>, Failure> {
        let account = &self.call.known()?.tenant.handle;
        let budget = ScanBudget {
            bytes: self.core.limits.dump_message_bytes,
            entries: STEP_ENTRIES,
        };
        let show =
            |entry: EntryRef<'_>| entries.push(reply::entry(&self.core.clock, entry, Value::Shown));
        self.core
            .store
            .scan(
                account,
                self.call.store_call(false),
                self.selection()?,
                from,
                budget,
                show,
            )
            .await
            .map_err(|error| self.call.store_failure(&error))
    }

    fn selection(&self) -> Result<Selection<'_>, Failure> {
        selection(&self.core.limits, &self.namespace, &self.prefix)
    }
}

impl<S: Store> CacheV1<S> {
    /// Stores the parts of a load, one acknowledgement for each.
    pub(super) fn load(
        &self,
        call: &Arc<Call<S>>,
        requests: InboundStream<wire::LoadRequest>,
    ) -> impl Stream<Item = Result<wire::LoadResponse, Failure>> + Send + use<S> {
        let load = Load {
            core: Arc::clone(&self.core),
            call: Arc::clone(call),
            namespace: None,
            mode: Mode::Apply,
            rehearsal: Rehearsal::default(),
            held: self.core.receiving.hold(),
            done: wire::LoadResponse::default(),
        };
        futures::stream::try_unfold((load, requests), |(mut load, mut requests)| async move {
            let Some(part) = requests.next().await else {
                return Ok(None);
            };
            let part = part.map_err(|error| {
                load.call.refusal().cloned().unwrap_or_else(|| {
                    let message = error.message.as_deref().unwrap_or("the stream broke");
                    status::from_protocol_layer(error.code, message)
                })
            })?;
            let acknowledgement = load.part(&part).await?;
            Ok(Some((acknowledgement, (load, requests))))
        })
    }
}

/// A load under way.
struct Load<S: Store> {
    core: Arc<Core<S>>,
    call: Arc<Call<S>>,
    /// Set by the first part.
    namespace: Option<Box<str>>,
    mode: Mode,
    /// What a dry run would have stored; its memory counts as received.
    rehearsal: Rehearsal,
    held: Held,
    /// What came of all parts so far.
    done: wire::LoadResponse,
}

impl<S: Store> Load<S> {
    async fn part(
        &mut self,
        part: &StreamMessage<wire::LoadRequest>,
    ) -> Result<wire::LoadResponse, Failure> {
        let part = part.view();
        still_good(&self.call).await?;
        batch_fits(&self.core.limits, "entries", part.entries.len())?;
        match &self.namespace {
            None => {
                let namespace = namespace(part.namespace)?;
                // None of its entries could be stored: better one clear error.
                self.call.may_reach(namespace)?;
                self.namespace = Some(namespace.as_str().into());
                self.mode = self.call.mode(part.validate_only);
                self.call.concerns(namespace.as_str(), self.mode);
                self.done.validated_only = self.mode == Mode::DryRun;
            }
            // Set in the first part only; whoever repeats it must not mean
            // something else by it.
            Some(first) if !part.namespace.is_empty() && part.namespace != &**first => {
                return Err(bad_field("namespace", "must be that of the first part"));
            }
            Some(_) if part.validate_only && self.mode == Mode::Apply => {
                return Err(bad_field("validate_only", "must be set in the first part"));
            }
            Some(_) => {}
        }
        let before = self.rehearsal.held_bytes();
        for (index, entry) in part.entries.iter().enumerate() {
            self.call.goes_on(index)?;
            match self.entry(entry).await {
                Ok(true) => self.done.stored_count += 1,
                Ok(false) => self.done.expired_count += 1,
                Err(failure) => {
                    self.done.refused_count += 1;
                    if self.done.first_refusal.is_unset() {
                        let failure = failure.within("entries", index);
                        self.done.first_refusal = Some(status::status(&failure)).into();
                    }
                }
            }
        }
        self.hold_rehearsal(before)?;
        Ok(self.done.clone())
    }

    /// Bounds what a dry run has to remember: its entries, without their values.
    fn hold_rehearsal(&mut self, before: usize) -> Result<(), Failure> {
        let bytes = self.rehearsal.held_bytes();
        if bytes > MAX_REHEARSAL_BYTES {
            let description = format!(
                "are more than a dry run judges together: {MAX_REHEARSAL_BYTES} bytes of keys, \
                 and 200 for each"
            );
            return Err(Failure::field(
                Reason::BatchTooLarge,
                "entries",
                description,
            ));
        }
        let full = |_| overloaded("as many bytes of requests are under way as the server holds");
        self.held.add(bytes - before).map_err(full)
    }

    /// Stores one entry; `false` if its time is over.
    async fn entry(&mut self, entry: &wire::EntryView<'_>) -> Result<bool, Failure> {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        let at: EntryKey<'_> = entry_key(&self.core.limits, namespace, entry.key)?;
        value_fits(&self.core.limits, "value", entry.value)?;
        let account = &self.call.may(Action::Write, at)?.tenant.handle;
        let mut store_call = self.call.store_call(false);
        store_call.mode = self.mode;
        let clock = &self.core.clock;
        let expiry = match entry.expire_time.as_option() {
            None => Expiry::Never,
            Some(t) if millis_until(clock, store_call.now, t.seconds, t.nanos) <= 0 => {
                return Ok(false);
            }
            Some(t) => expire_time(clock, store_call.now, "expire_time", t.seconds, t.nanos)?,
        };
        let set = Set {
            at,
            value: entry.value,
            flags: entry.flags,
            expiry: ExpiryChange::To(expiry),
            condition: Condition::Always,
        };
        self.call.begin_mutation()?;
        let written = match self.mode {
            Mode::Apply => self.call.set(account, store_call, set).await,
            Mode::DryRun => {
                let rehearsal = &mut self.rehearsal;
                let store = &self.core.store;
                store.rehearse(account, store_call, set, rehearsal).await
            }
        };
        written
            .map(|_| true)
            .map_err(|error| self.call.store_failure(&error))
    }
}
