//! `slipring top` on a running engine.

#[path = "../../tests/common/busy.rs"]
mod engine;

use engine::busy;
use slipring::{Engine, Level, metrics::Metrics};
use std::process::Command;

fn slipring(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_slipring")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn slipring_top_prints_tables_json_and_prometheus_text_for_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let (engine, _clock, _held) = busy(Some(&path));
    let socket = path.to_str().unwrap();
    let (done, shown, _) = slipring(&["top", "--socket", socket, "--once"]);
    assert!(done);
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(
        rows.contains(&vec!["TOPIC", "QUEUE", "UNREAD", "LEASED", "WAITING", "ACKED", "PER", "S", "EXPIRED", "DEAD"]),
        "{shown}"
    );
    assert!(rows.contains(&vec!["jobs", "resize", "1", "1", "0", "0", "-", "0", "1"]), "{shown}");
    assert!(rows.contains(&vec!["ticks", "slow", "3", "-", "3", "1.000", "1", "0", "0"]), "{shown}");
    // Without a terminal the output is that of `--once`.
    assert_eq!(slipring(&["top", "--socket", socket]).1, shown);
    let (_, json, _) = slipring(&["top", "--socket", socket, "--json"]);
    assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), engine.metrics());
    assert_eq!(slipring(&["top", "--socket", socket, "--prometheus"]).1, engine.metrics().to_prometheus());
    let (done, shown, told) = slipring(&["top", "--socket", "/no/such/socket", "--once"]);
    assert!(!done && shown.is_empty() && told.contains("/no/such/socket") && told.contains("observe"), "{told}");
    assert!(!slipring(&["top", "--socket", socket, "--interval", "0"]).0);
}

#[test]
fn slipring_top_shows_a_transform_that_has_failed_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let engine = Engine::builder().journal(folder.path().join("journal")).observe(&path).build().unwrap();
    let input = engine.topic::<u64>("in").durable().create().unwrap();
    let output = engine.topic::<u64>("out").durable().create().unwrap();
    input.producer().acknowledge(Level::Durable).create().unwrap().publish(|event| *event = 4).unwrap();
    let run = input.transform("copy").open().unwrap().run(output, |_, _, _| Err("no\x1bfours")).unwrap();
    run.wait();
    let socket = path.to_str().unwrap();
    let (done, shown, _) = slipring(&["top", "--socket", socket, "--once"]);
    assert!(done);
    let of_copy = |line: &&str| line.split_whitespace().take(3).eq(["in", "copy", "failed"]);
    let row = shown.lines().find(of_copy).unwrap_or_default();
    assert!(row.contains("fours") && row.trim_end().ends_with(" 1") && !shown.contains('\x1b'), "{shown}");
    let (_, json, _) = slipring(&["top", "--socket", socket, "--json"]);
    let observed: Metrics = serde_json::from_str(&json).unwrap();
    assert_eq!((observed.transforms.len(), observed.transforms), (1, engine.metrics().transforms));
}
