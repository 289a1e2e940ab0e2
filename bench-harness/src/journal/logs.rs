//! Other logs with the work of the journal: 128-byte messages, in groups of which each is durable before the next one begins.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use slipring::Level;

use super::{MESSAGE, TICKS, median, topic};
use crate::failure::Failure;
use crate::output::scratch;

/// Messages of a group.
const GROUP: u64 = 4096;

/// The figures of a log.
#[derive(Debug, Serialize)]
pub struct Log {
    name: &'static str,
    /// Messages a second, by rounds.
    messages: Vec<f64>,
}

impl Log {
    pub fn text(&self) -> String {
        format!("{:<26} {:>9.0} messages/s, durable\n", self.name, median(&self.messages))
    }
}

type Write = fn(&Path, u64) -> Result<(), Failure>;

/// Measures all logs, one after the other in each round.
pub fn measure(dir: &Path, messages: u64, rounds: u64) -> Result<Vec<Log>, Failure> {
    let messages = messages.next_multiple_of(GROUP);
    let logs: [(&str, Write); 4] = [
        ("slipring topic", |dir, messages| topic::write(dir, messages, Level::Durable).map(drop)),
        ("slipring frames", frames),
        ("okaywal", okaywal),
        ("fjall", fjall),
    ];
    let mut rows = logs.map(|(name, _)| Log { name, messages: Vec::new() });
    for round in 0..rounds {
        for turn in 0..logs.len() {
            let which = (turn + round as usize) % logs.len();
            let folder = scratch(dir)?;
            let begun = Instant::now();
            logs[which].1(folder.path(), messages)?;
            rows[which].messages.push(messages as f64 / begun.elapsed().as_secs_f64());
        }
    }
    Ok(rows.into())
}

fn message(number: u64) -> [u8; MESSAGE] {
    let mut message = [7; MESSAGE];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

fn frames(dir: &Path, messages: u64) -> Result<(), Failure> {
    use slipring::journal::{FrameBuilder, Options, open, storage::Disk};
    let disk = std::sync::Arc::new(Disk::new(dir));
    let (mut writer, _) = open(disk, Options::default()).map_err(Failure::refused)?;
    let mut frame = FrameBuilder::new();
    for number in 0..messages {
        frame.fixed(TICKS, number, None, &message(number));
        if (number + 1) % GROUP == 0 {
            writer.append(&mut frame, number).map_err(Failure::refused)?;
            writer.sync().map_err(Failure::refused)?;
        }
    }
    Ok(())
}

fn okaywal(dir: &Path, messages: u64) -> Result<(), Failure> {
    let failed = |error| Failure::file(dir, error);
    let log = okaywal::WriteAheadLog::recover(dir, okaywal::LogVoid).map_err(failed)?;
    for group in 0..messages / GROUP {
        let mut entry = log.begin_entry().map_err(failed)?;
        for number in group * GROUP..(group + 1) * GROUP {
            entry.write_chunk(&message(number)).map_err(failed)?;
        }
        entry.commit().map_err(failed)?;
    }
    log.shutdown().map_err(failed)
}

fn fjall(dir: &Path, messages: u64) -> Result<(), Failure> {
    use fjall::{Config, PartitionCreateOptions, PersistMode};
    let keyspace = Config::new(dir).open().map_err(Failure::refused)?;
    let ticks = keyspace.open_partition("ticks", PartitionCreateOptions::default()).map_err(Failure::refused)?;
    for group in 0..messages / GROUP {
        let mut batch = keyspace.batch().durability(Some(PersistMode::SyncData));
        for number in group * GROUP..(group + 1) * GROUP {
            batch.insert(&ticks, number.to_be_bytes(), message(number));
        }
        batch.commit().map_err(Failure::refused)?;
    }
    Ok(())
}
