//! One process: a model, perhaps with a mutant, and what its output means.

use crate::build::Binary;
use std::process::Command;
use std::time::{Duration, Instant};

/// A model, by its name in a test binary.
#[derive(Clone, Debug)]
pub struct Model {
    /// Module and function.
    pub name: String,
    /// Where it is.
    pub binary: Binary,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// No schedule is left, and none failed.
    Completed {
        /// How many there were.
        iterations: u64,
        /// Exhaustive, or the bound.
        explored: String,
        /// What was shown.
        property: String,
        /// How long it took.
        took: Duration,
    },
    /// It failed, and said why in a way that counts.
    Found {
        /// A causality violation, a deadlock or a failed assertion, in its own words.
        what: String,
        /// How long it took.
        took: Duration,
    },
    /// It ended without a word that counts: too many branches, a crash, an early end.
    Unclear {
        /// The end of what it printed.
        last_words: String,
        /// How long it took.
        took: Duration,
    },
}

impl Outcome {
    /// In a sentence after the model's name.
    pub fn complaint(&self) -> String {
        match self {
            Self::Completed { .. } => "completed".to_owned(),
            Self::Found { what, .. } => format!("failed: {what}"),
            Self::Unclear { last_words, .. } => format!("did not complete:\n{last_words}"),
        }
    }
}

/// The models of a binary.
pub fn list(binary: &Binary) -> Result<Vec<Model>, String> {
    let output = Command::new(&binary.path).args(["--list", "--format=terse"]).output();
    let output = output.map_err(|error| format!("{}: {error}", binary.path.display()))?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = names.lines().filter_map(|line| line.strip_suffix(": test"));
    let models = names.filter(|name| !name.starts_with("catalogue::"));
    Ok(models.map(|name| Model { name: name.to_owned(), binary: binary.clone() }).collect())
}

/// Runs `name` of a binary and gives back whether it succeeded and all that it printed.
pub fn process(binary: &Binary, name: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(&binary.path);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    for variable in ["SLIPRING_MUTANT", "SLIPRING_QUICK", "LOOM_LOG", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command.envs(variables.iter().copied());
    match command.output() {
        Ok(output) => {
            let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.push_str(&String::from_utf8_lossy(&output.stderr));
            (output.status.success(), said)
        }
        Err(error) => (false, error.to_string()),
    }
}

/// Runs a model, with a mutant if one is named; not as deep as it could go if `quick`.
pub fn model(model: &Model, mutant: Option<&str>, quick: bool) -> Outcome {
    let started = Instant::now();
    let mut variables = Vec::new();
    variables.extend(mutant.map(|mutant| ("SLIPRING_MUTANT", mutant)));
    variables.extend(quick.then_some(("SLIPRING_QUICK", "1")));
    let (succeeded, said) = process(&model.binary, &model.name, &variables);
    judge(succeeded, &said, started.elapsed())
}

/// What a run's output means. A failure counts only if it names one of the three ways in which a model fails.
fn judge(succeeded: bool, said: &str, took: Duration) -> Outcome {
    if succeeded {
        let completed = said.lines().find_map(|line| {
            let mut parts = line.strip_prefix("Completed in ")?.split(" | ");
            let iterations = parts.next()?.strip_suffix(" iterations")?.parse().ok()?;
            Some((iterations, parts.next()?.to_owned(), parts.next()?.to_owned()))
        });
        if let Some((iterations, explored, property)) = completed {
            return Outcome::Completed { iterations, explored, property, took };
        }
    } else if let Some(what) = why(said) {
        return Outcome::Found { what, took };
    }
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last_words = lines[lines.len().saturating_sub(12)..].join("\n");
    Outcome::Unclear { last_words, took }
}

fn why(said: &str) -> Option<String> {
    let marks = ["Causality violation", "deadlock", "assertion", "ring's promise"];
    let line = said.lines().find(|line| marks.iter().any(|mark| line.contains(mark)))?;
    Some(line.trim().trim_end_matches(['.', ':']).chars().take(90).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_ways_to_fail_count() {
        let judged = |succeeded, said| judge(succeeded, said, Duration::ZERO);
        assert!(matches!(
            judged(true, "\nCompleted in 7 iterations | exhaustive | all is well\n"),
            Outcome::Completed { iterations: 7, .. }
        ));
        assert!(matches!(judged(true, "test result: ok. 0 passed"), Outcome::Unclear { .. }));
        assert!(matches!(judged(false, "Causality violation: Concurrent read"), Outcome::Found { .. }));
        assert!(matches!(judged(false, "deadlock; threads = [..]"), Outcome::Found { .. }));
        assert!(matches!(judged(false, "assertion `left == right` failed"), Outcome::Found { .. }));
        assert!(matches!(judged(false, "Model exceeded maximum number of branches."), Outcome::Unclear { .. }));
        assert!(matches!(judged(false, "Completed in 7 iterations | exhaustive | x"), Outcome::Unclear { .. }));
    }
}
