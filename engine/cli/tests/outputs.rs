//! The command `slipring` with an output that accepts nothing: a full device, or a pipe whose reader has gone.
#![cfg(target_os = "linux")]

use slipring::journal::Options;
use slipring::{Engine, Message, Record};
use slipring_ring::shared::{SharedRing, Size};
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// An output that accepts nothing.
fn output(full: bool) -> Stdio {
    match full {
        true => OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
        false => OwnedFd::from(UnixStream::pair().unwrap().0).into(),
    }
}

#[test]
fn no_command_panics_whatever_its_output_is() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, socket) = (folder.path().join("journal"), folder.path().join("socket"));
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal(&dir).journal_options(options).observe(&socket).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").durable().create().unwrap();
    let mut worker = jobs.queue("resize").max_attempts(1).join().unwrap();
    let mut member = jobs.group("sums").join().unwrap();
    let receipt = jobs.producer().create().unwrap().send(Record::new("cat.png")).unwrap();
    receipt.wait(slipring::Level::Durable).unwrap();
    member.poll(LONG).unwrap().unwrap().commit().unwrap();
    let (dir, socket) = (dir.to_str().unwrap(), socket.to_str().unwrap());
    let ring_name = format!("outputs-{}", std::process::id());
    let ring = SharedRing::<u64>::create(&ring_name, Size::slots(8).retain(4)).unwrap();
    ring.producer().unwrap().publish(|event| *event = 7).unwrap();
    let ring_name = ring_name.as_str();
    let calls: [&[&str]; 31] = [
        &["top", "--socket", socket, "--once"],
        &["top", "--socket", socket, "--json"],
        &["top", "--socket", socket, "--prometheus"],
        &["top", "--socket", "/no/such/socket"],
        &["journal", "ls", dir],
        &["journal", "ls", dir, "--json"],
        &["journal", "stat", dir],
        &["journal", "cat", dir],
        &["journal", "tail", dir, "--json"],
        &["journal", "verify", dir],
        &["journal", "repair", dir, "--dry-run"],
        &["journal", "export", dir, "--format", "csv"],
        &["journal", "cat", "/no/such/journal"],
        &["journal", "convert", "/no/such/journal", "/no/such/target"],
        &["group", "ls", dir],
        &["group", "describe", dir, "sums"],
        &["group", "reset", dir, "sums", "--to", "earliest", "--dry-run"],
        &["queue", "ls", dir],
        &["queue", "describe", dir, "jobs", "resize", "--json"],
        &["queue", "peek", dir, "jobs", "resize"],
        &["topic", "list", dir],
        &["topic", "describe", dir, "jobs"],
        &["shm", "ls"],
        &["shm", "ls", "--json"],
        &["shm", "stat", ring_name],
        &["shm", "stat", ring_name, "--json"],
        &["shm", "top", "--once"],
        &["shm", "top", "--json"],
        &["shm", "tail", ring_name],
        &["shm", "rm", ring_name, "--dry-run"],
        &["--help"],
    ];
    calls.iter().for_each(|words| never_panics(words, || ()));
    SharedRing::<u64>::remove(ring_name).unwrap();
    // One that is dead, and one that is left.
    worker.receive(LONG).unwrap().unwrap().nack(Duration::ZERO, "no such file").unwrap();
    jobs.producer().create().unwrap().send(Record::new("dog.png")).unwrap();
    drop((worker, member, jobs));
    engine.shutdown(LONG);
    drop(engine);
    // What changes a journal, each time from the beginning.
    let fresh = folder.path().join("fresh");
    let begin = || {
        let _ = std::fs::remove_dir_all(&fresh);
        std::fs::create_dir(&fresh).unwrap();
        for file in std::fs::read_dir(dir).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), fresh.join(file.file_name())).unwrap();
        }
    };
    let dir = fresh.to_str().unwrap();
    let calls: [&[&str]; 13] = [
        &["queue", "purge", dir, "jobs", "resize"],
        &["queue", "purge", dir, "jobs", "resize", "--dead", "--json"],
        &["queue", "redrive", dir, "jobs", "resize"],
        &["queue", "redrive", dir, "jobs", "resize", "--json"],
        &["group", "reset", dir, "sums", "--to", "earliest"],
        &["group", "acknowledge", dir, "sums"],
        &["group", "forget", dir, "sums"],
        &["journal", "repair", dir],
        &["journal", "verify", dir],
        &["queue", "purge", dir, "jobs", "resize", "--dry-run"],
        &["queue", "redrive", dir, "jobs", "resize", "--dry-run", "--json"],
        &["group", "acknowledge", dir, "sums", "--dry-run"],
        &["group", "forget", dir, "sums", "--dry-run"],
    ];
    calls.iter().for_each(|words| never_panics(words, begin));
}

/// Runs a command with each output that accepts nothing, each time after `begin`.
fn never_panics(words: &[&str], begin: impl Fn()) {
    let fails = words.iter().any(|word| word.starts_with("/no/such"));
    for (full, stderr_too) in [(true, false), (true, true), (false, false), (false, true)] {
        begin();
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
        command.args(words).stdin(Stdio::null()).stdout(output(full));
        command.stderr(if stderr_too { output(full) } else { Stdio::piped() });
        let ended = command.spawn().unwrap().wait_with_output().unwrap();
        let told = format!("{words:?}, full {full}: {:?} {}", ended.status, String::from_utf8_lossy(&ended.stderr));
        assert!(!told.contains("panicked"), "{told}");
        // A reader that has closed the pipe has what it wanted; a full device is an error.
        let wanted = if fails || (full && words[0] != "--help") { 1 } else { 0 };
        assert_eq!(ended.status.code(), Some(wanted), "{told}");
    }
}
