//! Directories and limits that are not ours, through the engine.
#![cfg(unix)]

#[path = "common/hostile.rs"]
mod builder;
#[path = "common/limited.rs"]
mod limits;

use builder::Hostile;
use limits::limited;
use slipring::journal::storage::Disk;
use slipring::journal::{OpenError, Options, inspect, open};
use slipring::{Engine, EngineError, Level, topic::TopicError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const DIR: &str = "SLIPRING_HOSTILE_DIR";
const TIB: u64 = 1 << 40;

/// Runs a test that is no test by itself, in a process of its own, for the directory `dir`.
fn alone(limits: &str, name: &str, dir: &Path) {
    let arguments = ["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"];
    let set = format!("{DIR}='{}'; export {DIR}; {limits}", dir.display());
    let (code, out, err) = limited(&set, &std::env::current_exe().unwrap(), &arguments);
    assert!(code == Some(0) && out.contains("1 passed"), "{code:?}\n{out}\n{err}");
}

fn dir() -> PathBuf {
    PathBuf::from(std::env::var_os(DIR).expect("started by another test"))
}

#[test]
fn a_copy_of_a_linked_hole_takes_no_room() {
    use std::os::unix::fs::MetadataExt;
    let place = Hostile::with_a_journal();
    place.grow("00000000000000000004.segment", TIB);
    let copy = place.snapshot("copy");
    let (writer, _) =
        open(Arc::new(Disk::new(&place.dir)), Options { segment_size: 4096, ..Options::default() }).unwrap();
    writer.close(1).unwrap();
    let of = |dir: &Path| dir.join("00000000000000000004.segment").metadata().unwrap();
    assert_eq!(of(&copy).len(), TIB);
    assert!(of(&place.dir).len() < 1 << 20 && of(&place.dir).blocks() < 1000);
}

#[test]
#[ignore = "started by the test below"]
fn moving() {
    std::env::set_current_dir(dir()).unwrap();
    let options = Options { segment_size: 4096, ..Options::default() };
    let builder = Engine::builder().journal("journal").journal_options(options.clone());
    // From where it was named, and there it stays.
    std::env::set_current_dir("/").unwrap();
    let engine = builder.build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    std::env::set_current_dir(dir().join("elsewhere")).unwrap();
    let mut last = None;
    for value in 0..2000 {
        last = Some(producer.publish(|tick| *tick = value).unwrap());
    }
    last.unwrap().wait(Level::Durable).unwrap();
    drop(producer);
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_program_that_changes_its_directory_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("elsewhere")).unwrap();
    alone("true", "moving", folder.path());
    assert_eq!(std::fs::read_dir(folder.path().join("elsewhere")).unwrap().count(), 0);
    let survey = inspect(std::sync::Arc::new(Disk::new(folder.path().join("journal"))), true).unwrap();
    assert!(survey.segments().len() > 2, "{survey:?}");
    let engine = Engine::open(folder.path().join("journal")).unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut tape = ticks.replay("tape").open().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2000 {
        tape.read(LONG, |tick, _| seen.push(*tick)).unwrap();
    }
    assert_eq!(seen, (0..2000).collect::<Vec<_>>());
}

#[test]
#[ignore = "started by the test below"]
fn small_files() {
    // 1,024 blocks of 512 bytes. A signal would have ended the process.
    let refused = Engine::open(dir().join("large")).map(drop).unwrap_err();
    let EngineError::Open(OpenError::Disk(cause)) = &refused else { panic!("{refused}") };
    assert_eq!(cause.kind, std::io::ErrorKind::FileTooLarge);
    assert!(refused.to_string().contains("ulimit -f") && refused.to_string().contains(".segment"), "{refused}");
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal(dir().join("small")).journal_options(options).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let mut last = None;
    for value in 0..100_000 {
        last = Some(producer.publish(|tick| *tick = value).unwrap());
    }
    last.unwrap().wait(Level::Durable).unwrap();
    drop(producer);
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_limit_of_file_sizes_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    alone("ulimit -f 1024", "small_files", folder.path());
}

#[test]
#[ignore = "started by the test below"]
fn few_files() {
    let refused = Engine::open(dir()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("ulimit -n") && refused.contains("may have 7 files open"), "{refused}");
}

#[test]
#[ignore = "started by the test below"]
fn little_memory() {
    let engine = Engine::builder().build().unwrap();
    let refused = |cause: TopicError| {
        let told = cause.to_string();
        assert!(matches!(cause, TopicError::Ring { .. }), "{told}");
        assert!(told.contains("bytes that this capacity takes") && told.contains("ulimit -v"), "{told}");
        assert!(told.contains(&format!("{} bytes of address space", 400 << 20)), "{told}");
    };
    // The slots of events, the bytes of messages, and the times of either.
    refused(engine.topic::<u64>("a").capacity(1 << 26).memory_limit(u64::MAX).create().map(drop).unwrap_err());
    let messages = engine.topic::<slipring::Message>("b").capacity(1 << 14).max_message(1 << 16);
    refused(messages.memory_limit(u64::MAX).create().map(drop).unwrap_err());
    let times = engine.topic::<()>("c").single_producer().partitions(32).capacity(1 << 21).timestamps();
    refused(times.memory_limit(u64::MAX).create().map(drop).unwrap_err());
    // What was taken for these is given back, and what fits is made.
    assert!(engine.topics().is_empty());
    engine.topic::<u64>("a").capacity(1 << 20).create().unwrap();
}

#[test]
fn a_limit_of_the_address_space_is_named() {
    let folder = tempfile::tempdir().unwrap();
    alone(&format!("ulimit -v {}", 400 << 10), "little_memory", folder.path());
}

#[test]
fn a_limit_of_open_files_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // Three streams, the directory twice, the lock, and a segment that is made.
    let journal = folder.path().join("journal");
    Engine::open(&journal).unwrap().shutdown(LONG);
    alone("ulimit -n 7", "few_files", &journal);
}
