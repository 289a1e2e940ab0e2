//! Tests of `peers shared`: what is measured between processes, and that neither process nor ring outlives it.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{Scratch, bench, check, code, schema};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The most that a busy machine may need for a step.
const LONG: Duration = Duration::from_secs(240);

/// True if iceoryx2 is a contender.
const ICEORYX: bool = cfg!(feature = "iceoryx2");

/// Held by a test while it runs: all of them would be pinned to the same cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the program without waiting for its end.
fn start(words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-harness"));
    command.args(words).current_dir(std::env::temp_dir()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// The second processes of the harness `of`, with their command lines.
fn seconds(of: u32) -> Vec<(u32, String)> {
    let ids = std::fs::read_dir("/proc").unwrap().filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
    let second = |id: u32| {
        // The parent is the second field behind the name, which stands in brackets.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let words = std::fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
        (parent == of && words.contains("second")).then_some((id, words))
    };
    ids.filter_map(second).collect()
}

/// The rings that the harness `of` has left, and the files of iceoryx2.
fn rings(of: u32) -> Vec<String> {
    let mut names = slipring_ring::shared::names().unwrap();
    for folder in [std::env::temp_dir().as_path(), Path::new("/dev/shm")] {
        names.extend(std::fs::read_dir(folder).unwrap().filter_map(|it| it.ok()?.file_name().into_string().ok()));
    }
    let is_of = |name: &String| name.trim_start_matches("iceoryx2-").starts_with(&format!("bench-harness-{of}-"));
    names.into_iter().filter(is_of).collect()
}

/// Waits until `found` returns something.
fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// True while a process of this id is there and has not ended.
fn lives(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
#[cfg_attr(not(feature = "rivals"), ignore = "measures rivals")]
fn rings_between_processes_are_measured_beside_threads_pipes_and_sockets() {
    let _alone = alone();
    let scratch = Scratch::new("shared");
    let measured = |mode: &str, extra: &[&str]| {
        let short = ["--rounds", "1", "--duration", "1ms", "--capacity", "64", "--batch", "16", "--wait", "yield"];
        let out = ["--out", scratch.text(), "--format", "json,text,html", "--mode", mode];
        let output = bench(&[&["peers"], extra, &short[..], &out].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let document = scratch.json("peers.json");
        check(&schema("peers.schema.json"), &document, "peers");
        assert!(document["rows"].as_array().unwrap().iter().all(|row| row["valid"] == true));
        (document, scratch.read("peers.txt"))
    };
    fn contenders(document: &Value, scenario: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for row in document["rows"].as_array().unwrap().iter().filter(|row| row["scenario"] == scenario) {
            let name = row["contender"].as_str().unwrap();
            assert_eq!(row["ours"], name.starts_with("shared"), "{row}");
            names.push(name.to_owned());
        }
        names.dedup();
        names
    }
    let iceoryx: &[&str] = if ICEORYX { &["iceoryx2"] } else { &[] };
    let several = [&["shared-multi", "threads-shared-multi", "threads-ring-multi"][..], iceoryx].concat();
    let wires = ["pipe", "pipe+block", "socket", "socket+block"];
    let one = [&["shared", "threads-shared", "threads-ring"][..], iceoryx, &wires].concat();
    let (batches, text) = measured("batch", &["shared-spsc", "shared-mpsc-2", "--with", "all,native"]);
    assert_eq!(contenders(&batches, "shared-spsc"), one);
    assert_eq!(contenders(&batches, "shared-mpsc-2"), several);
    // Threads of one process are no rivals, and yet each has its ratio.
    assert!(!text.contains("best rival, threads"), "{text}");
    let against = |name: &str| batches["ratios"].as_array().unwrap().iter().any(|ratio| ratio["against"] == name);
    assert!(against("threads-shared") && against("threads-ring-multi") && against("pipe"), "{text}");
    let with = if ICEORYX { "pipe,socket,iceoryx2" } else { "pipe,socket" };
    let (document, _) = measured("one-by-one", &["shared", "--with", with]);
    for scenario in ["shared-mpsc-1", "shared-mpsc-2", "shared-mpsc-3"] {
        assert_eq!(contenders(&document, scenario), several, "{scenario}");
    }
    for (scenario, name) in [
        ("shared-spsc", "shared"),
        ("shared-spsc", "socket"),
        ("shared-ping-pong", "shared-multi"),
        ("shared-ping-pong", "shared"),
        ("shared-ping-pong", "threads-ring"),
        ("shared-ping-pong", "pipe"),
        ("shared-ping-pong", "bare-line"),
    ] {
        assert!(contenders(&document, scenario).contains(&name.to_owned()), "{scenario} {name}");
    }
    for scenario in ["shared-spsc", "shared-ping-pong"] {
        assert_eq!(contenders(&document, scenario).contains(&"iceoryx2".to_owned()), ICEORYX, "{scenario}");
    }
    let lone = ["--mode", "one-by-one", "--duration", "1ms", "--rounds", "1", "--format", "text"];
    let asked = code(&[&["peers", "shared-spsc", "--with", "iceoryx2"], &lone[..]].concat());
    assert_eq!(asked, if ICEORYX { 0 } else { 64 });
    assert_eq!(code(&["peers", "shared-spsc", "--with", "fifo"]), 64);
    assert_eq!(code(&["second", "by hand"]), 64);
}

/// However the harness ends. Ctrl-C is not among the signals: whoever starts the tests in the background of a shell has it ignored.
#[test]
fn neither_processes_nor_rings_outlive_a_harness_that_is_killed() {
    let _alone = alone();
    let all = [
        ("shared-spsc", "shared", Signal::TERM),
        ("shared-mpsc-2", "shared-multi", Signal::KILL),
        ("shared-spsc", "pipe", Signal::KILL),
        ("shared-mpsc-2", "iceoryx2", Signal::TERM),
        ("shared-ping-pong", "iceoryx2", Signal::KILL),
    ];
    for (scenario, contender, signal) in all.into_iter().filter(|it| ICEORYX || it.1 != "iceoryx2") {
        let mut harness = start(&["peers", scenario, "--duration", "20ms", "--rounds", "1000000", "--wait", "yield"]);
        let id = harness.id();
        let medium = format!("\"medium\":\"{contender}\"");
        let seen = until("no second process", || {
            let seen = seconds(id);
            let is_measured = seen.iter().any(|(_, words)| words.contains(&medium));
            (is_measured && seen.len() > 1).then_some(seen)
        });
        kill_process(Pid::from_child(&harness), signal).unwrap();
        assert!(!until("the harness lives on", || harness.try_wait().unwrap()).success());
        until("a second process lives on", || seen.iter().all(|(id, _)| !lives(*id)).then_some(()));
        until("a ring is left", || rings(id).is_empty().then_some(()));
    }
}

/// The round has no figure, and says why. The other contenders are measured.
#[test]
fn a_second_process_that_is_killed_is_a_fault_of_its_round() {
    let _alone = alone();
    let all = [
        ("shared-spsc", "shared"),
        ("shared-spsc", "socket"),
        ("shared-mpsc-2", "shared-multi"),
        ("shared-ping-pong", "shared-multi"),
        ("shared-ping-pong", "pipe"),
        ("shared-mpsc-2", "iceoryx2"),
        ("shared-ping-pong", "iceoryx2"),
    ];
    for (scenario, contender) in all.into_iter().filter(|it| ICEORYX || it.1 != "iceoryx2") {
        let scratch = Scratch::new("killed");
        let words =
            ["--duration", "100ms", "--rounds", "1", "--capacity", "64", "--mode", "one-by-one", "--wait", "yield"];
        let with = if contender.starts_with("shared") { "none" } else { contender };
        let out = ["--format", "json", "--out", scratch.text(), "--with", with];
        let mut harness = start(&[&["peers", scenario], &words[..], &out].concat());
        let (id, medium) = (harness.id(), format!("\"medium\":\"{contender}\""));
        // The first of them may be done before it is found: so all that come.
        until("the harness hangs", || {
            for (victim, _) in seconds(id).into_iter().filter(|(_, words)| words.contains(&medium)) {
                let _ = kill_process(Pid::from_raw(victim as i32).unwrap(), Signal::KILL);
            }
            harness.try_wait().unwrap()
        });
        let ended = harness.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{scenario} {contender}: {told}");
        assert!(told.contains(&format!("{scenario} {contender} one-by-one")), "{told}");
        let document = scratch.json("peers.json");
        let figures = document["rows"].as_array().unwrap();
        assert!(figures.iter().any(|row| row["contender"].as_str().unwrap().starts_with("threads-")), "{document}");
        assert_eq!(rings(id), [""; 0], "rings are left");
    }
}

/// A ring whose harness was killed together with its janitor goes at the next run; that of a harness that runs stays.
#[test]
fn a_run_removes_what_dead_ones_left_and_nothing_else() {
    let _alone = alone();
    use slipring_ring::shared::SharedRing;
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let (left, mine) =
        (format!("bench-harness-{}-7-ask", gone.id()), format!("bench-harness-{}-7", std::process::id()));
    let other = format!("bench-harness-of-mine-{}", std::process::id());
    for name in [&left, &mine, &other] {
        SharedRing::<u64>::create(name, 8).unwrap();
    }
    // What iceoryx2 leaves, a folder and shared memory: of the dead harness, of this one, and of somebody else.
    let (temp, memory) = (std::env::temp_dir(), Path::new("/dev/shm"));
    let foreign = format!("bench-harness-{}-7-mine", gone.id());
    let iceoryx =
        [&left, &mine].map(|name| (temp.join(format!("iceoryx2-{name}")), memory.join(format!("iceoryx2-{name}-x"))));
    let foreign = (temp.join(&foreign), memory.join(&foreign));
    for (folder, file) in iceoryx.iter().chain([&foreign]) {
        std::fs::create_dir_all(folder.join("nodes")).unwrap();
        std::fs::write(file, "x").unwrap();
    }
    let short = ["--rounds", "1", "--duration", "1ms", "--capacity", "64", "--with", "none", "--format", "text"];
    assert_eq!(code(&[&["peers", "shared-spsc", "--mode", "one-by-one"], &short[..]].concat()), 0);
    let names = slipring_ring::shared::names().unwrap();
    assert!(!names.contains(&left) && !Path::new(&format!("/proc/{}", gone.id())).exists());
    for name in [&mine, &other] {
        assert!(names.contains(name), "{name} of {names:?}");
        SharedRing::<u64>::remove(name).unwrap();
    }
    let [(left_folder, left_file), mine] = iceoryx;
    assert_eq!([left_folder.exists(), left_file.exists()], [!ICEORYX; 2]);
    let _ = std::fs::remove_dir_all(left_folder).and(std::fs::remove_file(left_file));
    for (folder, file) in [mine, foreign] {
        std::fs::remove_file(file).and(std::fs::remove_dir_all(folder)).unwrap();
    }
}
