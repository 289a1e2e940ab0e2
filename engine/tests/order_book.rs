//! The order book example on a small feed of our own. The whole program runs in this process, as the
//! function [`order_book::run_cli`], so every case is quick, and a panic or a hang is this test's.
//!
//! The feed in `tests/data/orders.csv.gz` is made by `tests/data/fixture.rs`. To change it, change
//! that code and run
//! `SLIPRING_WRITE_FIXTURE=1 cargo test -p slipring --test order_book the_fixture_is`.

#[path = "data/fixture.rs"]
mod fixture;
#[allow(dead_code, reason = "only the program itself calls its `main`")]
#[path = "../examples/order_book/main.rs"]
mod order_book;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use order_book::order::OrderSlot;
use order_book::stages::{self, BookStage, DepthStage, SignalStage, TapeStage};
use order_book::{BAD_INPUT, FAILED, KNOWN, Output, SOUND, feed, fetch};
use serde_json::Value;
use slipring::Wait;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

struct Ran {
    code: u8,
    stdout: String,
    stderr: String,
}

fn run<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Ran {
    let (stdout, stderr) = (Captured::default(), Captured::default());
    let mut line = vec!["order_book".into()];
    line.extend(args.into_iter().map(|arg| arg.as_ref().into()));
    let code = order_book::run_cli(line, &Output::new(stdout.clone()), &Output::new(stderr.clone()), false);
    Ran { code, stdout: stdout.text(), stderr: stderr.text() }
}

/// Runs over the feed at `data` and gives the JSON.
fn run_json(folder: &Path, data: &str, args: &[&str]) -> (Ran, Value) {
    let json = folder.join("run.json");
    let fixed = ["--data", data, "--json", json.to_str().unwrap()];
    let ran = run(fixed.iter().chain(args));
    assert_eq!(ran.code, SOUND, "{args:?}: {}", ran.stderr);
    let text = fs::read_to_string(&json).unwrap();
    (ran, serde_json::from_str(&text).unwrap())
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path: PathBuf = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_string()
}

fn put_fixture(folder: &Path) -> String {
    put(folder, "orders.csv.gz", fetch::FIXTURE)
}

/// The fixture's first rows, for runs that are slow by their nature.
fn put_head(folder: &Path, rows: usize) -> String {
    let text: String = fixture::csv().split_inclusive('\n').take(rows + 1).collect();
    put(folder, "head.csv", text)
}

/// What the stages compute when they run one after the other, without any topic.
fn hash_without_topics(path: &str) -> String {
    let feed = feed::read_file(Path::new(path)).unwrap();
    let (mut book, mut depth) = (BookStage::default(), DepthStage::default());
    let (mut signal, mut tape) = (SignalStage::default(), TapeStage::default());
    for order in feed.orders {
        let slot = OrderSlot { order, ..OrderSlot::default() };
        if let Some(quote) = book.handle(&slot) {
            tape.handle(&quote);
        }
        depth.handle(&slot);
        signal.handle(&slot);
    }
    format!("{:016x}", stages::state_hash(&book, &depth, &signal, &tape))
}

#[test]
fn the_fixture_is_what_its_code_makes() {
    let csv = fixture::csv();
    if std::env::var_os("SLIPRING_WRITE_FIXTURE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/orders.csv.gz");
        let mut encoder = GzEncoder::new(File::create(path).unwrap(), Compression::best());
        encoder.write_all(csv.as_bytes()).unwrap();
        encoder.finish().unwrap();
        return;
    }
    let mut committed = String::new();
    MultiGzDecoder::new(fetch::FIXTURE).read_to_string(&mut committed).unwrap();
    assert!(csv == committed, "the committed fixture is another one");
    let feed = feed::read(fetch::FIXTURE, fetch::FIXTURE_NAME, true).unwrap();
    let [_, known] = KNOWN;
    assert_eq!(known.fingerprint, feed.fingerprint, "{:x}", feed.fingerprint);
    assert!(feed.snapshot > 100 && feed.unpriced > 10 && feed.empty > 100);
}

/// Order, loss, repetition and state are the same whatever the rings and the waiting are like. A
/// stage that overtakes another, a slot that is overwritten too early or a wake-up that is missing
/// shows here.
#[test]
fn every_wait_strategy_and_capacity_gives_the_same_state() {
    let folder = folder();
    let whole = put_fixture(folder.path());
    // Threads that spin without ever giving way need a turn of the scheduler for each hand-over when
    // there are more of them than cores: a whole feed through two slots would take minutes.
    let head = put_head(folder.path(), 200);
    let [_, known] = KNOWN;
    assert_eq!(hash_without_topics(&whole), format!("{:016x}", known.state_hash));
    let head_hash = hash_without_topics(&head);
    for wait in Wait::NAMES {
        for capacity in ["2", "64", "4096"] {
            let short = capacity == "2" && wait.ends_with("spin");
            for _run in 0..2 {
                let data = if short { &head } else { &whole };
                let args = ["--wait", wait, "--capacity", capacity];
                let (ran, json) = run_json(folder.path(), data, &args);
                let (events, hash) = match short {
                    true => (200, head_hash.clone()),
                    false => (known.events, format!("{:016x}", known.state_hash)),
                };
                assert_eq!(json["events"], events, "{args:?}");
                for counter in ["lost", "duplicated", "crossed"] {
                    assert_eq!(json[counter], 0, "{counter} {args:?}");
                }
                assert_eq!(json["state_hash"], hash, "{args:?}");
                assert!(ran.stdout.contains("Sound: "), "{}", ran.stdout);
            }
        }
    }
}

