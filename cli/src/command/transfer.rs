//! `larder dump` and `larder load`.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::dry;
use crate::args::{Command, DumpArgs, LoadArgs};
use crate::connect::Caller;
use crate::dump_file::{DumpReader, DumpWriter, ReadError};
use crate::failure::Failure;
use crate::output::{Format, Output, is_terminal};
use crate::units::show_size;

/// How often the progress is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Refuses to write bytes onto a terminal, or to wait for a dump to be typed.
pub(super) fn check_terminal(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Dump(_) if is_terminal() => Err(Failure::Usage(
            "a dump is binary; send it to a file: larder dump > FILE".into(),
        )),
        Command::Load(_) if io::stdin().is_terminal() => Err(Failure::Usage(
            "a load reads a dump from standard input: larder load < FILE".into(),
        )),
        _ => Ok(()),
    }
}

/// Writes the file to standard output and `{"entries", "bytes"}` to standard
/// error, where `bytes` are those of keys and values.
pub(super) async fn dump(
    args: &DumpArgs,
    caller: &Caller,
    out: &mut Output,
) -> Result<(), Failure> {
    let progress = Progress::new(None, out.format);
    let mut dump = caller.client.dump(args.prefix.as_encoded_bytes());
    let format = out.format;
    let mut file = DumpWriter::new(out.writer())?;
    let (mut entries, mut bytes) = (0u64, 0u64);
    while let Some(part) = dump
        .next_part()
        .await
        .map_err(|error| caller.failed(error))?
    {
        for entry in &part {
            file.push(entry)?;
            entries += 1;
            bytes += u64::try_from(entry.key.len() + entry.value.len()).unwrap_or_default();
        }
        progress.show(bytes, &format!("{entries} entries, {}", show_size(bytes)));
    }
    file.finish()?;
    progress.clear();
    let told = match format {
        Format::Json => json!({"entries": entries, "bytes": bytes}).to_string(),
        Format::Text => format!("{entries} entries dumped, {}", show_size(bytes)),
    };
    // Standard output has the file; whoever closed standard error is not told.
    let _ = writeln!(io::stderr(), "{told}");
    Ok(())
}

/// `{"stored", "expired", "refused", "first_refusal", "dry_run"}`;
/// `first_refusal` is `{"code", "reason", "message"}` or `null`.
pub(super) async fn load(
    args: &LoadArgs,
    caller: &Caller,
    out: &mut Output,
) -> Result<(), Failure> {
    let dry_run = args.dry_run.dry_run;
    let progress = Progress::new(stdin_bytes(), out.format);
    let input = Counted {
        from: BufReader::new(io::stdin().lock()),
        bytes: 0,
    };
    let mut reader = DumpReader::new(input).map_err(|error| unreadable(&error))?;
    let mut loader = caller.mutating(dry_run).load();
    let broken = loop {
        match reader.next_block() {
            Ok(None) => break None,
            Err(error) => break Some(error),
            Ok(Some(block)) => {
                for entry in block {
                    loader
                        .push(entry)
                        .await
                        .map_err(|error| caller.failed(error))?;
                }
            }
        }
        let done = loader.progress();
        progress.show(reader.get_ref().bytes, &format!("{} entries", done.stored));
    };
    let summary = loader
        .finish()
        .await
        .map_err(|error| caller.failed(error))?;
    progress.clear();
    let first = summary.first_refusal.as_ref();
    let object = json!({
        "stored": summary.stored,
        "expired": summary.expired,
        "refused": summary.refused,
        "first_refusal": first.map(|error| json!({
            "code": error.code().name(),
            "reason": error.reason_name(),
            "message": error.message(),
        })),
        "dry_run": dry_run,
    });
    let mut text = format!("{} entries loaded{}", summary.stored, dry(dry_run));
    if summary.expired > 0 {
        text.push_str(&format!(", {} had expired", summary.expired));
    }
    if summary.refused > 0 {
        text.push_str(&format!(", {} refused", summary.refused));
    }
    out.result(&object, &text)?;
    match (broken, first) {
        (Some(error), _) => Err(unreadable(&error)),
        (None, Some(error)) => Err(caller.failed(error.clone())),
        (None, None) if summary.refused > 0 => {
            Err(Failure::Failed("some entries were refused".into()))
        }
        (None, None) => Ok(()),
    }
}

fn unreadable(error: &ReadError) -> Failure {
    Failure::Failed(error.to_string())
}

/// How many bytes standard input has, if it is a file.
fn stdin_bytes() -> Option<u64> {
    use std::os::fd::AsFd as _;
    let file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// Progress on standard error, if that is a terminal and read by a person.
struct Progress(ProgressBar);

impl Progress {
    fn new(bytes: Option<u64>, format: Format) -> Self {
        let bar = match (format, bytes) {
            (Format::Json, _) => ProgressBar::hidden(),
            (Format::Text, Some(bytes)) => ProgressBar::new(bytes).with_style(style(
                "{bar:30} {percent}% of {total_bytes}, {msg}, {eta} left",
            )),
            (Format::Text, None) => ProgressBar::new_spinner()
                .with_style(style("{spinner} {msg}, {binary_bytes_per_sec}")),
        };
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    fn show(&self, bytes: u64, message: &str) {
        self.0.set_position(bytes);
        self.0.set_message(message.to_owned());
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are well-formed")
}

/// Counts what was read.
struct Counted<R> {
    from: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.bytes += u64::try_from(read).unwrap_or_default();
        Ok(read)
    }
}
