//! `slipring queue` on a journal that a program has left, and on one that it has open.

use slipring::{Engine, Message, Record, queue::Worker};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// The exit code, standard output and standard error.
fn run(verb: &str, dir: &Path, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    let Output { status, stdout, stderr } = command.args(["queue", verb]).arg(dir).args(more).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn done(verb: &str, dir: &Path, more: &[&str]) -> String {
    let (code, out, err) = run(verb, dir, more);
    assert_eq!((code, &*err), (0, ""), "{out}");
    out
}

fn json(verb: &str, dir: &Path, more: &[&str]) -> serde_json::Value {
    serde_json::from_str(&done(verb, dir, &[more, &["--json"]].concat())).unwrap()
}

fn take(worker: &mut Worker) -> slipring::queue::Lease {
    worker.receive(LONG).unwrap().unwrap()
}

fn open(dir: &Path) -> (Engine, Worker) {
    let engine = Engine::open(dir).unwrap();
    let jobs = engine.topic::<Message>("jobs").max_message(64).durable().create().unwrap();
    let worker = jobs.queue("resize").visibility(Duration::from_secs(3600)).max_attempts(1).join().unwrap();
    (engine, worker)
}

const OF: [&str; 2] = ["jobs", "resize"];

#[test]
fn a_queue_is_listed_described_peeked_at_sent_back_and_purged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let (engine, mut worker) = open(&dir);
    let jobs = engine.get::<Message, slipring::producer::Multi>("jobs").unwrap();
    let mut producer = jobs.producer().create().unwrap();
    for value in ["cat.png", "dog.png", "\u{1}", "cow.png", "eel.png"] {
        producer.send(Record::new(value).key("pets")).unwrap();
    }
    let later = producer.send(Record::new("fox.png").delay(LONG * 60)).unwrap();
    later.wait(slipring::Level::Durable).unwrap();
    take(&mut worker).nack(Duration::ZERO, "no such file").unwrap();
    take(&mut worker).nack(Duration::ZERO, "too dark").unwrap();
    take(&mut worker).leave();
    take(&mut worker).ack().unwrap();
    assert_eq!(worker.queue().dead_letters().count(), 2);

    // A journal whose topic, queue, group, key, header, value and reasons are hostile. With `named`, topic, queue and group
    // have plain names.
    let list = json("ls", &dir, &[]);
    let queue = &list["queues"][0];
    assert_eq!(
        (&queue["topic"], &queue["queue"], &queue["dead_letters"]),
        (&"jobs".into(), &"resize".into(), &2.into())
    );
    let (code, _, told) = run("purge", &dir, &OF);
    assert!(code == 1 && told.contains("open"), "{code} {told}");
    drop((producer, worker));
    engine.shutdown(LONG);

    let text = done("ls", &dir, &[]);
    assert!(text.lines().nth(1).unwrap().starts_with("jobs"), "{text}");
    let shown = json("describe", &dir, &OF);
    assert_eq!((&shown["leased"], &shown["waiting"], &shown["dead_letters"]), (&1.into(), &0.into(), &2.into()));
    assert_eq!((&shown["visibility_ms"], &shown["max_attempts"]), (&3_600_000.into(), &1.into()));
    assert_eq!((&shown["messages"][0]["offset"], &shown["messages"][0]["state"]), (&2.into(), &"leased".into()));
    assert_eq!(shown["partitions"][0]["next"], 4);
    let text = done("describe", &dir, &OF);
    assert!(text.contains("1 leased") && text.contains("jobs.resize.dead"), "{text}");

    let peeked = done("peek", &dir, &OF);
    assert_eq!(peeked, "0@4 unread  after 0 attempts: pets = eel.png\n0@5 unread  after 0 attempts: fox.png\n");
    assert_eq!(done("peek", &dir, &[&OF[..], &["-n", "1"]].concat()).lines().count(), 1);
    let dead = done("peek", &dir, &[&OF[..], &["--dead"]].concat());
    assert!(dead.contains("0@0 after 1 attempts, no such file: pets = cat.png"), "{dead}");

    // Rehearsals count what would be done, and do nothing.
    let rehearsed = |verb: &str, more: &[&str]| done(verb, &dir, &[&OF[..], more, &["--dry-run"]].concat());
    assert_eq!(rehearsed("redrive", &["-n", "1"]), "would be sent back: 1\nnothing was changed\n");
    assert_eq!(rehearsed("redrive", &[]), "would be sent back: 2\nnothing was changed\n");
    assert_eq!(rehearsed("purge", &["--dead"]), "would be purged: 2\nnothing was changed\n");
    assert_eq!(rehearsed("purge", &[]), "would be purged: 2\nnothing was changed\n");
    assert_eq!((json("describe", &dir, &OF), done("peek", &dir, &OF)), (shown, peeked));
    assert_eq!(done("list", &dir, &[]), done("ls", &dir, &[]));

    assert_eq!(done("redrive", &dir, &[&OF[..], &["-n", "1"]].concat()), "sent back: 1\n");
    assert_eq!(json("describe", &dir, &OF)["waiting"], 1);
    assert_eq!(json("purge", &dir, &[&OF[..], &["--dead"]].concat())["purged"], 1);
    {
        // The program finds the changes.
        let (engine, mut worker) = open(&dir);
        let again = take(&mut worker);
        assert_eq!((again.message().value(), again.attempt()), (&b"cat.png"[..], 1));
        again.nack(Duration::ZERO, "still not").unwrap();
        assert_eq!(worker.queue().dead_letters().count(), 1);
        drop(worker);
        engine.shutdown(LONG);
    }
    assert_eq!(json("redrive", &dir, &OF)["sent_back"], 1);
    // The message that was sent back and the two that were not read are deleted; the leased one stays.
    assert_eq!(rehearsed("purge", &[]), "would be purged: 3\nnothing was changed\n");
    assert_eq!(done("purge", &dir, &OF), "purged: 3\n");
    let (engine, mut worker) = open(&dir);
    assert!(worker.receive(Duration::ZERO).unwrap().is_none());
    assert_eq!(worker.queue().metrics().leased, 1);
    drop(worker);
    engine.shutdown(LONG);
}

#[test]
fn what_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, told) = run("ls", folder.path(), &[]);
    assert!(code == 1 && told.contains("no journal"), "{told}");
    let dir = folder.path().join("journal");
    let (engine, worker) = open(&dir);
    drop(worker);
    engine.shutdown(LONG);
    let (code, _, told) = run("redrive", &dir, &["jobs", "scale"]);
    assert!(code == 1 && told.contains("scale") && told.contains("jobs/resize"), "{told}");
    let (code, help, _) = run("--help", &dir, &[]);
    assert!(
        code == 0 && ["ls", "describe", "peek", "purge", "redrive", "Exit codes"].iter().all(|it| help.contains(it))
    );
    assert_eq!(run("peek", &dir, &["jobs"]).0, 2);
}
