//! Tries random edits of ring. One copy of the source holds all of them, and each process switches one on. Ring's tests
//! run first, then the quick models, until one fails.

use crate::build::{self, Configuration, workspace};
use crate::edits::{self, Edit, Part};
use crate::run::{self, Model, Outcome};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The edits to draw.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// The seed, fixed before the run.
    pub seed: u64,
    /// Count of the edits to try, all of which compile.
    pub count: usize,
    /// The part of ring to edit.
    pub part: Part,
}

/// The time limit of a test program or model, long enough for a busy machine. One that exceeds it counts as failed.
const LIMIT: Duration = Duration::from_secs(300);

/// The test program that checks which code must not compile. It builds programs of its own, which an edit does not
/// affect.
const LEFT_OUT: &str = "compile";

/// The environment variable that switches an edit on by its number.
const EDIT: &str = "SLIPRING_EDIT";

/// The copy of the source, and its target folder.
struct Copy {
    root: PathBuf,
    target: PathBuf,
}

/// The programs that run with each edit, the quickest first.
struct Programs {
    tests: Vec<(String, PathBuf)>,
    models: Vec<Model>,
}

impl Copy {
    fn new() -> Self {
        let target = build::target().join("generated");
        Self { root: target.join("tree"), target }
    }

    /// Copies the source with these edits inserted.
    fn take(&self, edits: &[Edit]) -> Result<(), String> {
        fs::create_dir_all(&self.root).map_err(|error| format!("{}: {error}", self.root.display()))?;
        for name in ["Cargo.toml", "Cargo.lock", "ring", "loom-tests", "engine", "bench-harness"] {
            let from = workspace().join(name);
            if from.exists() {
                mirror(&from, &self.root.join(name)).map_err(|error| format!("{}: {error}", from.display()))?;
            }
        }
        edits::put_in(edits, &self.root.join("ring/src"))
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(build::cargo());
        command.current_dir(&self.root).args(arguments).arg("--target-dir").arg(self.target.join("tests"));
        command.env_remove("CARGO_TARGET_DIR").stderr(Stdio::piped());
        command
    }

    /// Draws edits until as many as requested compile together, or none is left. Edits that do not compile are
    /// replaced: they change a compile-time value, or have the wrong type.
    fn settle(&self, draw: Draw, all: Vec<Edit>) -> Result<Vec<Edit>, String> {
        let mut drawn = edits::draw(all, draw.seed);
        let mut settled: Vec<Edit> = drawn.by_ref().take(draw.count).collect();
        loop {
            self.take(&settled)?;
            let checked = self.cargo(&["check", "-p", "slipring-ring", "--message-format=short"]).output();
            let checked = checked.map_err(|error| format!("cargo does not start: {error}"))?;
            if checked.status.success() {
                return Ok(settled);
            }
            let said = String::from_utf8_lossy(&checked.stderr);
            let wrong: HashSet<(&str, usize)> = said.lines().filter_map(place_of_error).collect();
            let before = settled.len();
            settled.retain(|edit| !wrong.contains(&(edit.file.as_str(), edit.line)));
            if settled.len() == before {
                return Err(format!("the edits do not compile, and it is none of them:\n{said}"));
            }
            settled.extend(drawn.by_ref().take(draw.count - settled.len()));
        }
    }

    /// Builds all programs, and runs them without an edit, which must succeed.
    fn programs(&self) -> Result<Programs, String> {
        let mut cargo =
            self.cargo(&["test", "-p", "slipring-ring", "--lib", "--tests", "--no-run", "--message-format=json"]);
        let built = cargo.output().map_err(|error| format!("cargo does not start: {error}"))?;
        if !built.status.success() {
            return Err(format!("ring's tests do not compile:\n{}", String::from_utf8_lossy(&built.stderr)));
        }
        let mut tests = Vec::new();
        let built = build::programs(&built.stdout).map(|program| (program.name, program.path));
        for test in built.filter(|(name, _)| name != LEFT_OUT) {
            let begun = Instant::now();
            if let Some(failed) = self.failing_test(&test, None) {
                return Err(format!("without an edit {failed}"));
            }
            tests.push((begun.elapsed(), test));
        }
        let mut models = Vec::new();
        for configuration in [Configuration::Loom, Configuration::Reclaim] {
            for model in run::list(&build::build_in(&self.root, &self.target, configuration)?)? {
                match run::model_with(&model, &[], true, LIMIT) {
                    Outcome::Completed { took, .. } => models.push((took, model)),
                    other => return Err(format!("without an edit the model {} {}", model.name, other.complaint())),
                }
            }
        }
        tests.sort();
        models.sort_by_key(|(took, _)| *took);
        let (tests, models) = (tests.into_iter().map(|(_, it)| it), models.into_iter().map(|(_, it)| it));
        Ok(Programs { tests: tests.collect(), models: models.collect() })
    }

