//! `journal`: the journal against a bare loop that does the same to the same disk, in turn.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use slipring::journal::storage::Disk;
use slipring::journal::{FrameBuilder, Options, PartitionId, Start, Visible, inspect, open};

use crate::cli::{Format, JournalArgs};
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::output::Output;

const TICKS: PartitionId = PartitionId { topic: 1, partition: 0 };
const MESSAGE: usize = 128;

/// One kind of work, measured in rounds.
#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    /// Megabytes a second, a figure a round.
    journal: Vec<f64>,
    bare: Vec<f64>,
    /// The median of the rounds' ratios.
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct JournalDocument {
    version: u32,
    command: String,
    environment: Environment,
    /// Messages of 128 bytes in one frame, and in one sync.
    group: u64,
    bytes: u64,
    rows: Vec<Row>,
    /// Milliseconds to open a journal of `segments` after it was closed.
    segments: usize,
    open_ms: Vec<f64>,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

impl Row {
    fn new(work: &'static str) -> Self {
        Self { work, journal: Vec::new(), bare: Vec::new(), ratio: 0.0 }
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
        format!("{:<22} {:<24} {:<24} {:.2} x", self.work, show(&self.journal), show(&self.bare), self.ratio)
    }
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("the journal refused: {error}"))
}

fn rate(bytes: u64, since: Instant) -> f64 {
    bytes as f64 / 1e6 / since.elapsed().as_secs_f64()
}

/// Runs `journal`.
///
/// # Errors
///
/// [`Failure`]: the journal or the disk refused.
pub fn command(arguments: &JournalArgs) -> Result<(), Failure> {
    let folder = arguments.dir.join(format!("slipring-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, error))?;
    let measured = measure(arguments, &folder);
    // What was measured matters more than what is left.
    let _ = std::fs::remove_dir_all(&folder);
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
    let [mut synced, mut unsynced] = [Row::new("written and fsynced"), Row::new("written")];
    let [mut scan, mut catch_up] = [Row::new("recovery scan"), Row::new("catch-up reading")];
    let mut open_ms = Vec::new();
    let mut segments = 0;
    for round in 0..arguments.rounds {
        for (row, sync) in [(&mut synced, true), (&mut unsynced, false)] {
            let _ = std::fs::remove_dir_all(&journal);
            let _ = std::fs::remove_file(&bare);
            // Which goes first changes from round to round.
            let (mut frame, mut own) = (0, 0.0);
            if round % 2 == 0 {
                (frame, own) = write(&journal, bytes, arguments.group, sync)?;
                row.bare.push(write_bare(&bare, bytes, frame, sync)?);
            } else {
                row.bare.push(write_bare(&bare, bytes, group_bytes(arguments.group), sync)?);
            }
            if frame == 0 {
                (_, own) = write(&journal, bytes, arguments.group, sync)?;
            }
            row.journal.push(own);
        }
        // The journal that is there was left by a writer that did not close it: all of it is read, from the page cache.
        let files = segment_files(&journal)?;
        read_bare(&files)?;
        scan.journal.push(recover(&journal)?);
        let checked = read_bare(&files)?;
        scan.bare.push(checked);
        catch_up.journal.push(replay(&journal)?);
        catch_up.bare.push(read_bare(&files)?);
        let disk = Arc::new(Disk::new(&journal));
        let (writer, _) = open(disk.clone(), Options::default()).map_err(|error| refused(&error))?;
        writer.close(1).map_err(|error| refused(&error))?;
        let begun = Instant::now();
        let (writer, recovered) = open(disk, Options::default()).map_err(|error| refused(&error))?;
        open_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        segments = recovered.segments;
        writer.close(2).map_err(|error| refused(&error))?;
    }
    let rows = vec![synced.finish(), unsynced.finish(), scan.finish(), catch_up.finish()];
    let (command, environment, group) = (command_line(), Environment::capture(), arguments.group);
    Ok(JournalDocument { version: 1, command, environment, group, bytes, rows, segments, open_ms })
}

/// Bytes of a frame of so many messages: heads of frame, entry and each message, up to a multiple of 64.
fn group_bytes(group: u64) -> usize {
    (64 + 32 + group as usize * (4 + MESSAGE)).next_multiple_of(64)
}

/// Writes frames; returns the bytes of each and megabytes a second.
fn write(dir: &Path, bytes: u64, group: u64, sync: bool) -> Result<(usize, f64), Failure> {
    let (mut writer, _) = open(Arc::new(Disk::new(dir)), Options::default()).map_err(|error| refused(&error))?;
    let each = group_bytes(group);
    let mut frame = FrameBuilder::new();
    let mut message = [7; MESSAGE];
    let mut offset = 0_u64;
    let begun = Instant::now();
    for _ in 0..bytes / each as u64 {
        for _ in 0..group {
            message[..8].copy_from_slice(&offset.to_le_bytes());
            frame.record(TICKS, offset, None, &message);
            offset += 1;
        }
        writer.append(&mut frame, offset).map_err(|error| refused(&error))?;
        if sync {
            writer.sync().map_err(|error| refused(&error))?;
        }
    }
    let own = rate(bytes, begun);
    writer.sync().map_err(|error| refused(&error))?;
    Ok((each, own))
}

/// The same bytes in the same groups, into a file that was made as large before.
fn write_bare(path: &Path, bytes: u64, group: usize, sync: bool) -> Result<f64, Failure> {
    let failed = |error| Failure::file(path, error);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(failed)?;
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes);
    file.sync_all().map_err(failed)?;
    let mut buffer = vec![7; group];
    let begun = Instant::now();
    for turn in 0..bytes / group as u64 {
        buffer[..8].copy_from_slice(&turn.to_le_bytes());
        file.write_all_at(&buffer, turn * group as u64).map_err(failed)?;
        if sync {
            file.sync_data().map_err(failed)?;
        }
    }
    let own = rate(bytes, begun);
    file.sync_data().map_err(failed)?;
    Ok(own)
}

fn segment_files(dir: &Path) -> Result<Vec<(PathBuf, File)>, Failure> {
    let entries = std::fs::read_dir(dir).map_err(|error| Failure::file(dir, error))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "segment"));
    paths.sort();
    let open = |path: PathBuf| File::open(&path).map_err(|error| Failure::file(&path, error)).map(|file| (path, file));
    paths.into_iter().map(open).collect()
}

