//! Tests of `peers`, `growth`, baselines and comparisons.

mod common;

use common::{Scratch, bench, check, code, schema};
use serde_json::Value;

fn peers(name: &str, extra: &[&str]) -> (Scratch, Value) {
    let scratch = Scratch::new(name);
    let mut words = vec![
        "peers",
        "--rounds",
        "2",
        "--duration",
        "4ms",
        "--out",
        scratch.text(),
        "--format",
        "json,text,csv,svg,html",
    ];
    words.extend(extra);
    let output = bench(&words);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{extra:?}: {told}");
    let document = scratch.json("peers.json");
    check(&schema("peers.schema.json"), &document, "peers");
    (scratch, document)
}

/// The contenders of a scenario, each once.
fn contenders(document: &Value, scenario: &str, mode: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for row in document["rows"].as_array().unwrap() {
        assert_eq!(row["valid"], true, "{row}");
        assert!(row["min"].as_f64() <= row["median"].as_f64());
        assert!(row["median"].as_f64() <= row["max"].as_f64());
        let name = row["contender"].as_str().unwrap().to_owned();
        if row["scenario"] == scenario && row["mode"] == mode && !names.contains(&name) {
            assert_eq!(row["ours"].as_bool().unwrap(), name.starts_with("slipring"));
            names.push(name);
        }
    }
    names
}

#[test]
fn everyone_does_the_same_work_and_is_verified() {
    let (scratch, document) = peers("spsc", &["spsc", "--capacity", "256,1024", "--payload", "8,64,256"]);
    let one = contenders(&document, "spsc", "one-by-one");
    let batch = contenders(&document, "spsc", "batch");
    assert_eq!(one[0], "slipring");
    assert_eq!(batch[0], "slipring");
    if cfg!(feature = "rivals") {
        for rival in ["rtrb", "rtrb+pause", "disruptor", "crossbeam", "kanal", "flume", "std"] {
            assert!(one.iter().any(|name| name == rival), "{rival}");
        }
        assert!(batch.iter().any(|name| name == "disruptor"));
        assert!(!batch.iter().any(|name| name == "crossbeam"), "crossbeam has no batches");
    }
    assert!(one.iter().any(|name| name == "bare-ring"));
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.len(), (one.len() + batch.len()) * 2 * 3);
    assert_eq!(document["samples"].as_array().unwrap().len(), rows.len());
    assert!(scratch.read("peers.html").matches("<svg").count() == 6);
    assert_eq!(scratch.read("peers.csv").lines().count(), rows.len() + 1);
}

#[test]
fn every_scenario_has_our_row() {
    let (_scratch, document) = peers(
        "graphs",
        &[
            "mpsc",
            "fanout",
            "pipeline",
            "diamond",
            "ping-pong",
            "--capacity",
            "256",
            "--with",
            if cfg!(feature = "rivals") { "disruptor,std" } else { "none" },
        ],
    );
    for (scenario, ours) in [
        ("mpsc-1", "slipring-multi"),
        ("mpsc-2", "slipring-multi"),
        ("fanout", "slipring"),
        ("pipeline", "slipring"),
        ("diamond", "slipring"),
        ("ping-pong", "slipring-multi"),
    ] {
        let names = contenders(&document, scenario, "one-by-one");
        assert_eq!(names[0], ours, "{scenario}");
        if cfg!(feature = "rivals") {
            assert!(names.iter().any(|name| name == "disruptor"), "{scenario}: {names:?}");
        }
    }
    let floor = contenders(&document, "ping-pong", "one-by-one");
    assert!(floor.iter().any(|name| name == "bare-line"));
    assert!(floor.iter().any(|name| name == "slipring"), "both kinds of ring");
}

#[test]
fn peers_refuses_what_it_can_not_do() {
    for words in [
        &["peers", "spsc", "--with", "kafka"][..],
        &["peers", "spsc", "--payload", "12"],
        &["peers", "spsc", "--capacity", "32", "--batch", "64"],
        &["peers", "spsc", "--format", "hgrm", "--rounds", "1", "--duration", "1ms", "--capacity", "64"],
        &["peers"],
    ] {
        assert_eq!(code(words), 64, "{words:?}");
    }
}

fn stored(scratch: &Scratch, name: &str, document: &Value) -> String {
    let directory = scratch.path().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("run.json"), document.to_string()).unwrap();
    directory.to_str().unwrap().to_owned()
}

