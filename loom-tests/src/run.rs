//! Running a model in a process, with or without a mutant, and judging its output.

use crate::build::{self, Binary};
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A model, which is a test of a binary.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name, `module::function`.
    pub name: String,
    /// The binary that has it.
    pub binary: Binary,
}

/// A place in ring's source that names a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The path of the file in ring's source folder.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The site's name.
    pub site: String,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// All schedules within the model's bound were explored (with shuttle: random ones), and none failed.
    Completed {
        /// Count of schedules.
        iterations: u64,
        /// `all`, the bounds of preemptions, or `random, PCT` with shuttle.
        explored: String,
        /// The property that the model checks.
        property: String,
        /// The places that it executed, if the run asked for them; otherwise empty.
        places: Vec<Place>,
        /// Duration of the run.
        took: Duration,
    },
    /// It failed, for a reason that counts.
    Found {
        /// The printed reason: a causality violation, a deadlock or a failed assertion.
        what: String,
        /// Duration of the run.
        took: Duration,
    },
    /// It ended without a reason that counts: too many branches, a crash, an early end, or the time limit.
    Unclear {
        /// The last lines that it printed.
        last_words: String,
        /// Duration of the run.
        took: Duration,
    },
}

impl Outcome {
    /// The result as the rest of a sentence that begins with the model's name.
    pub fn complaint(&self) -> String {
        match self {
            Self::Completed { .. } => "completed".to_owned(),
            Self::Found { what, .. } => format!("failed: {what}"),
            Self::Unclear { last_words, .. } => format!("did not complete:\n{last_words}"),
        }
    }

    /// Duration of the run.
    pub fn took(&self) -> Duration {
        match self {
            Self::Completed { took, .. } | Self::Found { took, .. } | Self::Unclear { took, .. } => *took,
        }
    }
}

/// The tests of a binary. An error if its source has another count of tests.
pub fn list(binary: &Binary) -> Result<Vec<Model>, String> {
    let output = Command::new(&binary.path).args(["--list", "--format=terse"]).output();
    let output = output.map_err(|error| format!("{}: {error}", binary.path.display()))?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = names.lines().filter_map(|line| line.strip_suffix(": test"));
    let models: Vec<Model> = names.map(|name| Model { name: name.to_owned(), binary: binary.clone() }).collect();
    let written = build::tests_written(binary.configuration)?;
    if models.is_empty() || models.len() != written {
        return Err(format!("{} has {} tests, its source {written}", binary.path.display(), models.len()));
    }
    Ok(models)
}

/// Runs a test of a binary. Returns true if it succeeded, and its output.
fn process(binary: &Binary, name: &str, variables: &[(&str, &str)], limit: Duration) -> (bool, String) {
    let mut command = Command::new(&binary.path);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    for variable in ["SLIPRING_MUTANT", "SLIPRING_QUICK", "LOOM_LOG", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command.envs(variables.iter().copied());
    let (ended, said) = self::ended(command, limit);
    (ended == Some(true), said)
}

/// Runs a program. Returns true if it succeeded, false if it failed or did not start, `None` if it exceeded the time
/// limit; and its output, or why there is none.
pub(crate) fn ended(mut command: Command, limit: Duration) -> (Option<bool>, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return (Some(false), error.to_string()),
    };
    let readers = [child.stdout.take().map(reader), child.stderr.take().map(reader)];
    let begun = Instant::now();
    let mut ended = None;
    while ended.is_none() {
        ended = child.try_wait().unwrap_or(None).map(|status| status.success());
        if ended.is_none() && begun.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let mut said: String = readers.into_iter().flatten().filter_map(|reader| reader.join().ok()).collect();
    if ended.is_none() {
        said = format!("stopped after {} s", limit.as_secs());
    }
    (ended, said)
}

fn reader(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut said = Vec::new();
        let _ = pipe.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    })
}

/// Runs a model, with a mutant if one is named. If `quick`, fewer of its schedules are explored.
pub fn model(model: &Model, mutant: Option<&str>, quick: bool, limit: Duration) -> Outcome {
    let mutant = mutant.map(|mutant| ("SLIPRING_MUTANT", mutant));
    model_with(model, mutant.as_slice(), quick, limit)
}

