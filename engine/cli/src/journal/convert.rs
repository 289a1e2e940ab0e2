//! The subcommand `convert`.

use crate::failure::{Done, FAILED, Failure};
use crate::inspected::Directory;
use crate::output::{print_json, progress_bar};
use serde_json::json;
use slipring::journal::{RecordedTopic, convert};
use slipring::topic::Upgrades;
use std::io::Write;
use std::path::PathBuf;

pub(crate) const EXAMPLES: &str = "\
Examples:
  slipring journal convert ./journal ./converted --by-name quotes
  mv ./journal ./before && mv ./converted ./journal

How an older layout becomes the present one is what the program says in TopicBuilder::upgrade, which this command cannot know. The
program converts by slipring::journal::convert. --by-name is for topics whose fields mean the same as long as they have the same
name: each field takes the value of the older field of its name, and 0 if there is none. A field whose type cannot hold all older
values is refused.

Until the new journal is whole, it is in TO.converting; nothing is called TO before. After a crash, convert again.
Exit codes: see slipring journal --help.";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: Directory,
    /// The directory for the new journal, which must not exist yet
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Convert this topic's older layouts field by field; may be given several times
    #[arg(long, value_name = "TOPIC")]
    by_name: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The steps of a topic from each layout to the next one, by the names of the fields.
fn steps(topic: &RecordedTopic) -> Result<Upgrades, Failure> {
    let layouts = topic.older.iter().map(|older| &older.layout).chain([&topic.layout]);
    let pairs = layouts.clone().zip(layouts.skip(1)).filter(|(from, to)| from != to);
    pairs
        .into_iter()
        .try_fold(Upgrades::new(), |steps, (from, to)| steps.by_name(from, to))
        .map_err(|refused| Failure::new(FAILED, format!("topic {:?} is not converted by name: {refused}", topic.name)))
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let inspected = arguments.directory.inspect()?;
    let topics = inspected.topics().0;
    if let Some(damage) = inspected.damage {
        return Err(damage.into());
    }
    let mut upgrades = Vec::new();
    for name in &arguments.by_name {
        let known = topics.iter().find(|topic| topic.name == *name);
        let none = || Failure::new(FAILED, format!("there is no topic {name:?}: `slipring topic ls` lists them"));
        upgrades.push((&**name, steps(known.ok_or_else(none)?)?));
    }
    let total = arguments.directory.bytes();
    let bar = progress_bar(total);
    let done = convert(arguments.directory.path(), &arguments.to, &upgrades, &mut |left| {
        bar.set_position(total.saturating_sub(left));
    });
    bar.finish_and_clear();
    let done = done?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let document = json!({ "version": 1, "records": done.records, "upgraded": done.upgraded });
        return print_json(&mut out, &document);
    }
    Ok(writeln!(out, "{} records written, {} of them from an older layout", done.records, done.upgraded)?)
}
