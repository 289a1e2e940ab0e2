//! `slipring-bridge verify`.

use crate::Settings;
use crate::failure::{DIFFERS, Done, Failure};
use crate::recorded::RecordedJournal;
use serde_json::json;
use slipring_bridge::verify::{self, Verified};
use std::io::Write as _;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let config = arguments.settings.read()?;
    let recorded = RecordedJournal::read(&config.journal)?;
    let cluster = config.cluster.connect()?;
    let (mut wrong, mut rows) = (0, Vec::new());
    let mut row = |direction: &str, name: &str, topic: &str, partition: u32, found: Verified| {
        wrong += found.wrong;
        rows.push(json!({
            "direction": direction, "bridge": name, "topic": topic, "partition": partition, "equal": found.equal,
            "behind": found.behind, "deleted": found.deleted, "skipped": found.skipped, "others": found.others, "wrong": found.wrong,
            "differences": found.differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }));
    };
    for bridge in &config.outward {
        for of in recorded.partitions(&bridge.topic.name)? {
            let mut stream = bridge.stream(&config.cluster, &cluster, of.partition);
            let found = verify::outward(&recorded.journal, of, &mut stream)?;
            row("outward", &bridge.name, &bridge.topic.name, of.partition, found);
        }
    }
    for import in &config.inward {
        for of in recorded.partitions(&import.topic.name)? {
            let mut stream = import.stream(&config.cluster, &cluster, of.partition);
            let found = verify::inward(&recorded.journal, of, &mut stream)?;
            row("inward", &import.name, &import.topic.name, of.partition, found);
        }
    }
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::Value::Array(rows))?;
    } else {
        for row in &rows {
            let word = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let (direction, name, topic) = (word("direction"), word("bridge"), word("topic"));
            let count = |name: &str| row[name].as_u64().unwrap_or(0);
            let (equal, behind, wrong) = (count("equal"), count("behind"), count("wrong"));
            write!(out, "{direction} {name}: topic {topic}, partition {}: {equal} equal", row["partition"])?;
            for (name, what) in [("deleted", "deleted here"), ("skipped", "skipped"), ("others", "of others")] {
                if count(name) > 0 {
                    write!(out, ", {} {what}", count(name))?;
                }
            }
            writeln!(out, ", {behind} not copied yet, {wrong} wrong")?;
            for difference in row["differences"].as_array().into_iter().flatten() {
                writeln!(out, "  {}", difference.as_str().unwrap_or_default())?;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        wrong => Err(Failure::new(DIFFERS, format!("journal and streams differ in {wrong} places"))),
    }
}