#[test]
fn the_json_has_the_agreed_keys_and_null_where_samples_are_few() {
    let folder = folder();
    let data = put_fixture(folder.path());
    let (ran, json) = run_json(folder.path(), &data, &[]);
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = [
        "events",
        "lost",
        "duplicated",
        "crossed",
        "batches",
        "state_hash",
        "rate",
        "p50",
        "p90",
        "p99",
        "p999",
        "max",
    ];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!(json["batches"], 1_558);
    // 2,002 samples: 200 lie beyond p90, 20 beyond p99.
    for (key, there) in [("p50", true), ("p90", true), ("p99", false), ("p999", false), ("max", true)] {
        assert_eq!(json[key].is_u64(), there, "{key}: {}", json[key]);
        assert_eq!(json[key].is_null(), !there, "{key}: {}", json[key]);
    }
    assert!(json["p50"].as_u64() <= json["p90"].as_u64());
    assert!(json["p90"].as_u64() <= json["max"].as_u64());
    assert!(ran.stdout.contains("n/a"), "{}", ran.stdout);
    assert!(ran.stdout.contains(json["state_hash"].as_str().unwrap()));
}

#[test]
fn the_feed_can_be_paced_by_its_own_gaps() {
    let folder = folder();
    let data = put_head(folder.path(), 300);
    let (ran, json) = run_json(folder.path(), &data, &["--speed", "1000x"]);
    assert_eq!(json["state_hash"], hash_without_topics(&data));
    assert!(ran.stdout.contains("speed 1000x"), "{}", ran.stdout);
    // 300 rows span some 3 s of the feed, so at this speed they can't take less than 3 ms.
    assert!(json["rate"].as_u64().unwrap() < 100_000, "{}", json["rate"]);
}

#[test]
fn verbose_names_the_consumer_of_every_message() {
    let folder = folder();
    let data = put_head(folder.path(), 200);
    let ran = run(["--data", &data, "--verbose"]);
    assert_eq!(ran.code, SOUND, "{}", ran.stderr);
    for stage in ["book", "depth", "signal"] {
        let start = format!("{stage} received #");
        let lines = ran.stdout.lines().filter(|line| line.starts_with(&start));
        assert_eq!(lines.count(), 200, "{stage}");
    }
    assert!(ran.stdout.contains("tape received #0 1700000000000 bid "));
    assert!(ran.stdout.contains("book received #0 1700000000000 created bid 1.86000000 @ 9999.00\n"));
}

