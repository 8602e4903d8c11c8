//! `larder keys`.

use crate::args::KeysArgs;
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::{Format, Output, entry_object, escape};
use crate::units::{show_size, show_time};

/// Prints page by page as they come; holds one. In JSON each key is an object
/// on a line of its own, with the metadata of its entry.
pub(super) async fn run(args: &KeysArgs, caller: &Caller, out: &mut Output) -> Result<(), Failure> {
    let mut pages = caller.client.keys(args.prefix.as_encoded_bytes());
    if args.long && out.format == Format::Text {
        out.line(&row("SIZE", "VERSION", "EXPIRES", "KEY"))?;
    }
    while let Some(page) = pages
        .next_page()
        .await
        .map_err(|error| caller.failed(error))?
    {
        for entry in page {
            match out.format {
                Format::Json => out.json(&entry_object(&entry).into())?,
                Format::Text if args.long => out.line(&row(
                    &show_size(entry.size_bytes),
                    &entry.version.to_string(),
                    &entry.expire_time.map_or_else(|| "never".into(), show_time),
                    &escape(&entry.key),
                ))?,
                Format::Text => out.line(&escape(&entry.key))?,
            }
        }
        // A reader of a pipe sees each page at once, and may go away early.
        out.flush()?;
    }
    Ok(())
}

/// Columns are as wide as their widest content can be, because the last page
/// is not known with the first.
fn row(size: &str, version: &str, expires: &str, key: &str) -> String {
    format!("{size:>10}  {version:>20}  {expires:<30}  {key}")
}
