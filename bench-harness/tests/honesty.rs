//! Tests that the figures are true. They assert only what holds on a slow and busy machine too.

mod common;

use common::{Scratch, bench, check, code, schema};
use serde_json::{Value, json};

/// A run may miss its rate on a busy machine; the messages must be right in any case.
fn verified(document: &Value) {
    let reason = document["reason"].as_str().unwrap();
    for wrong in ["damaged", "missing", "twice", "arrived of", "refused", "panicked"] {
        assert!(!reason.contains(wrong), "{reason}");
    }
    assert!(document["count"].as_u64().unwrap() > 0, "nothing was measured: {reason}");
}

/// The result of a run that measured something. A machine may stop a run for its whole time; such a run is repeated, each time
/// twice as long.
fn measured(words: &[&str], scratch: &Scratch) -> (Value, bool) {
    let place = words.iter().position(|word| *word == "--duration").unwrap() + 1;
    let mut millis: u64 = words[place].strip_suffix("ms").unwrap().parse().unwrap();
    loop {
        let duration = format!("{millis}ms");
        let mut words = words.to_vec();
        words[place] = &duration;
        let output = bench(&words);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 2)), "{words:?}: {told}");
        let document = scratch.json("run.json");
        millis *= 2;
        if document["count"].as_u64() != Some(0) || millis > 10_000 {
            return (document, output.status.success());
        }
    }
}

#[test]
fn each_scenario_runs_for_a_tenth_of_a_second() {
    for scenario in ["spsc", "mpsc", "fanout", "pipeline", "diamond", "work-sharing", "ping-pong", "idle-wake", "topic"]
    {
        let scratch = Scratch::new(scenario);
        let words = [
            "run",
            scenario,
            "--rate",
            "20k/s",
            "--duration",
            "100ms",
            "--warmup",
            "10ms",
            "--runs",
            "1",
            "--out",
            scratch.text(),
            "--format",
            "json",
        ];
        let (document, fine) = measured(&words, &scratch);
        check(&schema("run.schema.json"), &document, scenario);
        assert_eq!(document["scenario"], scenario);
        assert_eq!(document["valid"].as_bool().unwrap(), fine);
        verified(&document);
    }
}

#[test]
fn options_change_the_work_and_not_the_truth() {
    for (extra, setup) in [
        (&["--arrival", "poisson"][..], json!({ "arrival": "poisson", "full": "block" })),
        (&["--arrival", "burst:10@1ms", "--batch", "4"], json!({ "arrival": "burst:10@1.00 ms", "batch": 4 })),
        (
            &["--payload", "256", "--capacity", "64", "--full", "drop", "--rate", "max", "--stall", "5ms@20ms"],
            json!({ "payload": 256, "capacity": 64, "full": "drop" }),
        ),
        (&["--wait", "spin-then-park", "--pin", "none"], json!({ "wait": "spin-then-park", "pin": "none" })),
    ] {
        let scratch = Scratch::new("options");
        let mut words = vec![
            "run",
            "spsc",
            "--duration",
            "50ms",
            "--warmup",
            "0s",
            "--runs",
            "2",
            "--out",
            scratch.text(),
            "--format",
            "json",
        ];
        words.extend(extra);
        let (document, _) = measured(&words, &scratch);
        verified(&document);
        assert_eq!(document["runs"].as_array().unwrap().len(), 2);
        for (name, value) in setup.as_object().unwrap() {
            assert_eq!(&document["setup"][name], value, "{name} of {extra:?}");
        }
        // What the options did, however slow the machine is: while the consumer is held up, a ring of 64 is full.
        let (drops, count) = (document["drops"].as_u64().unwrap(), document["count"].as_u64().unwrap());
        assert_eq!(drops > 0, setup["full"] == "drop", "{drops} drops with {extra:?}");
        if setup["arrival"] == "burst:10@1.00 ms" {
            let millis = document["setup"]["seconds"].as_f64().unwrap() * 1e3;
            assert!(count as f64 <= 2.0 * 10.0 * (millis + 1.0), "{count} messages in two runs of {millis} ms");
        }
    }
}

/// One stall of 5 ms in 200 ms, at 100,000 messages a second: 500 of 20,000 messages wait for it, 2.5 %. Open loop, which
/// counts from intended times, has it in p99; closed loop, which waits for the consumer before it sends again, has it once.
#[test]
fn open_loop_shows_a_stall_and_closed_loop_says_that_it_hides_it() {
    let scratch = Scratch::new("stall");
    let words = [
        "run",
        "spsc",
        "--rate",
        "100k/s",
        "--duration",
        "200ms",
        "--warmup",
        "10ms",
        "--runs",
        "1",
        "--stall",
        "5ms@200ms",
        "--loop",
        "both",
        "--out",
        scratch.text(),
        "--format",
        "text,json,html",
    ];
    let (document, _) = measured(&words, &scratch);
    verified(&document);
    let p99 = document["p99"].as_u64().unwrap();
    assert!(p99 >= 2_000_000, "open loop hid a stall of 5 ms: p99 is {p99} ns");
    let closed = &document["closed"];
    assert_eq!(closed["setup"]["loop"], "closed");
    assert!(closed["max"].as_u64().unwrap() >= 5_000_000);
    assert!(closed["reason"].as_str().unwrap().contains("hides"));
    for shown in [scratch.read("run.txt"), scratch.read("run.html")] {
        assert!(shown.contains("closed loop (hides waiting)") && shown.contains("stall of 5.00 ms"));
    }
}

