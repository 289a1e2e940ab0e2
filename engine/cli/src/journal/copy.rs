//! The subcommand `copy`.

use crate::failure::{Done, Failure};
use crate::inspected::Directory;
use crate::output::{print_json, progress_bar, size};
use serde_json::json;
use slipring::journal::storage::Disk;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: Directory,
    /// The directory for the copy, which is created. With an earlier copy of this journal there, finished or not, only what
    /// it lacks is copied
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    // A source without a journal is refused with the message of the other commands.
    arguments.directory.inspect()?;
    let bar = progress_bar(arguments.directory.bytes());
    let mut progress = |now: slipring::journal::Progress| {
        bar.set_length(now.total);
        bar.set_position(now.read);
    };
    let (from, to) = (Arc::new(arguments.directory.disk()), Arc::new(Disk::new(&arguments.to)));
    let copied = slipring::journal::copy(from, to, &mut progress);
    bar.finish_and_clear();
    let copied = copied.map_err(Failure::from)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let document = json!({
            "version": 1, "end": copied.end, "segments": copied.segments, "copied": copied.copied, "bytes": copied.bytes,
            "removed": copied.removed,
        });
        return print_json(&mut out, &document);
    }
    let (count, bytes, kept) =
        (copied.copied, size(copied.bytes), copied.segments - copied.copied.min(copied.segments));
    writeln!(
        out,
        "{count} segments copied ({bytes}), {kept} kept from an earlier copy, {} deleted there",
        copied.removed
    )?;
    Ok(writeln!(out, "verified: the copy is whole up to position {}", copied.end)?)
}
