//! `journal`: the journal and durable topics, each in turn with a bare loop that writes or reads as many bytes on the same
//! disk.

mod bare;
#[cfg(feature = "logs")]
mod logs;
mod publish;
mod topic;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use slipring::Level;
use slipring::journal::storage::Disk;
use slipring::journal::{FrameBuilder, Options, PartitionId, Start, Visible, inspect, open};

use crate::cli::{Format, OutputArgs};
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::output::{Output, scratch};
use crate::quantity;

/// Options of `journal`.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// Where the files are made: the disk that is measured
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// MiB that each round writes
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub megabytes: u64,
    /// Messages in a frame and in a sync
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub group: u64,
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Leave out the measurements in bytes a second
    #[arg(long)]
    pub no_throughput: bool,
    /// Messages a second while the time of each publish is measured; 0 leaves that out
    #[arg(long, default_value_t = 500_000)]
    pub rate: u64,
    /// How long each round measures the time of publishes
    #[arg(long, value_parser = quantity::duration, default_value = "3s")]
    pub duration: Duration,
    /// GiB of an engine whose opening is timed; 0 leaves that out
    #[arg(long, default_value_t = 0)]
    pub open_gib: u64,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

const TICKS: PartitionId = PartitionId { topic: 1, partition: 0 };
const MESSAGE: usize = 128;

/// The figures of one kind of work.
#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    /// Megabytes a second, by rounds.
    journal: Vec<f64>,
    bare: Vec<f64>,
    /// The median over the rounds of the journal's rate divided by the bare loop's.
    ratio: f64,
    /// Messages a second, by rounds; empty if they were not counted.
    messages: Vec<f64>,
    /// Bytes of one sync, by rounds; empty if they were not counted.
    group: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct JournalDocument {
    version: u32,
    command: String,
    environment: Environment,
    /// Messages of 128 bytes in each frame and each sync, where frames are written without a topic.
    group: u64,
    bytes: u64,
    rows: Vec<Row>,
    /// Count of the segments of the journal whose opening `open_ms` times; 0 if it was not measured.
    segments: usize,
    open_ms: Vec<f64>,
    /// The opening of an engine with `--open-gib`; `None` without it.
    large: Option<Large>,
    /// Messages a second while the time of each publish was measured.
    rate: u64,
    publish: Vec<publish::Round>,
    /// Count of the rounds that were repeated because a ring was full.
    full: u64,
    #[cfg(feature = "logs")]
    logs: Vec<logs::Log>,
}

/// Milliseconds to open a large engine after an orderly end.
#[derive(Debug, Serialize)]
struct Large {
    bytes: u64,
    segments: usize,
    /// With the files in the page cache.
    warm_ms: Vec<f64>,
    cold_ms: Vec<f64>,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

impl Row {
    fn new(work: &'static str) -> Self {
        let (journal, bare, messages, group) = Default::default();
        Self { work, journal, bare, ratio: 0.0, messages, group }
    }

    fn finish(mut self) -> Self {
        let ratios: Vec<f64> = self.journal.iter().zip(&self.bare).map(|(ours, bare)| ours / bare).collect();
        self.ratio = median(&ratios);
        self
    }

