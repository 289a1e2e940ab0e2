//! `slipring top` on a running engine.

#[path = "../../tests/common/busy.rs"]
mod engine;

use engine::busy;
use slipring::metrics::Metrics;
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
