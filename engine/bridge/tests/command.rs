//! The program `slipring-bridge` without servers: what it says of wrong settings, and what it forgets.

use slipring::{Engine, Level, Message, Record};
use slipring_bridge::Bridge;
use slipring_bridge::memory::{Faults, MemoryCluster};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipring-bridge")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn settings(dir: &Path, rest: &str) -> String {
    let path = dir.join("bridge.toml");
    // Nobody listens at that port.
    let head = "journal = 'journal'\n[cluster]\nservers = 'nats://127.0.0.1:1'\n";
    std::fs::write(&path, format!("{head}{rest}")).unwrap();
    path.to_str().unwrap().to_owned()
}

const OUTWARD: &str = "[[outward]]\nname = 'nats'\ntopic = 'orders'\n";

#[test]
fn help_names_the_commands_and_their_exit_codes() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    for command in ["run", "status", "verify", "reset"] {
        assert!(text(&help.stdout).contains(&format!("  {command} ")), "{}", text(&help.stdout));
        let help = run(&[command, "--help"]);
        assert!(help.status.success() && text(&help.stdout).contains("CONFIG.toml"), "{}", text(&help.stdout));
    }
    assert_eq!(run(&["run"]).status.code(), Some(2));
}

#[test]
fn what_is_wrong_with_the_settings_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    for (rest, command, expected) in [
        ("", "run", "no bridge"),
        ("[[outward]]\nname = 'nats'\ntopics = 'orders'\n", "run", "topic"),
        (OUTWARD, "verify", "there is no journal in"),
        (OUTWARD, "status", "there is no journal in"),
    ] {
        let output = run(&[command, &settings(dir.path(), rest)]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("slipring-bridge: ") && said.contains(expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let output = run(&["run", "/none/bridge.toml"]);
    assert!(text(&output.stderr).contains("/none/bridge.toml"), "{}", text(&output.stderr));
}

/// A journal whose bridge has copied some records and was ended.
fn journal(at: &Path) {
    let engine = Engine::open(at).unwrap();
    let topic = engine.topic::<Message>("orders").partitions(2).durable().create().unwrap();
    let clusters = [1, 2].map(|seed| MemoryCluster::new(seed, Faults::default()));
    let bridge = Bridge::outward("nats");
    let bridge = bridge.start(&engine, &topic, move |partition| clusters[partition as usize].stream()).unwrap();
    let mut producer = topic.producer().acknowledge(Level::Replicated).create().unwrap();
    (0..10_u32).for_each(|number| _ = producer.send(Record::new("x").partition(number % 2)).unwrap());
    bridge.end();
    drop((producer, topic));
    assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
}

#[test]
fn reset_forgets_the_bridge_and_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let (at, settings) = (dir.path().join("journal"), settings(dir.path(), OUTWARD));
    journal(&at);
    let output = run(&["reset", &settings, "--bridge", "other"]);
    assert!(text(&output.stderr).contains("no bridge outward with the name \"other\""), "{}", text(&output.stderr));
    for left in [2, 0] {
        let output = run(&["reset", &settings, "--bridge", "nats"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains(&format!("{left} positions")), "{}", text(&output.stdout));
    }
    let engine = Engine::open(&at).unwrap();
    let topic = engine.topic::<Message>("orders").partitions(2).durable().create().unwrap();
    let mut count = 0;
    let mut replay = topic.replay("check").open().unwrap();
    while count < 10 {
        replay.read(Duration::from_secs(60), |_, _| count += 1).unwrap();
    }
    // A program has it open: nothing is changed under it.
    let output = run(&["reset", &settings, "--bridge", "nats"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("lock") || text(&output.stderr).contains("open"), "{}", text(&output.stderr));
}
