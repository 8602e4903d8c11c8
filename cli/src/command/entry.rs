//! Commands on single entries.

use std::ffi::OsStr;
use std::io::{self, Read};

use larder_client::{
    Condition, DeleteOutcome, Expiry, IncrementOptions, SetExpiry, SetOptions, SetOutcome,
};
use serde_json::json;

use super::dry;
use crate::args::{DelArgs, GetArgs, IncrArgs, SetArgs, TouchArgs};
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::{Format, Output, entry_object, escape, key_object, put_bytes};

/// Largest value read from standard input, bytes: far above what servers
/// allow, so that they are the ones to refuse.
const MAX_STDIN_VALUE_BYTES: u64 = 64 << 20;

/// Most keys in one batch: the server's default limit.
const BATCH_KEYS: usize = 1000;

/// `{"key", "found", "value", "version", "expire_time", "size_bytes", "flags"}`,
/// or `{"key", "found": false}`.
pub(super) async fn get(args: &GetArgs, caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let key = args.entry_key.as_encoded_bytes();
    let entry = caller
        .client
        .get(key)
        .await
        .map_err(|error| caller.failed(error))?;
    let Some(entry) = entry else {
        let mut object = key_object(key);
        object.insert("found".into(), false.into());
        return Err(missing(key, out, &object.into())?);
    };
    match out.format {
        Format::Text => out.raw(&entry.value)?,
        Format::Json => {
            let mut object = entry_object(&entry);
            put_bytes(&mut object, "key", key);
            object.insert("found".into(), true.into());
            put_bytes(&mut object, "value", &entry.value);
            out.json(&object.into())?;
        }
    }
    Ok(())
}

/// `{"key", "applied", "dry_run", "entry"}`; `entry` has the metadata of what
/// was written, or of what stood in the way, or is `null`.
pub(super) async fn set(args: SetArgs, caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let key = args.entry_key.as_encoded_bytes();
    let value = value(&args.value)?;
    let expiry = match (args.ttl, args.keep_ttl) {
        (Some(ttl), _) => SetExpiry::After(ttl),
        (None, true) => SetExpiry::Keep,
        (None, false) => SetExpiry::Never,
    };
    let condition = match (args.if_absent, args.if_present, args.if_version) {
        (true, _, _) => Condition::IfAbsent,
        (_, true, _) => Condition::IfPresent,
        (_, _, Some(version)) => Condition::IfVersion(version),
        _ => Condition::Always,
    };
    let options = SetOptions::new()
        .expiry(expiry)
        .condition(condition)
        .flags(args.flags);
    let dry_run = args.dry_run.dry_run;
    let reply = caller
        .mutating(dry_run)
        .set(key, value, options)
        .await
        .map_err(|error| caller.failed(error))?;

    let (applied, entry) = match reply.outcome {
        SetOutcome::Applied(entry) => (true, Some(entry)),
        SetOutcome::NotApplied(current) => (false, current),
    };
    let mut object = key_object(key);
    object.insert("applied".into(), applied.into());
    object.insert("dry_run".into(), dry_run.into());
    object.insert("entry".into(), entry.as_ref().map(entry_object).into());
    if applied {
        let version = entry.map_or(0, |entry| entry.version);
        let text = match dry_run {
            true => "would be stored (dry run)".to_owned(),
            false => format!("stored, version {version}"),
        };
        out.result(&object.into(), &text)?;
        return Ok(());
    }
    let why = match entry {
        Some(entry) => format!("there is an entry, of version {}", entry.version),
        None => "there is no entry".into(),
    };
    unmet(
        out,
        &object.into(),
        &format!("not stored{}: {why}", dry(dry_run)),
    )
}

/// `{"deleted", "dry_run", "keys": [{"key", "deleted"}]}`, or with `--prefix`
/// `{"deleted", "dry_run"}`, where `deleted` counts.
pub(super) async fn del(args: &DelArgs, caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let dry_run = args.dry_run.dry_run;
    let client = caller.mutating(dry_run);
    let said = if dry_run {
        "would be deleted (dry run)"
    } else {
        "deleted"
    };
    if let Some(prefix) = &args.prefix {
        let deleted = client
            .delete_prefix(prefix.as_encoded_bytes())
            .await
            .map_err(|error| caller.failed(error))?;
        let object = json!({"deleted": deleted.count, "dry_run": dry_run});
        out.result(&object, &format!("{} {said}", deleted.count))?;
        return Ok(());
    }
    let keys: Vec<&[u8]> = args
        .entry_keys
        .iter()
        .map(|key| key.as_encoded_bytes())
        .collect();
    let mut results = Vec::with_capacity(keys.len());
    let mut count = 0u64;
    for batch in keys.chunks(BATCH_KEYS) {
        let answers = match batch {
            // One key needs no batch, and its own error is the call's.
            [key] => {
                let reply = client
                    .delete(key, larder_client::DeleteOptions::new())
                    .await;
                let reply = reply.map_err(|error| caller.failed(error))?;
                vec![Ok(reply.outcome == DeleteOutcome::Deleted)]
            }
            _ => client
                .batch_delete(batch)
                .await
                .map_err(|error| caller.failed(error))?,
        };
        for (key, answer) in batch.iter().zip(answers) {
            let deleted = answer.map_err(|error| caller.failed(error))?;
            count += u64::from(deleted);
            let mut object = key_object(key);
            object.insert("deleted".into(), deleted.into());
            results.push(object);
        }
    }
    let object = json!({"deleted": count, "dry_run": dry_run, "keys": results});
    out.result(&object, &format!("{count} {said}"))?;
    match (count, &keys[..]) {
        (0, [key]) => Err(told(out, format!("key not found: {}", escape(key)))),
        (0, _) => Err(told(out, "none of the keys found".into())),
        _ => Ok(()),
    }
}

