//! Counts the instructions of operations with valgrind and compares them with their records.
//!
//! The program runs itself under `valgrind --tool=callgrind`, once with [`ROUNDS`] of an operation and once with twice as many;
//! the difference, on all threads of the process, is the operation's own. Where valgrind is missing, or the processor is
//! another one, it says so and passes.

use std::process::{Command, ExitCode, Stdio};

/// How often an operation is run in the shorter of the two runs.
pub const ROUNDS: u64 = 20_000;

/// How often both runs of an operation are repeated at most.
const RUNS: usize = 10;

/// The `main` of a bench. `record` has the name of each operation and its instructions, `tolerance` is the part by which a
/// count may be over its record, and `operate` runs so many rounds of the operation with that name.
pub fn run(record: &[(&str, f64)], tolerance: f64, operate: impl Fn(&str, u64)) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, rounds] = &arguments[..]
        && flag == "--operate"
    {
        operate(name, rounds.parse().expect("a number of rounds"));
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--test") {
        record.iter().for_each(|(name, _)| operate(name, 3));
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
    for &(name, recorded) in record {
        let slack = recorded * tolerance + 1.0;
        match each(name, |each| (each - recorded).abs() <= slack) {
            Err(why) => {
                println!("{name}: {why}");
                grew = true;
            }
            Ok(each) => {
                let verdict = match each - recorded {
                    more if more > slack => "GREW",
                    less if -less > slack => "less: lower the record",
                    _ => "as recorded",
                };
                grew |= verdict == "GREW";
                println!("{name:22} {each:8.1} instructions, recorded {recorded:6.1}: {verdict}");
            }
        }
    }
    if grew { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The instructions of one round of `name`. Threads that wait for one another execute more instructions in some runs than in
/// others, never fewer than the work needs: so unless the first count is `expected`, the smallest ones of [`RUNS`] are taken.
fn each(name: &str, expected: impl Fn(f64) -> bool) -> Result<f64, String> {
    let (mut once, mut twice) = (u64::MAX, u64::MAX);
    for _ in 0..RUNS {
        once = once.min(count(name, ROUNDS)?);
        twice = twice.min(count(name, 2 * ROUNDS)?);
        let each = twice.saturating_sub(once) as f64 / ROUNDS as f64;
        if expected(each) {
            return Ok(each);
        }
    }
    Ok(twice.saturating_sub(once) as f64 / ROUNDS as f64)
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
    if !output.status.success() {
        return Err(format!("the program failed under valgrind ({}): {said}", output.status));
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| format!("callgrind counted nothing ({}): {said}", output.status))
}
