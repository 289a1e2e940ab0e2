//! `slipring shm` on rings that other processes use, have left, or have damaged.
#![cfg(target_os = "linux")]

use slipring_ring::shared::{SharedRing, Size};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

slipring_ring::shared_event! {
    struct Quote { px: i64, qty: u32, venue: [u8; 4] }
}

/// A name that no other test has; the ring is removed at the end.
struct Named(String);

impl Named {
    fn new(what: &str) -> Self {
        Self(format!("shm-tool-{}-{what}", std::process::id()))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/slipring-{}", fs::metadata("/proc/self").unwrap().uid())).join(&self.0)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

fn slipring(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    command.arg("shm").args(words);
    command
}

/// The exit code, standard output and standard error.
fn run(words: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = slipring(words).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn done(words: &[&str]) -> String {
    let (code, out, err) = run(words);
    assert_eq!((code, &*err), (0, ""), "{words:?}: {out}");
    out
}

fn json(words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&done(&[words, &["--json"]].concat())).unwrap()
}

fn quote(px: i64) -> Quote {
    Quote { px, qty: 7, venue: *b"XET\0" }
}

#[test]
fn a_ring_is_listed_shown_and_removed_without_its_program() {
    let name = Named::new("whole");
    let ring = SharedRing::<Quote>::create(&name.0, Size::slots(8).retain(2)).unwrap();
    let mut out = ring.producer().unwrap();
    let mut tape = ring.consumer("recorder").hold().join().unwrap();
    (0..5).for_each(|px| _ = out.publish(|event| *event = quote(px)).unwrap());
    tape.poll(3).unwrap().into_iter().count();
    let listed = json(&["ls"]);
    let of_ours = |it: &&serde_json::Value| it["ring"] == name.0.as_str();
    let ours = listed["rings"].as_array().unwrap().iter().find(of_ours).unwrap();
    assert_eq!((&ours["published"], &ours["capacity"], &ours["retained"]), (&5.into(), &8.into(), &2.into()));
    assert_eq!(ours["layout"], "px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8");
    let shown = done(&["ls"]);
    let row = shown.lines().find(|line| line.starts_with(&name.0)).expect(&shown);
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[1], "open");
    assert_eq!(cells[4..], ["8", "5", "1", "1", "0", "2"], "{shown}");

    let shown = done(&["stat", &name.0]);
    assert!(shown.contains("px:i64@0 qty:u32@8 venue:u8[4]@12") && shown.contains("published  5"), "{shown}");
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let pid = std::process::id().to_string();
    assert!(rows.contains(&vec!["recorder", "consumer", "alive", "3", "2", &pid]), "{shown}");
    assert!(rows.contains(&vec!["producer", "producer", "alive", "-", "0", &pid]), "{shown}");
    let stat = json(&["stat", &name.0]);
    let recorder = stat["participants"].as_array().unwrap().iter().find(|it| it["name"] == "recorder").unwrap();
    assert_eq!((&recorder["held"], &recorder["lag"], &recorder["position"]), (&true.into(), &2.into(), &3.into()));
    assert_eq!((&stat["version"], &stat["state"]), (&1.into(), &"open".into()));

    let shown = done(&["top", "--once"]);
    assert_eq!(shown, shown.lines().map(|line| format!("{line}\n")).collect::<String>());
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec![&name.0, "open", "5", "-", "8"]), "{shown}");
    assert!(rows.contains(&vec![&name.0, "recorder", "alive", "3", "-", "2"]), "{shown}");
    assert!(json(&["top"])["rings"].as_array().unwrap().iter().any(|it| it["ring"] == name.0.as_str()));

    // In use, then held, then gone.
    for words in [&["rm", &*name.0][..], &["rm", &name.0, "--dry-run"]] {
        let (code, shown, told) = run(words);
        assert_eq!((code, &*shown), (1, ""));
        assert!(told.contains("recorder") && told.contains("producer"), "{told}");
    }
    drop((out, tape));
    let shown = done(&["rm", &name.0, "--dry-run"]);
    assert!(shown.contains("1 positions were held") && shown.contains("nothing was changed"), "{shown}");
    assert!(name.path().exists());
    let removed = json(&["rm", &name.0]);
    assert_eq!((&removed["dry_run"], &removed["held"]), (&false.into(), &1.into()));
    assert!(!name.path().exists());
    for words in [&["rm", &*name.0][..], &["stat", &name.0], &["tail", &name.0], &["stat", &name.0, "--json"]] {
        let (code, shown, told) = run(words);
        assert_eq!((code, &*shown, told.contains("there is no shared ring")), (1, "", true), "{told}");
    }
}