/// `{"touched", "dry_run", "keys": [{"key", "found", …}]}`, each key with the
/// metadata of its entry if it was found.
pub(super) async fn touch(
    args: &TouchArgs,
    caller: &Caller,
    out: &mut Output,
) -> Result<(), Failure> {
    let expiry = match args.ttl {
        Some(ttl) => Expiry::After(ttl),
        None => Expiry::Never,
    };
    let dry_run = args.dry_run.dry_run;
    let client = caller.mutating(dry_run);
    let mut results = Vec::with_capacity(args.entry_keys.len());
    let mut missing = Vec::new();
    for key in &args.entry_keys {
        let key = key.as_encoded_bytes();
        let entry = client
            .touch(key, expiry)
            .await
            .map_err(|error| caller.failed(error))?;
        let mut object = entry.as_ref().map(entry_object).unwrap_or_default();
        put_bytes(&mut object, "key", key);
        object.insert("found".into(), entry.is_some().into());
        results.push(object);
        if entry.is_none() {
            missing.push(escape(key));
        }
    }
    let touched = results.len() - missing.len();
    let object = json!({"touched": touched, "dry_run": dry_run, "keys": results});
    out.result(&object, &format!("{touched} touched{}", dry(dry_run)))?;
    if touched == 0 {
        return Err(told(out, format!("key not found: {}", missing.join(", "))));
    }
    Ok(())
}

/// `{"key", "value", "applied_delta", "dry_run"}`, numbers.
pub(super) async fn incr(
    args: &IncrArgs,
    caller: &Caller,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut options = IncrementOptions::new().initial_value(args.initial);
    if let Some(ttl) = args.ttl {
        options = options.initial_ttl(ttl);
    }
    if let Some(max) = args.max {
        options = options.upper_bound(max);
    }
    if let Some(min) = args.min {
        options = options.lower_bound(min);
    }
    let key = args.entry_key.as_encoded_bytes();
    let dry_run = args.dry_run.dry_run;
    let reply = caller
        .mutating(dry_run)
        .increment(key, args.delta, options)
        .await
        .map_err(|error| caller.failed(error))?;
    let mut object = key_object(key);
    object.insert("value".into(), reply.value.into());
    object.insert("applied_delta".into(), reply.applied_delta.into());
    object.insert("dry_run".into(), dry_run.into());
    out.result(&object.into(), &reply.value.to_string())?;
    Ok(())
}

/// The value of the command line, or of standard input for `-`.
fn value(argument: &OsStr) -> Result<Vec<u8>, Failure> {
    if argument != "-" {
        return Ok(argument.as_encoded_bytes().to_vec());
    }
    let mut value = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_STDIN_VALUE_BYTES + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::file("cannot read standard input", &error))?;
    if u64::try_from(value.len()).is_ok_and(|bytes| bytes > MAX_STDIN_VALUE_BYTES) {
        return Err(Failure::Failed(format!(
            "the value on standard input has more than {MAX_STDIN_VALUE_BYTES} bytes"
        )));
    }
    Ok(value)
}

/// Tells that a key is not there: as a result in JSON, as an error in text.
fn missing(key: &[u8], out: &mut Output, object: &serde_json::Value) -> Result<Failure, Failure> {
    if out.format == Format::Json {
        out.json(object)?;
    }
    Ok(told(out, format!("key not found: {}", escape(key))))
}

/// Tells that a condition did not hold, likewise.
fn unmet(out: &mut Output, object: &serde_json::Value, text: &str) -> Result<(), Failure> {
    if out.format == Format::Json {
        out.json(object)?;
        return Err(Failure::Failed(String::new()));
    }
    Err(Failure::Failed(text.into()))
}

/// A program has the result already; a person reads why on standard error.
fn told(out: &Output, text: String) -> Failure {
    Failure::NotFound(match out.format {
        Format::Json => String::new(),
        Format::Text => text,
    })
}
