//! A durable topic with one producer: the journal as programs use it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slipring::journal::Options;
use slipring::{Engine, Level, Topic, journal::Pace, producer::Single, subscriber::StartAt};

use super::{MESSAGE, rate};
use crate::failure::Failure;

/// An event of 128 bytes of plain data.
pub type Tick = [u64; MESSAGE / 8];

/// Slots of the ring.
pub const CAPACITY: usize = 65_536;

const LONG: Duration = Duration::from_secs(120);

/// The figures of writing through a topic.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Megabytes of the files a second.
    pub rate: f64,
    /// Messages a second.
    pub messages: f64,
    /// Bytes in the files.
    pub bytes: u64,
    /// Average bytes of a sync.
    pub group: usize,
}

/// An engine whose journal is synced if `sync`, otherwise only written, in segments of `segment` bytes.
pub fn engine(dir: &Path, sync: bool, segment: u64) -> Result<Engine, Failure> {
    let mut pace = Pace::default();
    pace.sync = sync;
    let options = Options { segment_size: segment, ..Options::default() };
    let engine = Engine::builder().journal(dir).journal_options(options).journal_pace(pace).build();
    engine.map_err(Failure::refused)
}

/// The topic of the measurements.
pub fn ticks(engine: &Engine) -> Result<Topic<Tick, Single>, Failure> {
    let topic = engine.topic::<Tick>("ticks").single_producer().capacity(CAPACITY).durable().create();
    topic.map_err(Failure::refused)
}

/// Publishes `messages` one by one as fast as the ring accepts them, and waits until the last one has reached `level`.
pub fn write(dir: &Path, messages: u64, level: Level) -> Result<Written, Failure> {
    let engine = engine(dir, level == Level::Durable, Options::default().segment_size)?;
    let topic = ticks(&engine)?;
    let mut producer = topic.producer().create().map_err(Failure::refused)?;
    let journal = engine.journal().ok_or_else(|| Failure::refused("there is no journal"))?;
    let (from, syncs) = (journal.written(), journal.syncs().count);
    let begun = Instant::now();
    let mut last = None;
    for number in 0..messages {
        last = Some(producer.publish(|tick| *tick = [number; MESSAGE / 8]).map_err(Failure::refused)?);
    }
    let last = last.ok_or_else(|| Failure::refused("nothing was published"))?;
    last.wait(level).map_err(Failure::refused)?;
    let took = begun.elapsed();
    let bytes = journal.written() - from;
    let syncs = (journal.syncs().count - syncs).max(1);
    let written = Written {
        rate: bytes as f64 / 1e6 / took.as_secs_f64(),
        messages: messages as f64 / took.as_secs_f64(),
        bytes,
        group: (bytes / syncs) as usize,
    };
    drop(producer);
    ended(&engine)?;
    Ok(written)
}

/// Reads the whole topic from the journal. Returns megabytes of messages a second.
pub fn replay(dir: &Path, messages: u64) -> Result<f64, Failure> {
    let engine = engine(dir, true, Options::default().segment_size)?;
    let topic = ticks(&engine)?;
    let mut replay = topic.replay("all").start(StartAt::Earliest).open().map_err(Failure::refused)?;
    let (mut next, mut wrong) = (0, 0_u64);
    let begun = Instant::now();
    while next < messages {
        let read = replay.read(LONG, |tick, _| {
            wrong += u64::from(tick[0] != next || tick[MESSAGE / 8 - 1] != next);
            next += 1;
        });
        if !matches!(read, Ok(Some(1..))) || wrong > 0 {
            return Err(Failure::Invalid(format!("after {next} messages, {wrong} wrong: {read:?}")));
        }
    }
    let own = rate(messages * MESSAGE as u64, begun);
    drop(replay);
    engine.shutdown(LONG);
    Ok(own)
}

/// Opens an engine with `bytes` in segments of the default size after an orderly end. Returns the count of segments,
/// and the milliseconds of three openings with the files in the page cache and of three without.
pub fn open_large(dir: &Path, bytes: u64) -> Result<(usize, Vec<f64>, Vec<f64>), Failure> {
    let engine_of = || engine(dir, false, Options::default().segment_size);
    let first = engine_of()?;
    {
        let topic = ticks(&first)?;
        let mut producer = topic.producer().create().map_err(Failure::refused)?;
        let journal = first.journal().ok_or_else(|| Failure::refused("there is no journal"))?;
        while journal.written() < bytes {
            producer.publish_batch(4096, |index, tick| tick[0] = index as u64).map_err(Failure::refused)?;
        }
    }
    ended(&first)?;
    let (mut warm, mut cold, mut segments) = (Vec::new(), Vec::new(), 0);
    for round in 0..6 {
        let is_cold = round % 2 == 1;
        if is_cold {
            forget_pages(dir)?;
        }
        let begun = Instant::now();
        let engine = engine_of()?;
        ticks(&engine)?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        if is_cold { &mut cold } else { &mut warm }.push(took);
        segments = engine.recovered().map_or(0, |found| found.segments);
        ended(&engine)?;
    }
    Ok((segments, warm, cold))
}

fn ended(engine: &Engine) -> Result<(), Failure> {
    let report = engine.shutdown(LONG);
    if report.journal == Some(Ok(())) { Ok(()) } else { Err(Failure::Invalid(report.to_string())) }
}

/// Has the system drop these files from its page cache.
fn forget_pages(dir: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir).map_err(|error| Failure::file(dir, error))?.flatten() {
        let file = std::fs::File::open(entry.path()).map_err(|error| Failure::file(&entry.path(), error))?;
        file.sync_all().map_err(|error| Failure::file(&entry.path(), error))?;
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
    Ok(())
}

/// A topic without a journal, to compare with.
pub fn in_memory() -> Result<(Engine, Arc<Topic<Tick, Single>>), Failure> {
    let engine = Engine::builder().build().map_err(Failure::refused)?;
    let topic = engine.topic::<Tick>("ticks").single_producer().capacity(CAPACITY).create();
    Ok((engine, Arc::new(topic.map_err(Failure::refused)?)))
}