#[test]
fn too_few_samples_are_said_to_be_too_few() {
    let scratch = Scratch::new("few");
    bench(&[
        "run",
        "spsc",
        "--rate",
        "1k/s",
        "--duration",
        "100ms",
        "--runs",
        "1",
        "--out",
        scratch.text(),
        "--format",
        "text,json",
    ]);
    let document = scratch.json("run.json");
    verified(&document);
    for name in ["p50", "p90", "p99", "p999", "p9999"] {
        assert!(document[name].is_null(), "{name} of 100 messages");
    }
    assert!(document["max"].is_u64());
    let text = scratch.read("run.txt");
    let line = text.lines().find(|line| line.trim_start().starts_with("latency")).unwrap();
    assert_eq!(line.matches("n/a").count(), 5, "{line}");
}

#[test]
fn exit_codes_are_a_contract() {
    let scratch = Scratch::new("codes");
    let out = ["--out", scratch.text(), "--format", "json"];
    let run_for = |duration, extra: &[&str]| {
        let mut words = vec!["run", "spsc", "--duration", duration, "--warmup", "1ms", "--runs", "1"];
        words.extend(extra);
        words.extend(out);
        code(&words)
    };
    let run = |extra: &[&str]| run_for("50ms", extra);
    // A run as fast as possible has no rate that a busy machine could miss; in a second it has some messages.
    assert_eq!(run_for("1s", &["--rate", "max", "--assert", "drops=0,count>0"]), 0);
    assert_eq!(run_for("1s", &["--rate", "max", "--assert", "p50<1ns"]), 1);
    assert_eq!(run(&["--rate", "5000M/s"]), 2);
    for usage in [
        &["--rate", "fast"][..],
        &["--assert", "p98<1us"],
        &["--capacity", "1000"],
        &["--payload", "33"],
        &["--pin", "p=0,c=4095"],
        &["--wait", "sleepy"],
        &["--runs", "0"],
        &["--arrival", "trace:/nowhere"],
    ] {
        assert_eq!(run(usage), 64, "{usage:?}");
    }
    for words in [&["run", "journal"][..], &["run", "transform"]] {
        let output = bench(words);
        assert_eq!(output.status.code(), Some(64));
        assert!(String::from_utf8_lossy(&output.stderr).contains("comes with"), "{words:?}");
    }
    assert_eq!(code(&["peers", "work-sharing"]), 64);
    assert_eq!(code(&["explain", "nonsense"]), 64);
    assert_eq!(code(&["report", scratch.text(), "--format", "text"]), 0);
    assert_eq!(code(&["report", "/nowhere"]), 74);
    for fine in [&["doctor", "--json"][..], &["explain"], &["explain", "p99.9"], &["--help"], &["run", "--help"]] {
        assert_eq!(code(fine), 0, "{fine:?}");
    }
}

#[test]
fn a_page_needs_nothing_but_itself_and_can_be_drawn_again() {
    let scratch = Scratch::new("page");
    bench(&[
        "run",
        "fanout",
        "--rate",
        "20k/s",
        "--duration",
        "50ms",
        "--runs",
        "2",
        "--out",
        scratch.text(),
        "--format",
        "json,html,svg,csv",
    ]);
    let page = scratch.read("run.html");
    for fetched in ["<script", "src=", "@import", "<link"] {
        assert!(!page.contains(fetched), "{fetched}");
    }
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(scratch.read("run-percentiles.svg").contains("<style>"));
    assert!(scratch.read("run.csv").lines().count() >= 4);
    std::fs::remove_file(scratch.path().join("run.html")).unwrap();
    assert_eq!(code(&["report", scratch.text(), "--format", "html"]), 0);
    assert_eq!(scratch.read("run.html"), page);
}

