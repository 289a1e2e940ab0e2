//! What docs/REAL_TIME.md promises of a producer that must not enter the kernel: traced by strace, where that is.
#![cfg(target_os = "linux")]

use slipring::subscriber::At;
use slipring::{Engine, Message, Record, Topic, Wait, topic::Overflow};
use std::collections::BTreeMap;
use std::hint::{black_box, spin_loop};
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

const CHILD: &str = "SLIPRING_REAL_TIME";
/// Looked for by the producer's thread around what it publishes, so that a trace shows where that begins and ends.
const MARKS: [&str; 2] = ["/slipring-begins", "/slipring-ends"];

/// Publishes while its readers are asleep, and between two marks.
fn publish(mut publish: impl FnMut(u64)) {
    // Beforehand, what a producer does once.
    publish(0);
    let _ = black_box(std::fs::metadata(MARKS[0]));
    for number in 1..=100 {
        publish(number);
        // Time for the readers to fall asleep.
        let now = Instant::now();
        while now.elapsed() < Duration::from_millis(2) {
            spin_loop();
        }
    }
    let _ = black_box(std::fs::metadata(MARKS[1]));
}

fn ticks(engine: &Engine, quiet: bool) -> Topic<u64> {
    let ticks = engine.topic::<u64>("ticks").partitions(2).overflow(Overflow::DropNewest);
    if quiet { ticks.never_wake() } else { ticks }.create().unwrap()
}

/// The process that is traced. `what` is the case.
fn child(what: &str) {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(folder.path()).unwrap();
    match what {
        // Two managed readers, a member of a group, and a reader with a thread of its own: all of two partitions.
        "asleep" | "never-wake" => {
            let topic = ticks(&engine, what == "never-wake");
            let asleep = || Wait::spin_then_park().spin_for(Duration::ZERO).yields(0);
            topic.subscribe("first").wait(asleep()).run(|_, _| ()).unwrap();
            topic.subscribe("second").wait(asleep()).run(|_, _| ()).unwrap();
            topic.group("group").wait(asleep()).run(|_, _| ()).unwrap();
            let mut tape = topic.subscribe("third").wait(asleep()).poll().unwrap();
            let reading = std::thread::spawn(move || {
                let mut read = 0;
                while let Some(mut batch) = tape.poll(Duration::from_secs(60)).ok().flatten() {
                    read += (&mut batch).into_iter().count();
                }
                read
            });
            let mut producer = topic.producer().create().unwrap();
            publish(|number| _ = producer.publish(|tick| *tick = number).unwrap());
            drop(producer);
            topic.close();
            assert_eq!(reading.join().unwrap(), 101);
        }
        "nap" => {
            let topic = engine.topic::<u64>("ticks").single_producer().create().unwrap();
            let nap = Wait::nap(Duration::from_micros(200));
            topic.subscribe("meter").wait(nap).run(|_: &u64, _: At| ()).unwrap();
            let mut producer = topic.producer().create().unwrap();
            publish(|number| _ = producer.publish(|tick| *tick = number).unwrap());
        }
        "durable" => {
            let topic = engine.topic::<Message>("orders").durable().never_wake().create().unwrap();
            let queue = topic.queue("jobs").open().unwrap();
            let run = queue.run(1, |_| ()).unwrap();
            let mut producer = topic.producer().create().unwrap();
            publish(|_| _ = producer.try_send(Record::new("buy 3").key("account")).unwrap());
            drop(producer);
            assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
            run.wait();
            return;
        }
        _ => unreachable!("{what}"),
    }
    assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
}

/// The system calls of the thread between its two marks, with their counts; `None` if no thread has both.
fn calls(trace: &str) -> Option<BTreeMap<String, u32>> {
    let calls: Vec<(&str, &str)> = trace.lines().filter_map(|line| line.split_once(char::is_whitespace)).collect();
    let mark = |mark| calls.iter().position(|(_, call)| call.contains(mark));
    let (begin, end) = (mark(MARKS[0])?, mark(MARKS[1])?);
    let mut found = BTreeMap::new();
    for (_, call) in calls[begin + 1..end].iter().filter(|(thread, _)| *thread == calls[begin].0) {
        let name = call.trim_start().split('(').next().unwrap_or_default();
        // Where the system has no fast clock, reading it is a call: the loop between two events does so, no publish. A signal
        // or the end of a call that another thread interrupted in the trace is no call.
        if !name.contains("clock_gettime") && !call.trim_start().starts_with(['<', '-', '+']) {
            *found.entry(name.to_owned()).or_default() += 1;
        }
    }
    Some(found)
}

#[test]
fn a_publish_makes_no_system_call_where_the_page_says_so() {
    if let Ok(what) = std::env::var(CHILD) {
        return child(&what);
    }
    let folder = tempfile::tempdir().unwrap();
    let traced = |what: &str| {
        let to = folder.path().join(what);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&to).arg(std::env::current_exe().unwrap());
        strace.args(["--exact", "a_publish_makes_no_system_call_where_the_page_says_so", "--nocapture"]);
        let output = strace.env(CHILD, what).output();
        match output {
            Ok(output) if output.status.success() => Some(std::fs::read_to_string(&to).unwrap()),
            Ok(output) => {
                let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                let refused = err.contains("ptrace") || err.contains("PTRACE");
                assert!(refused, "{what}: {out}{err}");
                None
            }
            Err(_) => None,
        }
    };
    let Some(trace) = traced("asleep") else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no strace here, or it may not trace");
        return;
    };
    let woke = calls(&trace).expect("the marks are in the trace");
    assert!(woke.get("futex").is_some_and(|&calls| calls > 0), "sleepers are woken: {woke:?}");
    for what in ["never-wake", "nap", "durable"] {
        let trace = traced(what).unwrap();
        assert_eq!(calls(&trace), Some(BTreeMap::new()), "{what}");
    }
}
