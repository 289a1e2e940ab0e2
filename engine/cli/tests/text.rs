//! Text that is not the program's own: names, reasons and values in a journal that another program wrote, causes from a
//! user's handler, the answer of a socket. None of it may be more than text on a terminal or in a log.

use slipring::journal::storage::Disk;
use slipring::journal::{FrameBuilder, Options, open};
use slipring::{Engine, Message, Record, subscriber::StartAt, text};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Clears the screen, by C0 and by C1; forges a line; writes from right to left; forges a line for a reader that knows
/// Unicode line ends.
const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\nFORGED\u{202e}gpj\u{2028}FORGED";

/// Text that can be shown, with escapes.
const OVERRIDE: &str = "a\\b\nFORGED\u{202e}gpj";

/// A name as long as the hostile one. It stands in for that until the journal is written.
fn stand_in(letter: char) -> String {
    letter.to_string().repeat(HOSTILE.len() + 1)
}

fn hostile(letter: char) -> String {
    format!("{HOSTILE}{letter}")
}

/// Fails if `shown` has anything but text and line ends, or a line that does not begin as one of the program's own.
fn check(shown: &str, of: &str) {
    assert!(!shown.chars().any(|c| c != '\n' && text::is_hidden(c)), "{of}: {shown:?}");
    assert!(!shown.lines().any(|line| line.starts_with("FORGED")), "{of}: {shown:?}");
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    let Output { status, stdout, stderr } = command.args(arguments).output().unwrap();
    let told = format!("slipring {arguments:?}");
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    check(&stdout, &told);
    check(&stderr, &told);
    (status.code().unwrap(), stdout, stderr)
}