/// The environment variable that makes a model print the places that it executes.
pub const PLACES: (&str, &str) = ("SLIPRING_PLACES", "1");

/// As [`model`], with additional environment variables.
pub fn model_with(model: &Model, variables: &[(&str, &str)], quick: bool, limit: Duration) -> Outcome {
    let started = Instant::now();
    let mut variables = variables.to_vec();
    variables.extend(quick.then_some(("SLIPRING_QUICK", "1")));
    let (succeeded, said) = process(&model.binary, &model.name, &variables, limit);
    judge(succeeded, &said, started.elapsed())
}

/// Judges the output of a run. A failure counts only if a check of a model or an assertion in ring failed, or loom
/// found a race or a deadlock; not another panic, an exhausted number of branches, or the time limit.
fn judge(succeeded: bool, said: &str, took: Duration) -> Outcome {
    if succeeded {
        let completed = said.lines().find_map(|line| {
            let mut parts = line.strip_prefix("Completed in ")?.split(" | ");
            let iterations = parts.next()?.strip_suffix(" iterations")?.parse().ok()?;
            Some((iterations, parts.next()?.to_owned(), parts.next()?.to_owned()))
        });
        if let Some((iterations, explored, property)) = completed {
            let places = said.lines().filter_map(place).collect();
            return Outcome::Completed { iterations, explored, property, places, took };
        }
    } else if let Some(what) = why(said) {
        return Outcome::Found { what, took };
    }
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last_words = lines[lines.len().saturating_sub(12)..].join("\n");
    Outcome::Unclear { last_words, took }
}

/// Parses `place SITE@file.rs:7`, as ring prints it. The name of the test may precede it on the line.
fn place(line: &str) -> Option<Place> {
    let (site, rest) = line.split_once("place ")?.1.split_once('@')?;
    let (file, line) = rest.split_once(':')?;
    Some(Place { file: file.to_owned(), line: line.parse().ok()?, site: site.to_owned() })
}

/// The message of the first panic, at most 72 characters of it; `None` if it does not count. Later panics may be its
/// consequence.
fn why(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at ")).map(str::trim);
    let place = lines.next()?;
    let message = lines.next()?;
    let counts = message.starts_with("Causality violation")
        || message.starts_with("deadlock")
        || place.contains("loom-tests/tests/")
        || (place.contains("ring/src/") && message.starts_with("assertion"));
    counts.then(|| message.trim_end_matches(['.', ':']).chars().take(72).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_ways_to_fail_count() {
        let judged = |succeeded, said: &str| judge(succeeded, said, Duration::ZERO);
        let completed = "test x ... place A@b.rs:7\n\nCompleted in 7 iterations | exhaustive | all is well\n";
        let Outcome::Completed { iterations: 7, places, .. } = judged(true, completed) else { panic!("{completed}") };
        assert_eq!(places, [Place { file: "b.rs".to_owned(), line: 7, site: "A".to_owned() }]);
        assert!(matches!(judged(true, "test result: ok. 0 passed"), Outcome::Unclear { .. }));
        assert!(matches!(judged(false, completed), Outcome::Unclear { .. }));
        assert!(matches!(judged(false, "stopped after 60 s"), Outcome::Unclear { .. }));
        let panicked = |place: &str, message: &str| {
            let said = format!("running 1 test\n\nthread 'x' (7) panicked at {place}:1:2:\n{message}\ndeadlock\n");
            matches!(judged(false, &said), Outcome::Found { .. })
        };
        assert!(panicked("/x/loom-0.7.2/src/rt/cell.rs", "Causality violation: Concurrent read and write accesses."));
        assert!(panicked("/x/loom-0.7.2/src/rt/execution.rs", "deadlock; threads = [..]"));
        assert!(panicked("loom-tests/tests/models/wake.rs", "no room though nobody gates"));
        assert!(panicked("ring/src/gates.rs", "assertion `left == right` failed"));
        assert!(!panicked("ring/src/ordering.rs", "SLIPRING_MUTANT=x names no mutant"));
        assert!(!panicked("/x/loom-0.7.2/src/rt/path.rs", "Model exceeded maximum number of branches."));
        assert!(!panicked("/x/loom-0.7.2/src/rt/object.rs", "assertion failed: self.x"));
    }
}