#[test]
fn the_claims_of_several_producers_are_shown() {
    let name = Named::new("several");
    let ring = SharedRing::<Quote>::create(&name.0, Size::slots(8).multi_producer()).unwrap();
    let (mut slow, mut other) = (ring.multi_producer_named("slow").unwrap(), ring.multi_producer().unwrap());
    other.publish(|event| *event = quote(1)).unwrap();
    let claim = slow.claim(3).unwrap();
    other.publish(|event| *event = quote(2)).unwrap();
    let shown = done(&["stat", &name.0]);
    assert!(shown.contains("published  1\nclaimed    5, by several producers"), "{shown}");
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let pid = std::process::id().to_string();
    assert!(rows.contains(&vec!["slow", "producer", "alive", "1..4", "0", &pid]), "{shown}");
    assert!(rows.contains(&vec!["producer", "producer", "alive", "-", "0", &pid]), "{shown}");
    let stat = json(&["stat", &name.0]);
    let slow = stat["participants"].as_array().unwrap().iter().find(|it| it["name"] == "slow").unwrap();
    assert_eq!((&slow["claim"]["first"], &slow["claim"]["len"]), (&1.into(), &3.into()));
    assert_eq!((&stat["producers"], &stat["published"], &stat["claimed"]), (&"several".into(), &1.into(), &5.into()));
    let shown = done(&["top", "--once"]);
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec![&name.0, "slow", "alive", "1..4", "-"]), "{shown}");
    claim.commit().unwrap();
    assert!(done(&["stat", &name.0]).contains("published  5"));
}

#[test]
fn a_ring_in_use_is_removed_by_force_and_a_damaged_one_too() {
    let name = Named::new("force");
    let ring = SharedRing::<u64>::create(&name.0, 8).unwrap();
    let tape = ring.consumer("tape").join().unwrap();
    assert!(done(&["rm", &name.0, "--force"]).contains("1 participants were alive"));
    assert!(!name.path().exists());
    drop(tape);
    let ring = SharedRing::<u64>::create(&name.0, 8).unwrap();
    drop(ring);
    let mut bytes = fs::read(name.path()).unwrap();
    bytes[20] ^= 1;
    fs::write(name.path(), &bytes).unwrap();
    let shown = done(&["ls"]);
    assert!(shown.lines().any(|line| line.split_whitespace().take(2).eq([&*name.0, "damaged"])), "{shown}");
    assert!(shown.contains("header checksum"), "{shown}");
    for words in [&["stat", &*name.0][..], &["rm", &name.0], &["tail", &name.0]] {
        let (code, shown, told) = run(words);
        assert_eq!((code, &*shown, told.contains("header checksum")), (3, "", true), "{told}");
    }
    done(&["rm", &name.0, "--force", "--dry-run"]);
    assert!(name.path().exists());
    done(&["rm", &name.0, "--force"]);
    assert!(!name.path().exists());
}

#[test]
fn tail_prints_the_last_kept_events_and_leaves() {
    let name = Named::new("tail");
    let ring = SharedRing::<Quote>::create(&name.0, Size::slots(8).retain(4)).unwrap();
    let mut out = ring.producer().unwrap();
    (0..10).for_each(|px| _ = out.publish(|event| *event = quote(px)).unwrap());
    assert_eq!(done(&["tail", &name.0, "-n", "2"]), "8 px=8 qty=7 venue=XET\n9 px=9 qty=7 venue=XET\n");
    assert_eq!(done(&["tail", &name.0]).lines().count(), 4, "as many as are retained");
    assert_eq!(done(&["tail", &name.0, "-n", "0"]), "");
    let lines = done(&["tail", &name.0, "--json", "-n", "1"]);
    let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(line, serde_json::json!({ "sequence": 9, "event": { "px": 9, "qty": 7, "venue": [88, 69, 84, 0] } }));
    assert!(ring.participants().iter().all(|it| it.name == "producer" || !it.is_alive));
}

#[test]
fn tail_follows_a_ring_to_its_end_and_holds_nobody_once_it_is_killed() {
    let name = Named::new("follow");
    let ring = SharedRing::<u64>::create(&name.0, 8).unwrap();
    let mut out = ring.producer().unwrap();
    let follow = || {
        let child = slipring(&["tail", &name.0, "-f"]).stdout(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        // Producers do not wait for one that has not joined.
        while !ring.participants().iter().any(|it| it.name == format!("tail-{}", child.id())) {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
        child
    };
    let mut killed = follow();
    killed.kill().unwrap();
    killed.wait().unwrap();
    (0..20).for_each(|value| _ = out.publish(|event| *event = value).unwrap());
    let mut child = follow();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for value in 20..60 {
        out.publish(|event| *event = value).unwrap();
        let line = lines.find(|line| line.as_ref().unwrap().starts_with(&format!("{value} "))).unwrap().unwrap();
        assert_eq!(line, format!("{value} value={value}"));
    }
    out.close();
    assert_eq!(lines.count(), 0);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_hostile_file_name_and_layout_are_shown_as_text() {
    let name = Named::new("hostile\u{1b}[2J\nFORGED");
    // Makes the folder.
    slipring_ring::shared::names().unwrap();
    fs::write(name.path(), "no ring").unwrap();
    for words in [&["ls"][..], &["ls", "--json"], &["top", "--once"], &["stat", &name.0], &["rm", &name.0, "--force"]] {
        let (_, out, err) = run(words);
        assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "{words:?}");
        assert!(!out.lines().chain(err.lines()).any(|line| line.starts_with("FORGED")), "{words:?}: {out}{err}");
    }
}
