//! `slipring journal convert`: kills at any moment, and fields by their names.
#![cfg(target_os = "linux")]

use slipring::{Engine, Level};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    struct Old { id: u32, cents: i32 }
}

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    struct New { cents: i64, id: u32, venue: [u8; 4] }
}

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    struct Narrow { id: u16, cents: i16 }
}

fn journal(records: u32) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let engine = Engine::open(&dir).unwrap();
    let ticks = engine.topic::<Old>("ticks").durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    (0..records).for_each(|id| _ = producer.publish(|to| *to = Old { id, cents: -1 }).unwrap());
    drop((producer, ticks));
    engine.shutdown(LONG);
    let engine = Engine::open(&dir).unwrap();
    let ticks = engine.topic::<New>("ticks").durable().upgrade(|_: &Old, _: &mut New| ()).create().unwrap();
    let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
    producer.publish(|to| *to = New { cents: 5, id: records, venue: *b"XETR" }).unwrap();
    drop((producer, ticks));
    engine.shutdown(LONG);
    (folder, dir)
}

fn convert(dir: &Path, to: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    command.args(["journal", "convert"]).arg(dir).arg(to).args(more);
    command
}

fn run(dir: &Path, to: &Path, more: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = convert(dir, to, more).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn check(dir: &Path, records: u32) {
    let engine = Engine::open(dir).unwrap();
    let ticks = engine.topic::<New>("ticks").durable().create().unwrap();
    let mut replay = ticks.replay("auditor").open().unwrap();
    let mut count = 0;
    while count <= records {
        let mut check = |event: &New, offset: u64| {
            let expected = match count {
                last if last == records => New { cents: 5, id: records, venue: *b"XETR" },
                id => New { cents: -1, id, venue: [0; 4] },
            };
            assert_eq!(*event, expected);
            assert!(offset >= u64::from(count), "{offset}");
            count += 1;
        };
        replay.read(LONG, |event, at| check(event, at.offset)).unwrap();
    }
    drop((replay, ticks));
    engine.shutdown(LONG);
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_or_a_whole_journal() {
    const RECORDS: u32 = 20_000;
    let (folder, dir) = journal(RECORDS);
    let to = folder.path().join("converted");
    let part = folder.path().join("converted.converting");
    let mut unfinished = 0;
    // The later the kill, the further the conversion has come; the last ones find it done on any machine.
    for round in 0..40_u32 {
        let mut child = convert(&dir, &to, &["--by-name", "ticks"]).stdout(Stdio::null()).spawn().unwrap();
        if round < 39 {
            while !part.exists() && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            // No time is waited for: so many looks at the directory, however long each takes.
            (0..round * round * 8).for_each(|_| _ = part.exists());
            child.kill().unwrap();
        }
        child.wait().unwrap();
        unfinished += u32::from(part.exists());
        if to.exists() {
            check(&to, RECORDS);
            fs::remove_dir_all(&to).unwrap();
        }
    }
    assert!(unfinished > 0, "no kill came in the middle");
    let (code, out, err) = run(&dir, &to, &["--by-name", "ticks", "--json"]);
    assert_eq!(code, 0, "{err}");
    let done: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&done["records"], &done["upgraded"]), (&(RECORDS + 1).into(), &RECORDS.into()));
    check(&to, RECORDS);
    assert!(!part.exists());
}

#[test]
fn by_name_needs_fields_that_hold_all_values() {
    let (folder, dir) = journal(10);
    let to = folder.path().join("converted");
    let (code, _, err) = run(&dir, &to, &[]);
    assert!(code == 1 && err.contains("older layout") && err.contains("--by-name"), "{err}");
    let (code, _, err) = run(&dir, &to, &["--by-name", "ticks", "--by-name", "nobody"]);
    assert!(code == 1 && err.contains("no topic \"nobody\""), "{err}");
    assert_eq!(run(Path::new("/no/such/journal"), &to, &[]).0, 1);
    let (code, out, err) = run(&dir, &to, &["--by-name", "ticks"]);
    assert_eq!((code, &*out), (0, "11 records written, 10 of them from an older layout\n"), "{err}");
    check(&to, 10);
    let (code, _, err) = run(&dir, &to, &["--by-name", "ticks"]);
    assert!(code == 1 && err.contains("is there already"), "{err}");
    // The tools show each record in its own layout, and a table only those of the present one.
    let shown = |command: &[&str]| {
        let Output { status, stdout, stderr } =
            Command::new(env!("CARGO_BIN_EXE_slipring")).args(command).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    };
    let old = dir.to_str().unwrap();
    let (_, out, _) = shown(&["journal", "cat", old]);
    assert!(out.contains(" id=0 cents=-1\n") && out.contains(" cents=5 id=10 venue=XETR\n"), "{out}");
    let (code, _, err) = shown(&["journal", "export", old, "--topic", "ticks", "--format", "csv"]);
    assert!(code == 1 && err.contains("older layout"), "{err}");
    let (_, out, _) = shown(&["topic", "describe", old, "ticks"]);
    assert!(out.contains("older layout") && out.contains("plain data id:u32@0 cents:i32@4"), "{out}");
    let (_, out, _) = shown(&["topic", "describe", old, "ticks", "--json"]);
    let described: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(described["older"][0]["fields"][1]["type"], "i32");
    let (code, out, err) = shown(&["journal", "export", to.to_str().unwrap(), "--topic", "ticks", "--format", "csv"]);
    assert_eq!((code, out.lines().count()), (0, 12), "{err}");
    // A field that became narrower.
    let engine = Engine::open(&dir).unwrap();
    let ticks = engine
        .topic::<Narrow>("ticks")
        .durable()
        .upgrades(slipring::topic::Upgrades::new().step(|_: &Old, _: &mut New| ()).step(|_: &New, _: &mut Narrow| ()));
    drop(ticks.create().unwrap());
    engine.shutdown(LONG);
    drop(engine);
    let (code, _, err) = run(&dir, &folder.path().join("other"), &["--by-name", "ticks"]);
    assert!(code == 1 && err.contains("not converted by name") && err.contains("another type"), "{err}");
}