/// Before the mend every command panicked if its output was a full device, and some if the reader of their pipe was gone.
#[test]
fn no_command_panics_whatever_its_output_is() {
    use std::fs::OpenOptions;
    use std::process::{Command, Stdio};
    let scratch = Scratch::new("outputs");
    let out = scratch.path().join("run");
    let out = out.to_str().unwrap();
    let run = ["run", "spsc", "--quick", "--duration", "20ms", "--format", "text,json,html", "--out", out];
    let (short, dir) = (["--duration", "5ms", "--out", out], ["--dir", scratch.text(), "--rounds", "1", "--out", out]);
    let peers = [&["peers", "spsc", "--with", "std", "--rounds", "1", "--capacity", "256"][..], &short].concat();
    let waits = [&["waits", "latency,park,idle,heavy", "--rates", "10k", "--rounds", "1"][..], &short].concat();
    let sweep = [&["sweep", "spsc", "--rate", "10k..20k:log"][..], &short].concat();
    let idle = [&["idle", "--topics", "2", "--capacity", "2"][..], &short].concat();
    let journal =
        [&["journal", "--megabytes", "1", "--no-throughput", "--rate", "1000", "--duration", "50ms"][..], &dir]
            .concat();
    let transform = [&["transform", "--messages", "200"][..], &dir].concat();
    let growth = ["growth", "get", "--quick", "--out", out];
    let calls: [&[&str]; 16] = [
        &run,
        &peers,
        &waits,
        &sweep,
        &idle,
        &journal,
        &transform,
        &growth,
        &["explain"],
        &["explain", "nothing"],
        &["doctor"],
        &["doctor", "--json"],
        &["report", out],
        &["compare", out, out],
        &["baseline", "ls"],
        &["--help"],
    ];
    for words in calls {
        for stderr_too in [false, true] {
            for full in [true, false] {
                let output = || {
                    if full {
                        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
                        return Stdio::from(full);
                    }
                    // A pipe that nobody reads.
                    Stdio::from(
                        std::os::unix::net::UnixStream::pair().map(|(end, _)| std::os::fd::OwnedFd::from(end)).unwrap(),
                    )
                };
                let mut command = Command::new(env!("CARGO_BIN_EXE_bench-harness"));
                command.args(words).current_dir(scratch.path()).stdin(Stdio::null()).stdout(output());
                command.stderr(if stderr_too { output() } else { Stdio::piped() });
                let ended = command.spawn().unwrap().wait_with_output().unwrap();
                let told = String::from_utf8_lossy(&ended.stderr).into_owned();
                let code = ended.status.code();
                assert!(code.is_some_and(|code| code != 101), "{words:?}, full {full}: {:?} {told}", ended.status);
                assert!(!told.contains("panicked"), "{words:?}: {told}");
                if full && words[0] == "explain" && words.len() == 1 {
                    assert_eq!(code, Some(74), "{told}");
                    assert!(stderr_too || told.contains("standard output"), "{told}");
                }
            }
        }
    }
    assert!(scratch.path().join("run/run.json").is_file(), "results are kept although nobody could be told of them");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_measured() {
    let scratch = Scratch::new("refused");
    for rate in ["1e-300", "1e-4/s", "1e300", "0", "-1"] {
        let words = ["run", "spsc", "--quick", &format!("--rate={rate}"), "--out", scratch.text()];
        assert_eq!(code(&words), 64, "{rate}");
    }
    let file = scratch.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let inside = file.join("results");
    // Before the mend it measured for the time of a whole run first.
    let output = bench(&["run", "spsc", "--duration", "10m", "--runs", "9", "--out", inside.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&output.stderr).contains("results"), "{output:?}");
}

#[test]
fn a_page_of_a_debug_build_has_no_green_verdict() {
    let scratch = Scratch::new("debug-page");
    let out = ["--out", scratch.text(), "--format", "html,json"];
    bench(&[&["peers", "spsc", "--rounds", "2", "--duration", "2ms"], &out[..]].concat());
    bench(&[&["run", "spsc", "--quick", "--duration", "20ms", "--rate", "10k/s"], &out[..]].concat());
    for name in ["peers", "run"] {
        let mut document = scratch.json(&format!("{name}.json"));
        document["environment"]["profile"] = "debug".into();
        document["valid"] = true.into();
        if name == "run" {
            // A hiccup of 0.
            document["hiccup_plot"] = serde_json::json!([[0.0, 1], [0.5, 1], [0.99, 400]]);
            document["plot"] = serde_json::json!([[0.0, 2000], [0.5, 3000], [0.99, 90000]]);
        }
        std::fs::write(scratch.path().join(format!("{name}.json")), document.to_string()).unwrap();
    }
    assert_eq!(code(&["report", scratch.text(), "--format", "html,svg"]), 0);
    for name in ["peers", "run"] {
        let page = scratch.read(&format!("{name}.html"));
        assert!(!page.contains("badge good") && page.contains("DEBUG BUILD"), "{name}");
    }
    let chart = scratch.read("run-percentiles.svg");
    assert!(!chart.contains(">1 ns<") && !chart.contains(">10 ns<") && !chart.contains(">100 ns<"), "{chart}");
}