/// Reads all files once and takes the checksum of what they have.
fn read_bare(files: &[(PathBuf, File)]) -> Result<f64, Failure> {
    let mut buffer = vec![0; 1 << 20];
    let (mut read, mut checksum) = (0, 0);
    let begun = Instant::now();
    for (path, file) in files {
        let mut at = 0;
        loop {
            let got = file.read_at(&mut buffer, at).map_err(|error| Failure::file(path, error))?;
            if got == 0 {
                break;
            }
            checksum = crc32c::crc32c_append(checksum, &buffer[..got]);
            at += got as u64;
        }
        read += at;
    }
    black_box(checksum);
    Ok(rate(read, begun))
}

/// What an opening does with a journal of which it believes nothing.
fn recover(dir: &Path) -> Result<f64, Failure> {
    let begun = Instant::now();
    let survey = inspect(&Disk::new(dir), true).map_err(|error| refused(&error))?;
    Ok(rate(survey.scanned(), begun))
}

fn replay(dir: &Path) -> Result<f64, Failure> {
    let disk = Disk::new(dir);
    let survey = inspect(&disk, false).map_err(|error| refused(&error))?;
    let journal = survey.journal(Arc::new(disk));
    let mut reader = journal.reader(TICKS, Start::Earliest, Visible::Durable).map_err(|error| refused(&error))?;
    let begun = Instant::now();
    let (mut next, mut sum) = (0, 0_u64);
    while let Some(record) = reader.next().map_err(|error| refused(&error))? {
        if record.offset != next {
            return Err(refused(&format!("offset {} came after {next}", record.offset)));
        }
        next += 1;
        sum = sum.wrapping_add(u64::from(record.bytes[0]));
    }
    black_box(sum);
    Ok(rate(next * (4 + MESSAGE as u64), begun))
}

impl JournalDocument {
    fn text(&self) -> String {
        let messages = self.bytes as f64 / group_bytes(self.group) as f64 * self.group as f64;
        let synced = self.rows.first().map_or(0.0, |row| median(&row.journal));
        let mut text = format!(
            "{} MiB in frames of {} messages of {MESSAGE} bytes; MB/s, median [lowest..highest round]\n\n{:<22} {:<24} {:<24} ratio\n",
            self.bytes >> 20,
            self.group,
            "",
            "journal",
            "bare loop"
        );
        self.rows.iter().for_each(|row| text.push_str(&format!("{}\n", row.text())));
        text.push_str(&format!(
            "\nfsynced: {:.0} messages a second\nopening after a clean end: {:.1} ms with {} segments",
            synced * 1e6 / self.bytes as f64 * messages,
            median(&self.open_ms),
            self.segments
        ));
        text
    }
}
