//! What can be seen of an engine: the snapshot, its formats and the socket.

use crate::busy::busy;
use slipring::{
    Engine, EngineError,
    clock::{Clock, ManualClock, Tick, Timestamp},
    metrics::{Metrics, ObserveError},
};
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Stands still in one reading by the thread of this name, after so many others.
struct Stuck {
    clock: ManualClock,
    before: AtomicUsize,
    begun: Mutex<mpsc::Sender<()>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

const LOOKS: &str = "looks";

impl Stuck {
    fn pass(&self) {
        if std::thread::current().name() == Some(LOOKS) && self.before.fetch_sub(1, SeqCst) == 0 {
            self.begun.lock().unwrap().send(()).unwrap();
            let _ = self.go_on.lock().unwrap().recv();
        }
    }
}

impl Clock for Stuck {
    fn now(&self) -> Duration {
        self.pass();
        self.clock.now()
    }
    fn wall(&self) -> Timestamp {
        self.pass();
        self.clock.wall()
    }
    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        self.clock.watch(tick)
    }
}

/// A snapshot that goes no further, wherever it reads the time, is in nobody's way.
#[test]
fn a_snapshot_holds_nobody_up() {
    // The world's time for the lags and the engine's for the age, of each of two topics.
    (0..4).for_each(holds_nobody_up_in_reading);
}

fn holds_nobody_up_in_reading(before: usize) {
    let (begun, begins) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let (before, clock) = (AtomicUsize::new(before), ManualClock::new());
    let clock = Stuck { clock, before, begun: Mutex::new(begun), go_on: Mutex::new(goes_on) };
    let engine = Engine::builder().clock(clock).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(4).timestamps().create().unwrap();
    let jobs = engine.topic::<u64>("jobs").capacity(4).create().unwrap();
    let mut tape = ticks.subscribe("tape").poll().unwrap();
    let mut member = ticks.group("sums").join().unwrap();
    let mut worker = jobs.queue("q").join().unwrap();
    let (mut to_ticks, mut to_jobs) = (ticks.producer().create().unwrap(), jobs.producer().create().unwrap());
    let (done, all_done) = mpsc::channel();
    let work = {
        let engine = engine.clone();
        move || {
            // More than the rings hold.
            for round in 0..20 {
                to_ticks.publish(|tick| *tick = round).unwrap();
                to_jobs.publish(|job| *job = round).unwrap();
                assert_eq!((&mut tape.poll(LONG).unwrap().unwrap()).into_iter().count(), 1);
                member.poll(LONG).unwrap().unwrap().commit().unwrap();
                worker.receive(LONG).unwrap().unwrap().ack().unwrap();
            }
            // Comings and goings, too.
            drop(ticks.subscribe("late").poll().unwrap());
            drop((ticks.group("late").join().unwrap(), jobs.queue("late").join().unwrap()));
            ticks.add_partitions(1).unwrap();
            engine.topic::<u64>("more").create().unwrap();
            engine.delete("more").unwrap();
            done.send(()).unwrap();
            (tape, member, worker, to_ticks, to_jobs)
        }
    };
    let looks = {
        let engine = engine.clone();
        std::thread::Builder::new().name(LOOKS.to_owned()).spawn(move || engine.metrics()).unwrap()
    };
    begins.recv_timeout(LONG).expect("a snapshot reads the time");
    let work = std::thread::spawn(work);
    let in_time = all_done.recv_timeout(LONG);
    drop(go_on);
    in_time.expect("the snapshot is in somebody's way");
    let _held = work.join().unwrap();
    assert!(looks.join().unwrap().topics.len() >= 2);
}