#[test]
fn a_comparison_finds_what_was_put_in() {
    let scratch = Scratch::new("compare");
    bench(&[
        "run",
        "spsc",
        "--rate",
        "100k/s",
        "--duration",
        "100ms",
        "--runs",
        "1",
        "--out",
        scratch.text(),
        "--format",
        "json",
    ]);
    // Results that differ a little, made from a real one, so that the figures are known.
    let mut base = scratch.json("run.json");
    let run = base["runs"][0].clone();
    let runs = |factor: f64| -> Vec<Value> {
        (0..7u32)
            .map(|index| {
                let mut one = run.clone();
                one["p99"] = ((10_000.0 + f64::from(index)) * factor).round().into();
                one["p99"] = (one["p99"].as_f64().unwrap() as u64).into();
                one
            })
            .collect()
    };
    base["runs"] = runs(1.0).into();
    let (mut slower, mut elsewhere, mut once, mut short) = (base.clone(), base.clone(), base.clone(), base.clone());
    once["runs"] = runs(1.5)[..1].into();
    for run in short["runs"].as_array_mut().unwrap() {
        run["p99"] = Value::Null;
    }
    slower["runs"] = runs(1.5).into();
    elsewhere["environment"]["machine"] = "another".into();
    let base = stored(&scratch, "base", &base);
    let slower = stored(&scratch, "slower", &slower);
    let elsewhere = stored(&scratch, "elsewhere", &elsewhere);
    let once = stored(&scratch, "once", &once);
    let short = stored(&scratch, "short", &short);
    assert_eq!(code(&["compare", &base, &base, "--fail-on", "p99>5%"]), 0);
    assert_eq!(code(&["compare", &base, &slower, "--fail-on", "p99>5%"]), 1);
    assert_eq!(code(&["compare", &base, &slower, "--fail-on", "p99>60%"]), 0);
    assert_eq!(code(&["compare", &slower, &base, "--fail-on", "p99>5%"]), 0);
    assert_eq!(code(&["compare", &base, &elsewhere]), 64);
    assert_eq!(code(&["compare", &base, &elsewhere, "--force"]), 0);
    // A limit that cannot be judged passed in silence: the results lack the figure, or have too few runs.
    for (new, says) in [(&short, "p99 was not judged: both results have"), (&once, "a verdict needs 3")] {
        let told = bench(&["compare", &base, new, "--fail-on", "p50>400%,p99>5%"]);
        let error = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.status.code() == Some(64) && error.contains(says), "{:?}: {error}", told.status);
        assert_eq!(code(&["compare", &base, new]), 0);
    }
    assert_eq!(code(&["compare", &base, &base, "--", "spsc"]), 64);
    let told = bench(&["compare", &base, &slower]);
    let table = String::from_utf8_lossy(&told.stdout).into_owned();
    let line = table.lines().find(|line| line.starts_with("p99 ")).unwrap();
    assert!(line.contains("+50.0 %") && line.ends_with("regressed"), "{line}");

    let store = scratch.path().join("store");
    let store = store.to_str().unwrap();
    assert_eq!(code(&["baseline", "save", "good", &base, "--store", store]), 0);
    let listed = bench(&["baseline", "ls", "--store", store]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("good  run.json"));
    let compare = ["compare", "good", &slower, "--store", store, "--fail-on", "p99>5%"];
    assert_eq!(code(&compare), 1);
    assert_eq!(code(&["baseline", "save", "../out", &base, "--store", store]), 64);
    assert_eq!(code(&["baseline", "rm", "good", "--store", store]), 0);
    assert_eq!(code(&compare), 64);
}

#[test]
fn two_builds_take_turns() {
    let program = env!("CARGO_BIN_EXE_bench-harness");
    let told = bench(&[
        "compare",
        program,
        program,
        "--rounds",
        "3",
        "--",
        "spsc",
        "--rate",
        "20k/s",
        "--duration",
        "30ms",
        "--warmup",
        "1ms",
    ]);
    let turns = String::from_utf8_lossy(&told.stderr).matches("round ").count();
    assert_eq!((turns, told.status.code()), (6, Some(0)));
    assert!(String::from_utf8_lossy(&told.stdout).contains("rate"));
}

#[test]
fn a_sweep_walks_and_can_be_drawn_again() {
    let scratch = Scratch::new("sweep");
    let words = [
        "sweep",
        "spsc",
        "--capacity",
        "256..1k:3",
        "--rate",
        "20k",
        "--duration",
        "30ms",
        "--out",
        scratch.text(),
        "--format",
        "json,html,svg,csv,text",
    ];
    assert_eq!(code(&words), 0);
    let points = scratch.json("sweep.json")["points"].as_array().unwrap().len();
    assert!(points >= 2, "{points}");
    assert_eq!(code(&["report", scratch.text()]), 0);
}

