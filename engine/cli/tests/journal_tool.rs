//! `slipring journal` on golden files, damaged copies, directories that cannot be written, and live ones.

use slipring::journal::storage::Disk;
use slipring::journal::{FrameBuilder, Options, PartitionId, Writer, open};
use slipring::{Engine, Message, Record};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, str};
use tempfile::TempDir;

fn slipring(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    command.arg("journal").args(arguments);
    command
}

/// The exit code, standard output and standard error.
fn run(verb: &str, dir: &Path, more: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = slipring(&[verb]).arg(dir).args(more).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A copy of the journal that format version 1 wrote: two topics' partitions, 40 records each, three sealed segments.
fn golden() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    fs::create_dir(&dir).unwrap();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/journal-1");
    for entry in fs::read_dir(files).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    (folder, dir)
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.segment"))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|cause| panic!("{cause}: {text}"))
}

const TICKS: PartitionId = PartitionId { topic: 3, partition: 0 };

fn append(writer: &mut Writer, offset: u64, text: &str) {
    let mut frame = FrameBuilder::new();
    frame.record(TICKS, offset, None, text.as_bytes());
    writer.append(&mut frame, 1_700_000_000_000_000_000 + offset).unwrap();
    writer.sync().unwrap();
}

#[test]
fn golden_files_are_listed_counted_and_found_sound() {
    let (_folder, dir) = golden();
    let before = contents(&dir);
    let (code, out, err) = run("ls", &dir, &[]);
    assert_eq!((code, &*err), (0, ""));
    assert_eq!(out.lines().count(), 5, "{out}");
    assert!(out.contains("sealed") && out.contains("last"), "{out}");
    let (_, out, _) = run("ls", &dir, &["--json"]);
    assert_eq!(json(&out)["segments"].as_array().unwrap().len(), 4);

    let (code, out, _) = run("stat", &dir, &["--json"]);
    let stat = json(&out);
    assert_eq!((code, &stat["incarnation"], &stat["segments"]), (0, &2.into(), &4.into()));
    assert_eq!((&stat["partitions"][0]["end"], &stat["partitions"][0]["records"]), (&40.into(), &40.into()));
    assert!(stat["durable"].as_u64().unwrap() > 0 && stat["damage"].is_null());
    assert!(run("stat", &dir, &[]).1.contains("durable      up to position"));
    let names = &stat["producer_names"];
    assert!(names["count"] == 0 && stat["state_bytes"].as_u64() < stat["state_limit"].as_u64(), "{stat}");
    let told = format!("names        0 of idempotent producers, of at most {}\n", names["limit"]);
    assert!(run("stat", &dir, &[]).1.contains(&told), "{told}");

    let (code, out, _) = run("verify", &dir, &[]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("80 records") && out.contains("MB/s") && out.contains("sound"), "{out}");
    assert_eq!(contents(&dir), before, "looking changes nothing, and leaves no lock");
}