#[test]
fn a_snapshot_has_lag_in_events_and_time_batches_and_the_high_water() {
    let (engine, clock, _held) = busy(None);
    let metrics = engine.metrics();
    let ticks = metrics.topic("ticks").unwrap();
    assert_eq!((ticks.published, ticks.fill, ticks.age), (6, 3, Duration::from_secs(3)));
    let slow = ticks.consumer("slow").unwrap();
    assert_eq!((slow.lag, slow.lag_time), (3, Some(Duration::from_secs(1))));
    assert_eq!((slow.batches, slow.largest_batch), (2, 2));
    // Once seen, the high water stays.
    assert_eq!(ticks.high_water, 3);
    let producer = engine.get::<u64, slipring::producer::Multi>("ticks").unwrap().producer().create();
    let mut producer = producer.unwrap();
    producer.publish_batch(5, |_, _| ()).unwrap();
    assert!(producer.try_publish(|_| ()).is_err());
    assert_eq!(engine.metrics().topic("ticks").unwrap().high_water, 8, "it was found full");
    let jobs = metrics.topic("jobs").unwrap();
    let queue = jobs.queue("resize").unwrap();
    assert_eq!((queue.unread, queue.leased, queue.dead, queue.delivered), (1, 1, 1, 2));
    assert_eq!(jobs.consumer("resize").unwrap().lag_time, None, "the topic notes no times");
    clock.advance(Duration::from_secs(1));
    let later = engine.metrics();
    let slow = later.topic("ticks").unwrap().consumer("slow").unwrap();
    assert_eq!(slow.lag_time, Some(Duration::from_secs(2)));
    assert!(metrics.to_string().contains("queue resize: unread 1"));
}

/// They were all zero, whatever the members read.
#[test]
fn the_batches_that_members_of_a_group_get_are_counted() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let mut member = ticks.group("sums").join().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    for events in [3, 1] {
        producer.publish_batch(events, |_, _| ()).unwrap();
        member.poll(Duration::ZERO).unwrap().unwrap().commit().unwrap();
    }
    assert_eq!(member.poll(Duration::ZERO).unwrap().unwrap().len(), 0);
    let metrics = ticks.metrics();
    let sums = metrics.consumer("group:sums").unwrap();
    assert_eq!((sums.batches, sums.largest_batch), (2, 3));
}

/// A strict reader of the text format: HELP and TYPE once before their samples, samples of a name together, labels quoted.
fn read(text: &str) -> HashMap<String, f64> {
    assert!(text.ends_with('\n'));
    let (mut found, mut names, mut present) = (HashMap::new(), HashSet::new(), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(!words.is_empty());
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(["counter", "gauge"].contains(&kind));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            name.clone_into(&mut present);
            assert!(lines.peek().unwrap().starts_with(name), "{name} has samples");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap();
            assert_eq!(name, present);
            assert!(labels.ends_with("\"}") && labels.starts_with("topic=\""), "{line}");
            assert!(found.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} twice");
        }
    }
    found
}

#[test]
fn prometheus_text_is_read_back_by_a_strict_reader() {
    let (engine, _clock, _held) = busy(None);
    let text = engine.metrics().to_prometheus();
    let found = read(&text);
    assert_eq!(found["slipring_consumer_lag{topic=\"ticks\",consumer=\"slow\"}"], 3.0);
    assert_eq!(found["slipring_consumer_lag_seconds{topic=\"ticks\",consumer=\"slow\"}"], 1.0);
    assert_eq!(found["slipring_partition_next_offset{topic=\"jobs\",partition=\"0\"}"], 2.0);
    assert_eq!(found["slipring_queue_dead_total{topic=\"jobs\",queue=\"resize\"}"], 1.0);
    assert!(!found.keys().any(|it| it.starts_with("slipring_consumer_lag_seconds{topic=\"jobs\"")));
    assert!(Metrics::to_prometheus(&Engine::builder().build().unwrap().metrics()).is_empty());
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<HashMap<String, f64>>>);

struct Number(Recorder, String);