#[test]
fn waits_measures_all_its_parts() {
    let scratch = Scratch::new("waits");
    let words = ["waits", "--rates", "50k", "--rounds", "2", "--duration", "40ms", "--out", scratch.text()];
    let output = bench(&words);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let document = scratch.json("waits.json");
    let rows = document["rows"].as_array().unwrap();
    let of = |part: &str| rows.iter().filter(|row| row["what"].as_str().unwrap().starts_with(part)).count();
    // Fixed and Poisson, each with p50 and p99.
    assert_eq!((of("latency"), of("park"), of("idle"), of("heavy")), (4, 1, 1, 4));
    for row in rows.iter().filter(|row| !row["what"].as_str().unwrap().starts_with("latency")) {
        assert!(row["ours"][0].as_f64().is_some_and(|figure| figure > 0.0), "{row}");
    }
    assert!(scratch.read("waits.txt").contains("8 sleeping consumers"));
    assert_eq!(code(&["waits", "idle", "--rounds", "0"]), 64);
}

#[test]
fn commands_name_only_what_they_measure() {
    for words in [["peers", "nonsense"], ["peers", "work-sharing"]] {
        let output = bench(&words);
        assert_eq!(output.status.code(), Some(64));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("ping-pong") && !told.contains(", work-sharing"), "{told}");
    }
    let told = String::from_utf8_lossy(&bench(&["run", "--help"]).stdout).into_owned();
    assert!(told.contains("work-sharing") && !told.contains("not there yet"), "{told}");
    assert_eq!(code(&["run", "spsc", "--quick", "--wait", "spin,naps=3"]), 64);
}

/// A result from another machine can have any text.
#[test]
fn a_foreign_result_is_shown_as_text_whatever_it_holds() {
    const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\nFORGED\u{202e}<script>\"&";
    fn poison(value: &mut Value) {
        match value {
            Value::String(text) => text.push_str(HOSTILE),
            Value::Array(items) => items.iter_mut().for_each(poison),
            Value::Object(fields) => fields.values_mut().for_each(poison),
            _ => {}
        }
    }
    let run =
        ["run", "spsc", "--rate", "100K/s", "--duration", "20ms", "--warmup", "1ms", "--runs", "2", "--loop", "both"];
    for (name, words) in [("run", &run[..]), ("peers", &["peers", "spsc", "--rounds", "2", "--duration", "2ms"])] {
        let scratch = Scratch::new(&format!("foreign-{name}"));
        bench(&[words, &["--out", scratch.text(), "--format", "json"]].concat());
        let file = format!("{name}.json");
        let mut document = scratch.json(&file);
        poison(&mut document);
        std::fs::write(scratch.path().join(&file), document.to_string()).unwrap();
        let calls = [
            vec!["report", scratch.text(), "--format", "text,csv,svg,html"],
            vec!["compare", scratch.text(), scratch.text()],
        ];
        for call in calls {
            let output = bench(&call);
            for shown in [String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap()] {
                assert!(!shown.chars().any(|c| c != '\n' && slipring::text::is_hidden(c)), "{call:?}: {shown:?}");
                assert!(!shown.lines().any(|line| line.starts_with("FORGED")), "{call:?}: {shown}");
            }
        }
        for entry in std::fs::read_dir(scratch.path()).unwrap() {
            let path = entry.unwrap().path();
            let written = std::fs::read_to_string(&path).unwrap();
            let is_page = path.extension().is_some_and(|kind| kind == "html" || kind == "svg");
            assert!(!is_page || !written.contains("<script"), "{}", path.display());
        }
    }
}

#[test]
fn growth_counts_and_judges() {
    let scratch = Scratch::new("growth");
    let formats = "json,text,csv,svg,html";
    let words = ["growth", "restarts", "layers-build", "--quick", "--out", scratch.text(), "--format", formats];
    let output = bench(&words);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let document = scratch.json("growth.json");
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["row"].as_str().unwrap()).collect::<Vec<_>>(), ["layers-build", "restarts"]);
    assert!(rows.iter().all(|row| row["verdict"] == "met" && row["exponent"].is_number()), "{document}");
    // A slow machine may leave out the largest size.
    assert!((1 + 2 + 2..=1 + 3 + 3).contains(&scratch.read("growth.csv").lines().count()));
    assert!(scratch.read("growth.svg").contains("layers-build") && scratch.read("growth.html").contains("<svg"));
    std::fs::remove_file(scratch.path().join("growth.csv")).unwrap();
    assert_eq!(code(&["report", scratch.text(), "--format", "csv"]), 0);
    assert!(scratch.read("growth.csv").contains("restarts,count,"));
    assert_eq!(code(&["growth", "everything"]), 64);
}