/// Nothing may be reported of a feed that is refused: no table, no JSON.
fn refused(data: &str) -> String {
    let folder = folder();
    let json = folder.path().join("run.json");
    let ran = run(["--data", data, "--json", json.to_str().unwrap()]);
    assert_eq!(ran.code, BAD_INPUT, "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert!(!json.exists());
    assert!(ran.stderr.starts_with(&format!("order_book: {data}: ")), "{}", ran.stderr);
    ran.stderr
}

#[test]
fn bad_input_is_refused_with_file_line_and_cause() {
    let folder = folder();
    let put = |name: &str, bytes: &[u8]| put(folder.path(), name, bytes);
    let csv = fixture::csv();
    let missing = folder.path().join("missing.csv.gz");
    assert!(refused(missing.to_str().unwrap()).contains("can't be opened"));
    assert!(refused(folder.path().to_str().unwrap()).contains("can't be opened"));
    assert!(refused(&put("plain.csv.gz", csv.as_bytes())).contains("not a gzip file"));
    assert!(refused(&put("empty.csv.gz", b"")).contains("not a gzip file"));
    let half = &fetch::FIXTURE[..fetch::FIXTURE.len() / 2];
    let found = refused(&put("half.csv.gz", half));
    assert!(found.contains(": line ") && found.contains("truncated"), "{found}");
    let columns = csv.replace("volume", "amount");
    assert!(refused(&put("columns.csv", columns.as_bytes())).contains("line 1: wrong columns"));
    // The last line but one: everything before it was good, and still nothing is reported.
    let rows = csv.lines().count();
    let mut lines: Vec<_> = csv.lines().collect();
    lines[rows - 2] = "1,2,3,4,five,created,bid";
    let found = refused(&put("line.csv", lines.join("\n").as_bytes()));
    let wanted = format!("line {}: column `volume`: `five`", rows - 1);
    assert!(found.contains(&wanted), "{found}");
    let binary = [fetch::FIXTURE, b"\x00\xff\xfe"].concat();
    refused(&put("binary.csv", &binary[3..]));
}

#[test]
fn bad_arguments_are_usage_errors() {
    for (args, said) in [
        (&["--speed", "-5x"][..], "a whole number from 1 on"),
        (&["--speed", "--verbose"], "--speed"),
        (&["--pin", "-1"], "neither `auto`"),
        (&["--pin", "99999"], "--pin: core 99999 is none of those that this process may use: "),
    ] {
        let ran = run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}");
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    for args in [
        &["--speed", "fast"][..],
        &["--speed", "0x"],
        &["--wait", "never"],
        &["--capacity", "3"],
        &["--capacity", "0"],
        &["--pin", "x"],
        &["--pin", "0,1,2,3,4,5"],
        &["--fault", "panic:nobody@1"],
        &["--json", "no/such/folder/run.json"],
        &["--unknown"],
    ] {
        let ran = run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
    let help = run(["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("--capacity") && !help.stdout.contains("--fault"));
}

#[test]
fn a_handler_that_panics_ends_the_run_with_its_name_and_message() {
    let folder = folder();
    let data = put_fixture(folder.path());
    let json = folder.path().join("run.json");
    for stage in ["book", "depth", "signal", "tape"] {
        for capacity in ["2", "4096"] {
            let fault = format!("panic:{stage}@150");
            let ran =
                run(["--data", &data, "--fault", &fault, "--capacity", capacity, "--json", json.to_str().unwrap()]);
            assert_eq!(ran.code, FAILED, "{fault}: {}", ran.stdout);
            let wanted = format!("{stage} broke on purpose at message 150");
            assert!(ran.stderr.contains(&wanted), "{fault}: {}", ran.stderr);
            assert!(ran.stderr.contains(&format!("`{stage}`")), "{fault}: {}", ran.stderr);
            assert!(!ran.stdout.contains("state hash"), "{}", ran.stdout);
            assert!(!json.exists());
        }
    }
}

#[test]
fn without_network_or_pip_the_fixture_stands_in_and_says_so() {
    let folder = folder();
    let cache = folder.path().to_str().unwrap();
    let ran = run(["--cache", cache, "--python", "no-such-python"]);
    assert_eq!(ran.code, SOUND, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("The real feed is not to be had: `no-such-python`, which `--python` names"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("small fixture"), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("Small fixture"), "{}", ran.stdout);
    assert!(ran.stdout.contains("as the small fixture must give it"), "{}", ran.stdout);
}

/// The rule evicts stale snapshot orders only. What live orders cross is the feed's own, and counted.
#[test]
fn a_feed_that_is_crossed_by_itself_is_counted() {
    let folder = folder();
    let rows = [
        "id,timestamp,exchange_timestamp,price,volume,action,direction",
        "1,0,0,1.0,1.0,created,bid",
        "2,1,1,10.0,1.0,created,bid",
        "3,2,2,9.0,1.0,created,ask",
        "4,3,3,8.0,1.0,created,bid",
        "2,4,4,10.0,0.0,deleted,bid",
    ];
    let data = put(folder.path(), "crossed.csv", rows.join("\n"));
    let (ran, json) = run_json(folder.path(), &data, &[]);
    assert_eq!((json["crossed"].as_u64(), json["batches"].as_u64()), (Some(2), Some(4)));
    assert!(ran.stdout.contains("Live orders cross each other"), "{}", ran.stdout);
}

/// Not a test: what the one below kills.
#[test]
#[ignore = "started by the test below"]
fn killed_child() {
    let journal = std::env::var("ORDER_BOOK_JOURNAL").expect("started by the test below");
    let feed = std::env::var("ORDER_BOOK_FEED").expect("started by the test below");
    let stdout = Output::new(io::stdout());
    let args = ["order_book", "--data", &feed, "--journal", &journal, "--verbose", "--capacity", "64"];
    let code = order_book::run_cli(args.map(Into::into), &stdout, &stdout, false);
    assert_eq!(code, SOUND);
}

/// Each run is killed at another point and run again; the last one ends as if it had never been broken: the state's hash
/// is known, and `SOUND` says that it came out so.
#[test]
fn a_run_that_is_killed_goes_on_from_its_journal_to_the_same_end() {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    for round in 0..10_usize {
        let folder = folder();
        let feed = put_fixture(folder.path());
        let journal = folder.path().join("journal").to_str().unwrap().to_owned();
        for kill in 0..1 + round % 2 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "killed_child", "--ignored", "--nocapture"])
                .env("ORDER_BOOK_JOURNAL", &journal)
                .env("ORDER_BOOK_FEED", &feed)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // Another point each time; a failure shows it.
            let enough = 100 + (RandomState::new().build_hasher().finish() % 3000) as usize;
            println!("round {round}, kill {kill}: after {enough} lines");
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert_eq!(lines.take(enough).filter(Result::is_ok).count(), enough, "killed in the middle");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let (_, json) = run_json(folder.path(), &feed, &["--journal", &journal]);
        let (_, unbroken) = run_json(folder.path(), &feed, &[]);
        assert_eq!(json["state_hash"], unbroken["state_hash"], "round {round}");
        assert!(json["state_hash"].is_string() || json["state_hash"].is_number());
    }
}