#[test]
fn records_are_chosen_by_topic_partition_offset_and_time() {
    let (_folder, dir) = golden();
    let count = |more: &[&str]| run("cat", &dir, more).1.lines().count();
    assert_eq!(count(&[]), 80);
    assert_eq!(count(&["--topic", "1", "--partition", "0"]), 40);
    assert_eq!(count(&["--partition", "1", "--offsets", "10..15"]), 5);
    assert_eq!(count(&["--offsets", "35.."]), 10);
    assert_eq!(count(&["-n", "3"]), 3);
    // The times of the golden records are a few microseconds after the epoch.
    assert_eq!(count(&["--since", "1970-01-01T00:00:01Z"]), 0);
    assert_eq!(count(&["--partition", "0", "--until", "1970-01-01T00:00:00.000001010Z"]), 10);
    let (_, out, _) = run("cat", &dir, &["--partition", "1", "--offsets", "7..8", "--json"]);
    let record = json(&out);
    assert_eq!((&record["offset"], &record["time_ns"], &record["topic_id"]), (&7.into(), &5007.into(), &1.into()));
    assert_eq!(record["value_hex"], "0700000000000000");
    let (_, last, _) = run("tail", &dir, &["--partition", "0", "-n", "2", "--json"]);
    let offsets: Vec<_> = last.lines().map(|line| json(line)["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [38, 39]);
    let (code, _, err) = run("cat", &dir, &["--topic", "orders"]);
    assert_eq!(code, 1);
    assert!(err.contains("no topic \"orders\""), "{err}");
    assert_eq!(run("cat", &dir, &["--offsets", "5..2"]).0, 2);
    assert_eq!(run("cat", &dir, &["--since", "yesterday"]).0, 2);
}

#[test]
fn export_writes_json_lines_and_csv_and_overwrites_nothing() {
    let (folder, dir) = golden();
    let file = folder.path().join("out.csv");
    let (code, out, err) = run("export", &dir, &["--format", "csv", "-o", file.to_str().unwrap()]);
    assert_eq!((code, &*out), (0, ""), "{err}");
    assert!(err.contains("80 records") && err.contains("MB/s"), "{err}");
    let mut reader = csv::Reader::from_path(&file).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!((rows.len(), &rows[79][2]), (80, "39"));
    let (code, _, err) = run("export", &dir, &["-o", file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(err.contains("out.csv"), "{err}");
    let (code, out, _) = run("export", &dir, &["--partition", "0"]);
    assert_eq!((code, out.lines().map(json).count()), (0, 40));
}

#[test]
fn damage_and_a_torn_end_have_codes_of_their_own_and_the_place_is_named() {
    let (_folder, dir) = golden();
    flip(&segment(&dir, 2), 640);
    let before = contents(&dir);
    let (code, out, err) = run("verify", &dir, &["--json"]);
    let damage = &json(&out)["damage"];
    assert_eq!((code, &json(&out)["state"]), (3, &"damaged".into()));
    assert_eq!(damage["segment"], 2);
    assert!(damage["byte"].as_u64().unwrap() <= 640 && damage["position"].as_u64().is_some());
    assert!(err.contains("segment 2 is damaged at byte"), "{err}");
    let (code, out, err) = run("cat", &dir, &["--partition", "0"]);
    assert_eq!(code, 3, "what is before is shown, and then it says so");
    assert!((1..40).contains(&out.lines().count()) && err.contains("segment 2"), "{out}{err}");
    let (code, out, err) = run("repair", &dir, &["--dry-run"]);
    assert_eq!(code, 3);
    assert!(out.contains("segment 2 at byte") && err.contains("without --dry-run"), "{out}{err}");
    assert_eq!(contents(&dir), before);

    let (_folder, dir) = golden();
    for at in (0..fs::metadata(segment(&dir, 2)).unwrap().len()).step_by(7) {
        flip(&segment(&dir, 2), at as usize);
        let (code, out, _) = run("verify", &dir, &["--json"]);
        let expected = if json(&out)["state"] == "stray" { 6 } else { 3 };
        assert_eq!(code, expected, "byte {at} of segment 2 was turned: {out}");
        flip(&segment(&dir, 2), at as usize);
    }
    assert_eq!(run("verify", &dir, &[]).0, 0);

    let last = segment(&dir, 4);
    let mut bytes = fs::read(&last).unwrap();
    bytes.extend([7; 90]);
    fs::write(&last, bytes).unwrap();
    let before = contents(&dir);
    let (code, out, err) = run("verify", &dir, &[]);
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.contains("torn") && err.contains("segment 4"), "{err}");
    assert_eq!(run("cat", &dir, &[]).1.lines().count(), 80, "what is whole is shown");
    assert_eq!(contents(&dir), before);
}

#[test]
fn what_belongs_to_no_record_is_told_apart_from_damage_and_put_right() {
    let (_folder, dir) = golden();
    // A byte in the sector of the header, and an index that is wrong although its checksum matches.
    flip(&segment(&dir, 2), 100);
    let index = segment(&dir, 1).with_extension("index");
    let mut bytes = fs::read(&index).unwrap();
    let end = bytes.len() - 4;
    // One record less in the first partition.
    bytes[92] -= 1;
    let checksum = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&index, bytes).unwrap();
    let before = contents(&dir);
    let (code, out, err) = run("verify", &dir, &[]);
    assert_eq!(code, 6, "{out}{err}");
    assert!(out.contains("segment 2 at byte 100") && out.contains("index of segment 1"), "{out}");
    assert!(err.contains("every record is whole") && err.contains("repair"), "{err}");
    let (code, out, err) = run("repair", &dir, &["--dry-run"]);
    assert_eq!(code, 6, "{out}{err}");
    assert_eq!(contents(&dir), before, "rehearsed, and nothing else");
    let (code, out, err) = run("repair", &dir, &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("2 places"), "{out}");
    let (code, out, err) = run("verify", &dir, &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("80 records"), "{out}");
    let (code, out, _) = run("repair", &dir, &[]);
    assert!(code == 0 && out.contains("nothing was changed"), "{out}");
}

#[test]
fn repair_keeps_what_it_takes_out_and_leaves_a_gap_that_readers_are_told_of() {
    let (_folder, dir) = golden();
    let (code, out, _) = run("repair", &dir, &[]);
    assert_eq!(code, 0);
    assert!(out.contains("nothing was damaged"), "{out}");
    flip(&segment(&dir, 2), 640);
    fs::remove_file(segment(&dir, 3)).unwrap();
    let before = contents(&dir);
    let (code, rehearsed, err) = run("repair", &dir, &["--dry-run", "--json"]);
    assert_eq!(code, 3, "{err}");
    assert_eq!(contents(&dir), before, "rehearsed, and nothing else");
    let (code, out, err) = run("repair", &dir, &["--json"]);
    assert_eq!(code, 0, "{err}");
    let repaired = json(&out);
    for what in ["mended", "lost", "skipped_offsets"] {
        assert_eq!(json(&rehearsed)[what], repaired[what], "all of it is said before it is done");
    }
    let mended = repaired["mended"].as_array().unwrap();
    assert!(mended.len() >= 2 && mended.iter().any(|mended| mended["how"] == "lost"), "{out}");
    assert!(repaired["lost"].as_array().unwrap().iter().any(|lost| lost["topic_id"] == 1), "{out}");
    let copy = mended.iter().find_map(|mended| mended["copy"].as_str()).unwrap();
    assert!(dir.join(copy).exists());
    assert!(run("ls", &dir, &[]).1.contains(copy));
    assert_eq!(run("verify", &dir, &[]).0, 0);
    let (code, out, err) = run("cat", &dir, &["--partition", "0"]);
    assert_eq!(code, 0);
    assert!((1..40).contains(&out.lines().count()) && err.contains("lost to damage"), "{out}{err}");
    open(Arc::new(Disk::new(&dir)), Options::default()).unwrap();
}

/// What belongs to no record beside the damage was left for a second repair.
#[test]
fn one_repair_puts_everything_right() {
    let (_folder, dir) = golden();
    flip(&segment(&dir, 2), 640);
    flip(&segment(&dir, 1), 603);
    let (code, out, err) = run("repair", &dir, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("1 places that belong to no record were put right, too"), "{out}");
    let (code, out, err) = run("verify", &dir, &[]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn what_topics_of_an_engine_have_written_is_shown_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let long = Duration::from_secs(60);
    let engine = Engine::open(&dir).unwrap();
    let orders = engine.topic::<Message>("orders.v2-eu").partitions(2).max_message(64).durable().create().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut producer = orders.producer().create().unwrap();
    for number in 0..6 {
        let text = format!("order {number}");
        producer.send(Record::new(text.as_bytes()).key("acme").partition(number % 2).header("trace", "7")).unwrap();
    }
    ticks.producer().create().unwrap().publish(|tick| *tick = 42).unwrap();
    drop(producer);
    assert!(engine.shutdown(long).is_complete());

    let (code, out, err) = run("stat", &dir, &["--json"]);
    assert_eq!(code, 0, "{err}");
    let stat = json(&out);
    let named: Vec<_> = stat["partitions"].as_array().unwrap().iter().map(|it| it["topic"].as_str().unwrap()).collect();
    assert_eq!(named.iter().filter(|name| **name == "orders.v2-eu").count(), 2, "{out}");
    assert!(named.contains(&"ticks"), "{out}");
    let (_, out, _) = run("stat", &dir, &[]);
    assert_eq!(out.matches("orders.v2-eu").count(), 3, "among the topics, and for each partition: {out}");
    let (code, out, err) = run("cat", &dir, &["--topic", "orders.v2-eu", "--partition", "1"]);
    assert_eq!((code, out.lines().count()), (0, 3), "{out}{err}");
    assert!(out.lines().all(|line| line.starts_with("orders.v2-eu/1 ")), "{out}");
    let (code, out, err) = run("cat", &dir, &["--topic", "orders.v2-eu", "--partition", "1", "--json"]);
    assert_eq!(code, 0, "{err}");
    let records: Vec<_> = out.lines().map(json).collect();
    assert_eq!(records.len(), 3, "{out}");
    assert_eq!((&records[1]["value"], &records[1]["offset"]), (&"order 3".into(), &1.into()), "{out}");
    assert!(records.iter().all(|record| record["key"] == "acme" && record["topic"] == "orders.v2-eu"), "{out}");
    let (_, out, _) = run("tail", &dir, &["--topic", "ticks", "--json"]);
    assert_eq!(json(out.lines().next().unwrap())["value_hex"], "2a00000000000000", "{out}");
    let (code, out, _) = run("verify", &dir, &["--json"]);
    assert_eq!((code, &json(&out)["records"]), (0, &7.into()), "{out}");
    let (code, out, err) = run("export", &dir, &["--format", "csv"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.matches("orders.v2-eu").count(), 6, "{out}");
    for entry in fs::read_dir(&dir).unwrap() {
        let (entry, ours) = (entry.unwrap(), ["segment", "index"]);
        let name = entry.path();
        let known = name.extension().is_some_and(|kind| ours.iter().any(|ours| kind == *ours));
        assert!(known || ["lock", "checkpoint"].iter().any(|file| name.ends_with(file)), "{name:?}");
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name:?}");
    }
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_is_no_journal_or_a_newer_one_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for verb in ["ls", "stat", "cat", "tail", "verify", "repair", "export"] {
        let (code, out, err) = run(verb, &folder.path().join("nowhere"), &[]);
        assert_eq!((code, &*out), (1, ""), "{verb}");
        assert!(err.contains("nowhere"), "{verb}: {err}");
        let (code, _, err) = run(verb, folder.path(), &[]);
        assert_eq!(code, 1, "{verb}");
        assert!(err.contains("there is no journal in"), "{verb}: {err}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
    let (_folder, dir) = golden();
    let mut bytes = fs::read(segment(&dir, 4)).unwrap();
    bytes[8] = 3;
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    fs::write(segment(&dir, 4), bytes).unwrap();
    for verb in ["ls", "verify", "repair"] {
        let (code, _, err) = run(verb, &dir, &[]);
        assert_eq!(code, 5, "{verb}");
        assert!(err.contains("version 3"), "{verb}: {err}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_can_be_read() {
    let (_folder, dir) = golden();
    for entry in fs::read_dir(&dir).unwrap() {
        fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o400)).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).unwrap();
    for verb in ["ls", "stat", "cat", "tail", "verify", "export"] {
        assert_eq!(run(verb, &dir, &[]).0, 0, "{verb}");
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_journal_that_is_being_written_is_followed_and_not_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_size: 8192, ..Options::default() };
    let (mut writer, _) = open(Arc::new(Disk::new(folder.path())), options).unwrap();
    append(&mut writer, 0, "first");
    let (code, _, err) = run("repair", folder.path(), &[]);
    assert_eq!(code, 1);
    assert!(err.contains(&format!("process {}", std::process::id())) && err.contains("is open in"), "{err}");
    let mut tail = slipring(&["tail", "-f"]).arg(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("first"));
    // The records fill several segments, a few of them or many between two looks of the tool.
    let mut next = 1;
    for count in [1, 2, 1, 46, 3, 47, 1, 98] {
        for offset in next..next + count {
            append(&mut writer, offset, &format!("record {offset} {}", "x".repeat(200)));
        }
        for offset in next..next + count {
            let line = lines.next().unwrap().unwrap();
            assert!(line.starts_with(&format!("3/0 {offset} ")), "{line}");
        }
        next += count;
        assert_eq!(run("verify", folder.path(), &[]).0, 0);
        assert_eq!(run("stat", folder.path(), &[]).0, 0);
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    writer.close(1_700_000_001_000_000_000).unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(Arc::new(Disk::new(folder.path())), Options::default()).unwrap();
    let mut frame = FrameBuilder::new();
    for offset in 0..20_000 {
        frame.record(TICKS, offset, None, b"more than a pipe holds, all in all");
    }
    writer.append(&mut frame, 7).unwrap();
    writer.close(8).unwrap();
    for verb in ["cat", "export"] {
        let mut child =
            slipring(&[verb]).arg(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), str::from_utf8(&output.stderr).unwrap()), (Some(0), ""), "{verb}");
    }
}

#[test]
fn help_tells_a_stranger_what_to_type() {
    let help = |arguments: &[&str]| {
        let output = slipring(arguments).arg("--help").output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&[]);
    for word in ["ls", "stat", "cat", "tail", "verify", "repair", "export", "Exit codes:"] {
        assert!(all.contains(word), "{word}: {all}");
    }
    assert!(help(&["cat"]).contains("Examples:"));
    assert!(help(&["repair"]).contains("--dry-run"));
}

#[test]
fn events_of_plain_data_are_exported_as_typed_columns() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let engine = Engine::open(&dir).unwrap();
    let ticks = engine.topic::<[i64; 2]>("ticks").durable().create().unwrap();
    let words = engine.topic::<Message>("words").durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    (0..3).for_each(|index| _ = producer.publish(|tick| *tick = [index - 1, index << 33]).unwrap());
    words.producer().create().unwrap().send(Record::new("word")).unwrap();
    drop(producer);
    assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
    let export = |topic: &str, format: &str, columns: &str| {
        run("export", &dir, &["--topic", topic, "--format", format, "--columns", columns])
    };
    let (code, out, err) = export("ticks", "csv", "price:i64,low:u32,high:u32");
    assert_eq!(code, 0, "{err}");
    let rows: Vec<Vec<String>> = out.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    assert_eq!(rows[0], ["topic", "partition", "offset", "time_ns", "price", "low", "high"]);
    assert_eq!(
        (&rows[1][4..], &rows[3][4..]),
        (&["-1".to_owned(), "0".into(), "0".into()][..], &["1".to_owned(), "0".into(), "4".into()][..])
    );
    let (code, out, err) = export("ticks", "jsonl", "price:i64,_:8");
    assert_eq!(code, 0, "{err}");
    assert_eq!(json(out.lines().next().unwrap())["event"], serde_json::json!({ "price": -1 }));
    for (topic, columns, told) in
        [("ticks", "price:i64", "has 16 bytes, and the columns have 8"), ("words", "price:i64", "has messages")]
    {
        let (code, out, err) = export(topic, "csv", columns);
        assert!(code == 1 && out.is_empty() && err.contains(told), "{out}{err}");
    }
    assert_eq!(export("ticks", "csv", "price:i128").0, 2);
    assert_eq!(run("export", &dir, &["--columns", "price:i64"]).0, 2, "which topic?");
}

#[test]
fn a_compacted_journal_is_shown_as_such_verified_copied_and_printed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let options = Options { segment_size: 64 << 10, ..Options::default() };
    let engine = Engine::builder().journal(&dir).journal_options(options).build().unwrap();
    let by_key = slipring::topic::Compaction::by_key();
    let prices = engine.topic::<Message>("prices").durable().compact(by_key).create().unwrap();
    let mut feed = prices.producer().acknowledge(slipring::Level::Durable).create().unwrap();
    (0..1000).for_each(|at| _ = feed.send(Record::new(&format!("{at:>200}")).key(["a", "b"][at % 2])).unwrap());
    let removed = engine.compact().unwrap().removed;
    assert!(removed > 500);

    let (code, out, _) = run("stat", &dir, &[]);
    assert_eq!(code, 0);
    assert!(out.contains("compacted    topic prices: by key, messages without a value go after 86400s"), "{out}");
    let (_, out, _) = run("stat", &dir, &["--json"]);
    let stat = json(&out);
    assert_eq!(
        (&stat["compacted"][0]["topic"], stat["compacted"][0]["topic_id"].as_u64()),
        (&"prices".into(), Some(1))
    );
    assert_eq!(stat["partitions"][0]["records"], 1000 - removed);
    let (code, out, _) = run("cat", &dir, &["--topic", "prices", "--json"]);
    let offsets: Vec<_> = out.lines().map(|line| json(line)["offset"].as_u64().unwrap()).collect();
    assert_eq!((code, offsets.len() as u64), (0, 1000 - removed));
    assert!(offsets.is_sorted() && offsets.ends_with(&[998, 999]));

    drop((feed, prices));
    assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
    let copied = folder.path().join("copied");
    assert_eq!(run("copy", &dir, &[copied.to_str().unwrap()]).0, 0);
    for dir in [&dir, &copied] {
        assert_eq!(run("verify", dir, &[]).0, 0);
    }
    let converted = folder.path().join("converted");
    assert_eq!(run("convert", &dir, &[converted.to_str().unwrap()]).0, 0);
    let (_, again, _) = run("cat", &converted, &["--topic", "prices", "--json"]);
    let offsets_again: Vec<_> = again.lines().map(|line| json(line)["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets_again, offsets);
}