    /// The first test of a program that fails, as text; `None` if all succeed.
    fn failing_test(&self, (name, path): &(String, PathBuf), edit: Option<&str>) -> Option<String> {
        let mut command = Command::new(path);
        command.current_dir(self.root.join("ring")).env_remove(EDIT).envs(edit.map(|edit| (EDIT, edit)));
        let (ended, said) = run::ended(command, LIMIT);
        match ended {
            Some(true) => None,
            None => Some(format!("{name}: does not end")),
            Some(false) => {
                let failed = said.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
                Some(format!("{name}: {}", failed.unwrap_or("ends by a signal")))
            }
        }
    }

    /// The first test or model that fails with an edit, as text; `None` if none fails.
    fn killer(&self, programs: &Programs, edit: &str) -> Option<String> {
        let test = programs.tests.iter().find_map(|test| self.failing_test(test, Some(edit)));
        test.or_else(|| {
            programs.models.iter().find_map(|model| match run::model_with(model, &[(EDIT, edit)], true, LIMIT) {
                Outcome::Completed { .. } => None,
                Outcome::Found { what, .. } => Some(format!("{}: {what}", model.name)),
                Outcome::Unclear { last_words, .. } => Some(format!("{}: {}", model.name, first_line(&last_words))),
            })
        })
    }
}

fn first_line(said: &str) -> &str {
    said.lines().find(|line| line.contains("panicked")).or_else(|| said.lines().next()).unwrap_or("no word")
}

/// Parses the file and line of `ring/src/x.rs:7:9: error…`.
fn place_of_error(line: &str) -> Option<(&str, usize)> {
    let (place, _) = line.split_once(": error")?;
    let mut parts = place.split(':');
    let file = parts.next()?.rsplit_once("src/")?.1;
    Some((file, parts.next()?.parse().ok()?))
}

/// Makes `to` a copy of `from`. Files that are equal keep their modification time, so that they are not rebuilt.
fn mirror(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        let (is, should) = (fs::read(to).ok(), fs::read(from)?);
        return if is.as_ref() == Some(&should) { Ok(()) } else { fs::write(to, should) };
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            if entry.path().is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        mirror(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Draws edits and tries each. Prints a row for each as it is known. The error lists the edits for which nothing
/// failed.
pub fn run(draw: Draw) -> Result<(), String> {
    let copy = Copy::new();
    let all = edits::all(draw.part)?;
    println!("seed {}, {} of {} edits of {:?}\n", draw.seed, draw.count, all.len(), draw.part);
    let drawn = copy.settle(draw, all)?;
    let programs = copy.programs()?;
    println!("| place | kind | edit | killed by | seconds |\n|---|---|---|---|---|");
    let mut survived = Vec::new();
    for (number, edit) in drawn.iter().enumerate() {
        let begun = Instant::now();
        let killer = copy.killer(&programs, &number.to_string());
        let seconds = begun.elapsed().as_secs();
        println!("{} {} | {seconds} |", row(edit), killer.as_deref().unwrap_or("NOBODY"));
        if killer.is_none() {
            survived.push(row(edit));
        }
    }
    println!("\n{} of {} killed", drawn.len() - survived.len(), drawn.len());
    if survived.is_empty() { Ok(()) } else { Err(format!("nothing failed for\n{}", survived.join("\n"))) }
}

fn row(edit: &Edit) -> String {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let Edit { file, function, line, kind, before, after, .. } = edit;
    format!("| {file} {line} `{function}` | {kind:?} | `{}` => `{}` |", one_line(before), one_line(after))
}
