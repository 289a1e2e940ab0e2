//! LMAX's Java Disruptor as a contender: its program is compiled once before the rounds, and each round is a process,
//! which warms up before it measures. Java can't pin single threads: the whole process is limited to the table's cores.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::link::{NoFigure, Round, Work};
use super::waiting::WaitClass;
use crate::failure::Failure;
use crate::scenario::Scenario;
use tempfile::TempDir;

static PROGRAM: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();

const SOURCE: &str = include_str!("../../java/LmaxRound.java");

/// Compiles the program with `jar`. Call it once, before the rounds, which need the returned folder: its drop removes the
/// compiled program.
///
/// # Errors
///
/// [`Failure::Usage`]: there is no such jar or no JDK, or the jar is not the Disruptor's. [`Failure::File`]: the
/// program can't be written.
pub fn prepare(jar: &Path) -> Result<TempDir, Failure> {
    let jar = jar.canonicalize().map_err(|error| Failure::usage(format!("--jar {}: {error}", jar.display())))?;
    let directory = tempfile::tempdir().map_err(|error| Failure::file(&std::env::temp_dir(), error))?;
    let source = directory.path().join("LmaxRound.java");
    std::fs::write(&source, SOURCE).map_err(|error| Failure::file(&source, error))?;
    let compiled = Command::new("javac")
        .arg("-cp")
        .arg(&jar)
        .arg("-d")
        .arg(directory.path())
        .arg(&source)
        .output()
        .map_err(|error| Failure::usage(format!("--jar needs a JDK, and javac did not start: {error}")))?;
    if !compiled.status.success() {
        return Err(Failure::usage(format!(
            "javac refused the program for {}: is that the jar of com.lmax.disruptor?\n{}",
            jar.display(),
            String::from_utf8_lossy(&compiled.stderr).trim()
        )));
    }
    let _ = PROGRAM.set((directory.path().to_owned(), jar));
    Ok(directory)
}

/// True if a jar was given and the program was compiled.
pub fn is_prepared() -> bool {
    PROGRAM.get().is_some()
}

/// Measures one round.
pub fn round(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    let Some((directory, jar)) = PROGRAM.get() else {
        return Err(NoFigure::NotApplicable("no jar was given"));
    };
    let kind = match scenario {
        Scenario::Spsc => "single",
        Scenario::MpscOne | Scenario::MpscTwo => "multi",
        _ => return Err(NoFigure::NotApplicable("its row is of spsc and mpsc only")),
    };
    if work.words != 1 {
        return Err(NoFigure::NotApplicable("its row is of 8-byte messages only"));
    }
    let wait = if work.waiting == WaitClass::Spin { "spin" } else { "yield" };
    let numbers = [work.capacity as u64, work.producers as u64, work.each, work.batch as u64];
    let cores = work.pins.cores(work.producers, work.consumers);
    let mut command = if cores.is_empty() {
        Command::new("java")
    } else {
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        let mut command = Command::new("taskset");
        command.arg("-c").arg(cores.join(",")).arg("java");
        command
    };
    let wrong = |text: String| NoFigure::Wrong(format!("java: {text}"));
    let class_path = std::env::join_paths([directory, jar]).map_err(|error| wrong(error.to_string()))?;
    let output = command
        .arg("-cp")
        .arg(class_path)
        .arg("LmaxRound")
        .arg(kind)
        .args(numbers.map(|number| number.to_string()))
        .arg(wait)
        .output()
        .map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().parse::<f64>() {
        Ok(nanos) if output.status.success() && nanos > 0.0 => {
            Ok(Round::Rate(work.each as f64 * work.producers as f64 / nanos * 1e9))
        }
        _ => Err(wrong(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