fn replaced(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for letter in ['T', 'Q', 'G', 'X'] {
        let (from, to) = (stand_in(letter), hostile(letter));
        while let Some(at) = bytes.windows(from.len()).position(|part| part == from.as_bytes()) {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

/// A journal whose topic, queue, group, key, header, value and reasons are hostile. With `named`, topic, queue and group have
/// plain names.
fn journal(folder: &Path, named: bool) -> PathBuf {
    let dir = folder.join("journal");
    let engine = Engine::open(&dir).unwrap();
    let topic = engine.topic::<Message>(&stand_in('T')).max_message(4096).durable().create().unwrap();
    let mut worker = topic.queue(stand_in('Q')).max_attempts(1).dead_letter("dead").join().unwrap();
    let mut member = topic.group(stand_in('G')).start(StartAt::Earliest).join().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for value in [HOSTILE, "0xff", "=1+1"] {
        producer.send(Record::new(value).key(OVERRIDE).header(HOSTILE, HOSTILE)).unwrap();
    }
    let last = producer.send(Record::new(&b"\xff"[..]).key("k")).unwrap();
    last.wait(slipring::Level::Durable).unwrap();
    worker.receive(LONG).unwrap().unwrap().nack(Duration::ZERO, HOSTILE).unwrap();
    worker.receive(LONG).unwrap().unwrap().leave();
    let mut read = 0;
    while read < 4 {
        let batch = member.poll(LONG).unwrap().unwrap();
        read += batch.len();
        batch.commit().unwrap();
    }
    drop((producer, worker, member));
    engine.shutdown(LONG);
    if named {
        return dir;
    }
    let (mut writer, _) = open(Arc::new(Disk::new(&dir)), Options::default()).unwrap();
    let mut frame = FrameBuilder::new();
    for kind in 1..=16 {
        for (key, value) in writer.state().values(kind) {
            let (new_key, new_value) = (replaced(key), replaced(value));
            if (&*new_key, &*new_value) != (key, value) {
                frame.delete(kind, key);
                frame.put(kind, &new_key, &new_value);
            }
        }
    }
    writer.append(&mut frame, 1).unwrap();
    writer.close(1).unwrap();
    std::fs::write(dir.join(format!("{HOSTILE}.bin")), "").unwrap();
    dir
}

#[test]
fn nothing_in_a_journal_reaches_the_terminal_as_more_than_text() {
    let folder = tempfile::tempdir().unwrap();
    let dir = journal(folder.path(), false);
    let dir = dir.to_str().unwrap();
    let (topic, queue, group) = (hostile('T'), hostile('Q'), hostile('G'));
    let of = [dir, &*topic, &*queue];
    let calls: [(&[&str], Vec<&str>); 16] = [
        (&["journal", "ls"], vec![dir]),
        (&["journal", "stat"], vec![dir]),
        (&["journal", "cat"], vec![dir]),
        (&["journal", "tail"], vec![dir]),
        (&["journal", "verify"], vec![dir]),
        (&["journal", "repair", "--dry-run"], vec![dir]),
        (&["group", "ls"], vec![dir]),
        (&["group", "describe"], vec![dir, &group]),
        (&["group", "reset", "--to", "earliest", "--dry-run"], vec![dir, &group]),
        (&["topic", "ls"], vec![dir]),
        (&["topic", "describe"], vec![dir, &topic]),
        (&["queue", "ls"], vec![dir]),
        (&["queue", "purge", "--dry-run"], of.to_vec()),
        (&["queue", "describe"], of.to_vec()),
        (&["queue", "peek"], of.to_vec()),
        (&["queue", "peek", "--dead"], of.to_vec()),
    ];
    for (verb, rest) in &calls {
        let call: Vec<_> = verb.iter().chain(rest).copied().collect();
        let (code, out, err) = run(&call);
        assert_eq!((code, &*err), (0, ""), "{verb:?}: {out}");
        let json = run(&[&call[..], &["--json"]].concat()).1;
        assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{verb:?}: {json}");
    }
    // JSON has the whole names.
    let json = |call: &[&str]| serde_json::from_str::<serde_json::Value>(&run(call).1).unwrap();
    assert_eq!(json(&["queue", "ls", dir, "--json"])["queues"][0]["queue"], queue);
    assert_eq!(json(&["group", "ls", dir, "--json"])["groups"][0]["group"], group);
    assert_eq!(json(&["journal", "stat", dir, "--json"])["partitions"][0]["topic"], topic);
    let shown = text::line(HOSTILE).to_string();
    // Errors list the names that the journal has.
    for call in [
        &["group", "describe", dir, HOSTILE][..],
        &["topic", "describe", dir, HOSTILE],
        &["queue", "describe", dir, &topic, HOSTILE],
    ] {
        let (code, out, err) = run(call);
        assert_eq!((code, &*out, err.contains(&shown)), (1, "", true), "{err}");
    }
    assert_eq!(run(&["group", "reset", dir, &group, "--to", "earliest"]).0, 0);
    assert_eq!(run(&["group", "forget", dir, &group]).0, 0);
    assert_eq!(run(&["queue", "purge", dir, &topic, &queue]).0, 0);
    assert_eq!(run(&["journal", "ls", &format!("{dir}{HOSTILE}")]).0, 1);
}

#[test]
fn the_reason_of_a_dead_letter_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let dir = journal(folder.path(), true);
    let (topic, queue) = (stand_in('T'), stand_in('Q'));
    let of = ["queue", "peek", dir.to_str().unwrap(), &topic, &queue, "--dead"];
    let letters = run(&of).1;
    let (reason, key) = (text::line(HOSTILE), text::value(OVERRIDE.as_bytes()));
    assert!(letters.contains(&format!("after 1 attempts, {reason}: {key} = 0x")), "{letters}");
    let letter: serde_json::Value = serde_json::from_str(&run(&[&of[..], &["--json"]].concat()).1).unwrap();
    assert_eq!((&letter["reason"], &letter["key"]), (&HOSTILE.into(), &OVERRIDE.into()));
}

#[test]
fn bytes_and_text_can_be_told_apart_and_cells_guarded() {
    let folder = tempfile::tempdir().unwrap();
    let dir = journal(folder.path(), false);
    let dir = dir.to_str().unwrap();
    let topic = hostile('T');
    let of = ["--topic", &topic];
    let shown = run(&[&["journal", "cat", dir], &of[..]].concat()).1;
    let ends: Vec<_> = shown.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(ends[1..], [r"\u{30}xff", "=1+1", "0xff"], "{shown}");
    let shown = run(&[&["journal", "cat", dir, "--json"], &of[..]].concat()).1;
    let rows: Vec<serde_json::Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows[0]["value_hex"], text::hex(HOSTILE.as_bytes()).to_string(), "control characters are no text");
    assert_eq!(rows[0]["key"], OVERRIDE);
    assert_eq!(rows[0]["headers"][0]["name_hex"], text::hex(HOSTILE.as_bytes()).to_string());
    assert_eq!((&rows[1]["value"], &rows[3]["value_hex"]), (&"0xff".into(), &"ff".into()));
    let values = |more: &[&str]| {
        let shown = run(&[&["journal", "export", dir, "--format", "csv"], &of[..], more].concat()).1;
        let mut reader = csv::Reader::from_reader(shown.as_bytes());
        reader.records().map(|row| row.unwrap()[6].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&[])[2], "=1+1");
    assert_eq!(values(&["--guard-formulas"])[2], "'=1+1");
    assert_eq!(values(&["--guard-formulas"])[3], "0xff");
}

#[test]
fn a_socket_that_is_no_engines_says_nothing_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let name = serde_json::to_string(HOSTILE).unwrap();
    let metrics = || {
        let engine = Engine::builder().build().unwrap();
        let topic = engine.topic::<u64>("ticks").capacity(8).create().unwrap();
        let _reader = topic.subscribe("slow").poll().unwrap();
        let metrics = serde_json::to_string(&engine.metrics()).unwrap();
        metrics.replace("\"ticks\"", &name).replace("\"slow\"", &name)
    };
    let answers = [metrics(), metrics(), HOSTILE.replace('\n', ""), HOSTILE.to_owned()];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut connection, _) = listener.accept().unwrap();
            let _ = connection.read(&mut [0; 64]).unwrap();
            connection.write_all(answer.as_bytes()).unwrap();
        }
    });
    let socket = ["top", "--socket", path.to_str().unwrap()];
    let (code, shown, _) = run(&[&socket[..], &["--once"]].concat());
    assert!(code == 0 && shown.contains(&text::line(HOSTILE).to_string()), "{shown}");
    run(&[&socket[..], &["--json"]].concat());
    run(&[&socket[..], &["--prometheus"]].concat());
    assert_eq!(run(&socket).0, 1);
    server.join().unwrap();
}