impl Number {
    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl metrics::CounterFn for Number {
    fn increment(&self, _: u64) {
        panic!("a snapshot is absolute");
    }
    fn absolute(&self, value: u64) {
        self.set(value as f64);
    }
}

impl metrics::GaugeFn for Number {
    fn increment(&self, _: f64) {
        panic!("a snapshot is absolute");
    }
    fn decrement(&self, _: f64) {
        panic!("a snapshot is absolute");
    }
    fn set(&self, value: f64) {
        Number::set(self, value);
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::from_arc(Arc::new(Number(self.clone(), series(key))))
    }
    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::from_arc(Arc::new(Number(self.clone(), series(key))))
    }
    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

fn series(key: &metrics::Key) -> String {
    let labels: Vec<_> = key.labels().map(|label| format!("{}=\"{}\"", label.key(), label.value())).collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

#[test]
fn the_metrics_crate_gets_the_same_numbers_under_the_same_names() {
    let (engine, _clock, _held) = busy(None);
    let (recorder, snapshot) = (Recorder::default(), engine.metrics());
    metrics::with_local_recorder(&recorder, || snapshot.record());
    assert_eq!(*recorder.0.lock().unwrap(), read(&snapshot.to_prometheus()));
}

fn ask(path: &Path, what: &str) -> String {
    let mut connection = UnixStream::connect(path).unwrap();
    connection.write_all(what.as_bytes()).unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_socket_answers_in_json_and_in_prometheus_text_and_only_to_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let (engine, _clock, _held) = busy(Some(&path));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let metrics: Metrics = serde_json::from_str(&ask(&path, "json\n")).unwrap();
    assert_eq!(metrics, engine.metrics());
    let metrics: Metrics = serde_json::from_str(&ask(&path, "")).unwrap();
    assert_eq!(metrics, engine.metrics(), "who asks for nothing gets JSON");
    assert_eq!(ask(&path, "prometheus\n"), engine.metrics().to_prometheus());
    let http = ask(&path, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = http.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
    assert_eq!(body, engine.metrics().to_prometheus());
    // Who goes away without reading leaves it standing.
    for _ in 0..10 {
        drop(UnixStream::connect(&path).unwrap());
    }
    assert!(ask(&path, "json\n").contains("ticks"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the socket");
    drop((engine, _held));
    // It goes with the engine, once whoever is answered at the moment is done with.
    until("the socket goes with its engine", || !path.exists());
}

#[test]
fn a_path_that_is_taken_is_refused_and_a_socket_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let build = || Engine::builder().observe(&path).build();
    let first = build().unwrap();
    let refused = build().unwrap_err();
    assert!(matches!(refused, EngineError::Observe(ObserveError::Taken { .. })), "{refused}");
    drop(first);
    // Whoever asked it a moment ago may still be answered, which holds the engine for as long.
    until("the socket goes with its engine", || !path.exists());
    // As a killed process leaves it.
    drop(UnixListener::bind(&path).unwrap());
    drop(build().unwrap());
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(build().unwrap_err(), EngineError::Observe(ObserveError::NoSocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let nowhere = Engine::builder().observe(folder.path().join("no/such/folder/s")).build().unwrap_err();
    assert!(matches!(nowhere, EngineError::Observe(ObserveError::Io { .. })), "{nowhere}");
}

/// The dashboard asks for nothing that the exporter does not write, and names no label that a metric does not have.
#[test]
fn the_grafana_dashboard_asks_only_for_what_is_exported() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let (engine, _clock, _held) = busy(None);
    let mut snapshot = serde_json::to_value(engine.metrics()).unwrap();
    snapshot["transforms"] =
        serde_json::json!([{ "name": "copy", "topic": "ticks", "state": "running", "cause": null, "lag": 1 }]);
    snapshot["topics"][0]["replication"] = serde_json::json!({ "bridge": "nats", "ended": null, "error": null, "lag": 1,
        "lag_bytes": 2, "lag_time": 3.0 });
    let text = serde_json::from_value::<Metrics>(snapshot).unwrap().to_prometheus();
    let kinds: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let labels_of = |name: &str| -> Option<HashSet<&str>> {
        let sample = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('{'))?;
        Some(sample.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0)).collect())
    };
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let (expression, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            let names = expression.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
            for name in names.filter(|name| name.starts_with("slipring_")) {
                let kind = kinds.get(name).unwrap_or_else(|| panic!("{name} is not exported"));
                let is_rate = expression.contains(&format!("rate({name}"));
                // A counter that should stay at zero may be shown as it is.
                assert!(!is_rate || *kind == "counter", "the rate of a gauge: {expression}");
                let Some(labels) = labels_of(name) else { continue };
                let shown = legend.split("{{").skip(1).filter_map(|part| Some(part.split_once("}}")?.0));
                shown.for_each(|label| assert!(labels.contains(label), "{name} has no label {label}: {labels:?}"));
                asked += 1;
            }
        }
    }
    assert!(asked > 10, "{asked}");
}