    fn text(&self) -> String {
        let show = |values: &[f64]| {
            let (low, high) = values.iter().fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
            format!("{:>7.0} [{low:.0}..{high:.0}]", median(values))
        };
        let mut text =
            format!("{:<26} {:<22} {:<22} {:.2} x", self.work, show(&self.journal), show(&self.bare), self.ratio);
        if !self.messages.is_empty() {
            text.push_str(&format!("   {:>9.0} messages/s", median(&self.messages)));
        }
        if !self.group.is_empty() {
            text.push_str(&format!(", {:.0} KiB a sync", median(&self.group) / 1024.0));
        }
        text
    }
}

fn rate(bytes: u64, since: Instant) -> f64 {
    bytes as f64 / 1e6 / since.elapsed().as_secs_f64()
}

/// Runs `journal`.
///
/// # Errors
///
/// [`Failure`]: the journal or the disk refused a call.
pub fn command(arguments: &JournalArgs) -> Result<(), Failure> {
    let folder = scratch(&arguments.dir)?;
    let measured = measure(arguments, folder.path());
    drop(folder);
    let document = measured?;
    let mut output = Output::new(&arguments.output, "journal");
    if output.wants(Format::Text) {
        println!("{}", document.text());
    }
    if output.wants(Format::Json) {
        output.json("journal.json", &document)?;
    }
    output.announce();
    Ok(())
}

fn measure(arguments: &JournalArgs, folder: &Path) -> Result<JournalDocument, Failure> {
    let bytes = arguments.megabytes << 20;
    let (journal, bare) = (folder.join("journal"), folder.join("bare"));
    let mut rows = Vec::new();
    let (mut open_ms, mut segments) = (Vec::new(), 0);
    if !arguments.no_throughput {
        let [mut topic_synced, mut topic_written] = [Row::new("topic, fsynced"), Row::new("topic, written")];
        let [mut synced, mut unsynced] = [Row::new("frames, fsynced"), Row::new("frames, written")];
        // Instead of the journal, a bare loop that makes its messages and takes their checksum: no journal can be
        // faster.
        let mut made = Row::new("bare, made and summed");
        let mut topic_replay = Row::new("topic, replay");
        let [mut scan, mut catch_up] = [Row::new("recovery scan"), Row::new("catch-up reading")];
        for round in 0..arguments.rounds {
            for (row, level) in [(&mut topic_synced, Level::Durable), (&mut topic_written, Level::Written)] {
                through_a_topic(row, &journal, &bare, bytes, level)?;
            }
            topic_replay.bare.push(bare::read(&bare::segments(&journal)?)?);
            topic_replay.journal.push(topic::replay(&journal, bytes / MESSAGE as u64)?);
            for (row, sync) in [(&mut synced, true), (&mut unsynced, false)] {
                let _ = std::fs::remove_dir_all(&journal);
                // The journal is the first in even rounds, the bare loop in odd ones.
                let each = group_bytes(arguments.group);
                let bare = || bare::write(&bare, bytes, each, sync);
                let before = if round % 2 == 1 { Some(bare()?) } else { None };
                row.journal.push(write(&journal, bytes, arguments.group, sync)?);
                row.bare.push(before.map_or_else(bare, Ok)?);
            }
            let each = group_bytes(arguments.group);
            made.journal.push(bare::make_and_write(&bare, bytes, each)?);
            made.bare.push(bare::write(&bare, bytes, each, false)?);
            // The writer did not close this journal, so that an opening reads all of it, from the page cache.
            let files = bare::segments(&journal)?;
            bare::read(&files)?;
            scan.journal.push(recover(&journal)?);
            scan.bare.push(bare::read(&files)?);
            catch_up.journal.push(replay(&journal)?);
            catch_up.bare.push(bare::read(&files)?);
            let disk = Arc::new(Disk::new(&journal));
            let (writer, _) = open(disk.clone(), Options::default()).map_err(Failure::refused)?;
            writer.close(1).map_err(Failure::refused)?;
            let begun = Instant::now();
            let (writer, recovered) = open(disk, Options::default()).map_err(Failure::refused)?;
            open_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            segments = recovered.segments;
            writer.close(2).map_err(Failure::refused)?;
        }
        rows =
            [topic_synced, topic_written, synced, unsynced, made, scan, catch_up, topic_replay].map(Row::finish).into();
        let _ = std::fs::remove_dir_all(&journal);
    }
    let (mut publish, mut full) = (Vec::new(), 0);
    if arguments.rate > 0 {
        let round = |first| publish::round(folder, arguments.rate, arguments.duration, first);
        (publish, full) = publish::rounds(arguments.rounds, round)?;
    }
    #[cfg(feature = "logs")]
    let logs = logs::measure(folder, bytes / MESSAGE as u64, arguments.rounds)?;
    let mut large = None;
    if arguments.open_gib > 0 {
        let bytes = arguments.open_gib << 30;
        let (segments, warm_ms, cold_ms) = topic::open_large(&journal, bytes)?;
        large = Some(Large { bytes, segments, warm_ms, cold_ms });
    }
    let (command, environment, group) = (command_line(), Environment::capture(), arguments.group);
    Ok(JournalDocument {
        version: 2,
        command,
        environment,
        group,
        bytes,
        rows,
        segments,
        open_ms,
        large,
        rate: arguments.rate,
        publish,
        full,
        #[cfg(feature = "logs")]
        logs,
    })
}

/// Measures a topic, and a loop that writes as many bytes in groups: with syncs, of the topic's average bytes of a
/// sync, otherwise of 1 MiB.
fn through_a_topic(row: &mut Row, journal: &Path, bare: &Path, bytes: u64, level: Level) -> Result<(), Failure> {
    let _ = std::fs::remove_dir_all(journal);
    let sync = level == Level::Durable;
    let written = topic::write(journal, bytes / MESSAGE as u64, level)?;
    let group = if sync { written.group.next_multiple_of(64) } else { 1 << 20 };
    row.journal.push(written.rate);
    row.messages.push(written.messages);
    if sync {
        row.group.push(written.group as f64);
    }
    row.bare.push(bare::write(bare, written.bytes, group, sync)?);
    Ok(())
}

/// Bytes of a frame of `group` messages with the headers of frame, entry and each message, rounded up to a multiple of
/// 64.
fn group_bytes(group: u64) -> usize {
    (64 + 32 + group as usize * (4 + MESSAGE)).next_multiple_of(64)
}

/// Writes frames. Returns megabytes a second.
fn write(dir: &Path, bytes: u64, group: u64, sync: bool) -> Result<f64, Failure> {
    let (mut writer, _) = open(Arc::new(Disk::new(dir)), Options::default()).map_err(Failure::refused)?;
    let each = group_bytes(group);
    let mut frame = FrameBuilder::new();
    let mut message = [7; MESSAGE];
    let mut offset = 0_u64;
    let turns = (bytes / each as u64).max(1);
    let begun = Instant::now();
    for _ in 0..turns {
        for _ in 0..group {
            message[..8].copy_from_slice(&offset.to_le_bytes());
            frame.record(TICKS, offset, None, &message);
            offset += 1;
        }
        writer.append(&mut frame, offset).map_err(Failure::refused)?;
        if sync {
            writer.sync().map_err(Failure::refused)?;
        }
    }
    let own = rate(turns * each as u64, begun);
    writer.sync().map_err(Failure::refused)?;
    Ok(own)
}

/// Reads and checks the whole journal, as an opening does that cannot rely on an index. Returns megabytes a second.
fn recover(dir: &Path) -> Result<f64, Failure> {
    let begun = Instant::now();
    let survey = inspect(Arc::new(Disk::new(dir)), true).map_err(Failure::refused)?;
    Ok(rate(survey.scanned(), begun))
}

fn replay(dir: &Path) -> Result<f64, Failure> {
    let disk = Disk::new(dir);
    let survey = inspect(Arc::new(disk.clone()), false).map_err(Failure::refused)?;
    let journal = survey.journal(Arc::new(disk));
    let mut reader = journal.reader(TICKS, Start::Earliest, Visible::Durable).map_err(Failure::refused)?;
    let begun = Instant::now();
    let (mut next, mut sum) = (0, 0_u64);
    while let Some(record) = reader.next().map_err(Failure::refused)? {
        if record.offset != next {
            return Err(Failure::refused(format!("offset {} came after {next}", record.offset)));
        }
        next += 1;
        sum = sum.wrapping_add(u64::from(record.bytes[0]));
    }
    black_box(sum);
    Ok(rate(next * (4 + MESSAGE as u64), begun))
}

impl JournalDocument {
    fn text(&self) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            text.push_str(&format!(
                "{} MiB in messages of {MESSAGE} bytes; frames of {} messages; MB/s, median [lowest..highest round]\n\n{:<26} {:<22} {:<22} ratio\n",
                self.bytes >> 20,
                self.group,
                "",
                "journal",
                "bare loop"
            ));
            self.rows.iter().for_each(|row| text.push_str(&format!("{}\n", row.text())));
            let opened = median(&self.open_ms);
            text.push_str(&format!("\nopening after a clean end: {opened:.1} ms with {} segments\n", self.segments));
        }
        if !self.publish.is_empty() {
            self.publish_text(&mut text);
        }
        #[cfg(feature = "logs")]
        self.logs.iter().for_each(|log| text.push_str(&log.text()));
        if let Some(Large { bytes, segments, warm_ms, cold_ms }) = &self.large {
            text.push_str(&format!(
                "\nopening {:.1} GB in {segments} segments after a clean end: {:.1} ms, {:.1} ms without pages in memory\n",
                *bytes as f64 / 1e9,
                median(warm_ms),
                median(cold_ms)
            ));
        }
        text
    }

    fn publish_text(&self, text: &mut String) {
        text.push_str(&format!(
            "\npublishing {} messages a second, ns from the time each was due\n\n{:<26} {:>8} {:>8} {:>8} {:>8}\n",
            self.rate, "", "p50", "p99", "p99.9", "p99.99"
        ));
        let mut ratios = Vec::new();
        for publish::Round { memory, durable, rolls, at_rolls } in &self.publish {
            text.push_str(&format!("{:<26} {}\n", "in memory, equal load", memory.text()));
            text.push_str(&format!("{:<26} {}\n", "durable", durable.text()));
            let name = format!("  2 ms around {rolls} rolls");
            text.push_str(&format!("{name:<26} {} of {} messages\n", at_rolls.text(), at_rolls.messages));
            ratios.push(durable.p999 as f64 / memory.p999 as f64);
        }
        let (ratio, full) = (median(&ratios), self.full);
        text.push_str(&format!("p99.9: {ratio:.2} x, median of the rounds; {full} rounds in which a ring was full\n"));
    }
}
