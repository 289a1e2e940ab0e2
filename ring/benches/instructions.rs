//! How many instructions publish, poll and claim take: exact where a timing is not, so that one more in an inner loop is
//! seen at once.
//!
//! ```text
//! cargo bench -p slipring-ring --bench instructions               # counts, and fails if one is over its record
//! cargo bench -p slipring-ring --bench instructions -- --test     # each operation once, nothing counted
//! ```
//!
//! It runs itself under `valgrind --tool=callgrind`, once with `ROUNDS` of an operation and once with twice as many; the
//! difference is the operation's own. Where valgrind is missing, or the processor is another one, it says so and
//! passes. After a change that is meant to cost: write the new count into `RECORD` and say in the commit what it buys.

use slipring_ring::{Builder, Kind, LossyRing, Start};
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};

const ROUNDS: u64 = 20_000;
/// Compilers differ a little.
const TOLERANCE: f64 = 0.10;

/// Instructions for each operation, on x86-64 with `rustc` 1.95, `--profile bench`. Behind each stands the record before the
/// rings' end was made safe against late commits (`docs/decisions/`, 14) and stamps got one fence (18).
const RECORD: [(&str, f64); 14] = [
    ("single publish", 49.1),      // 44.1
    ("single claim 1", 62.1),      // 46.1
    ("single batch of 16", 126.9), // 121.1
    ("single poll 1", 163.1),      // 154.1
    ("single poll 16", 337.2),     // 328.2
    ("single poll nothing", 56.0), // 53.0
    ("multi publish", 69.3),       // 67.3
    ("multi claim 1", 82.3),       // 91.3
    ("multi batch of 16", 433.0),  // 421.1
    ("multi poll 1", 210.1),       // 232.1
    ("multi poll 16", 703.1),      // 691.1
    ("multi poll nothing", 74.0),  // 114.0
    ("multi in turns", 90.9),
    ("lossy write and read", 74.0), // 80.0
];

/// Runs `rounds` of the operation called `name`. What reads publishes as well: its record holds both.
fn operate(name: &str, rounds: u64) {
    if let Some(what) = name.strip_prefix("single ") {
        return operate_on(Builder::single(1024, || 0u64), what, rounds);
    }
    if name == "multi in turns" {
        // Two clones on one thread: each finds that the other one has claimed since.
        let (mut one, _ring) = Builder::multi(1024, || 0u64).build().unwrap();
        let mut two = one.clone();
        for round in 0..rounds / 2 {
            drop(black_box(one.publish(|event| *event = round)));
            drop(black_box(two.publish(|event| *event = round)));
        }
        return;
    }
    if let Some(what) = name.strip_prefix("multi ") {
        return operate_on(Builder::multi(1024, || 0u64), what, rounds);
    }
    let (mut writer, ring) = LossyRing::single(1024).unwrap();
    let mut reader = ring.reader(Start::Latest);
    for round in 0..rounds {
        writer.write(black_box(&round));
        black_box(reader.read().unwrap());
    }
}

fn operate_on<K: Kind>(mut builder: Builder<u64, K>, what: &str, rounds: u64) {
    let reads = what.starts_with("poll");
    if reads {
        builder.poll("tape");
    }
    let (mut producer, ring) = builder.build().unwrap();
    match what {
        "publish" => (0..rounds).for_each(|round| drop(black_box(producer.publish(|event| *event = round)))),
        "claim 1" => {
            for round in 0..rounds {
                let mut claim = producer.claim(black_box(1)).unwrap();
                claim[0] = round;
                black_box(claim.commit().unwrap());
            }
        }
        "batch of 16" => {
            for round in 0..rounds {
                black_box(producer.publish_batch(black_box(16), |_, event| *event = round).unwrap());
            }
        }
        _ => {
            let mut tape = ring.consumer("tape").unwrap();
            let len = if what == "poll 16" { 16 } else { 1 };
            for round in 0..rounds {
                if what != "poll nothing" {
                    producer.publish_batch(black_box(len), |_, event| *event = round).unwrap();
                }
                for (_, event) in &mut tape.poll(black_box(16)).unwrap() {
                    black_box(*event);
                }
            }
        }
    }
}

/// All instructions of this program while it runs `rounds` of `name`.
fn count(name: &str, rounds: u64) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|why| why.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--operate", name, &rounds.to_string()])
        .stdout(Stdio::null())
        .output()
        .map_err(|why| format!("valgrind does not start: {why}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| format!("callgrind counted nothing ({}): {said}", output.status))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, rounds] = &arguments[..]
        && flag == "--operate"
    {
        operate(name, rounds.parse().expect("a number of rounds"));
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--test") {
        RECORD.iter().for_each(|(name, _)| operate(name, 3));
        println!("each operation ran; nothing was counted");
        return ExitCode::SUCCESS;
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("skipped: the counts were recorded on x86-64 Linux");
        return ExitCode::SUCCESS;
    }
    if let Err(why) = Command::new("valgrind").arg("--version").output() {
        println!("skipped: valgrind is missing ({why})");
        return ExitCode::SUCCESS;
    }
    let mut grew = false;
    for (name, recorded) in RECORD {
        let counts = count(name, ROUNDS).and_then(|once| Ok((once, count(name, 2 * ROUNDS)?)));
        match counts {
            Err(why) => {
                println!("{name}: {why}");
                grew = true;
            }
            Ok((once, twice)) => {
                let each = (twice.saturating_sub(once)) as f64 / ROUNDS as f64;
                let verdict = match each - recorded {
                    more if more > recorded * TOLERANCE + 1.0 => "GREW",
                    less if -less > recorded * TOLERANCE + 1.0 => "less: lower the record",
                    _ => "as recorded",
                };
                grew |= verdict == "GREW";
                println!("{name:22} {each:8.1} instructions, recorded {recorded:6.1}: {verdict}");
            }
        }
    }
    if grew { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
