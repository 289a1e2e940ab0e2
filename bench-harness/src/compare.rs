//! `compare`: the change from one result to another, or from one build to another, where the builds run in turn.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::assertion::is_figure;
use crate::baseline;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::load;
use crate::peers::PeersDocument;
use crate::quantity::{nanos, per_second};
use crate::run::document::RunDocument;
use crate::statistics::{self, Interval};

/// What `--help` says first.
pub const HELP: &str = "Compare two results, or two builds of this program.\n\n\
    BASE and NEW are each a result directory, its run.json or peers.json, the name of a saved\n\
    baseline, or a bench-harness binary. Two binaries are run in turn (A B, B A, ...) with the\n\
    arguments after --, for example:\n\n\
    bench-harness compare ./old ./new --rounds 7 -- spsc --rate 1M/s --duration 500ms\n\n\
    Runs of a stored result, and rounds of two binaries, are compared by their medians. A verdict\n\
    (improved, regressed, no change) needs three on each side, so store results with --runs 3 or\n\
    more, and the whole 95 % bootstrap interval on one side of no change; else it is inconclusive.\n\n\
    The exit code is 0 whatever the verdicts, unless --fail-on asks: then it is 1 for a regression\n\
    beyond its limit, and 64 if a figure of it could not be judged. Results that are INVALID or\n\
    of a debug build are named, and compared all the same.";

/// Options of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// The older result or build
    pub base: String,
    /// The newer result or build
    pub new: String,
    /// Rounds of two binaries
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Exit with 1 if a figure regressed by more: 'p99>5%', 'p50>10%,rate>3%'; of peers results 'median>5%'
    #[arg(long)]
    pub fail_on: Option<String>,
    /// Changes smaller than this are no change
    #[arg(long, default_value = "2%")]
    pub margin: String,
    /// Compare results of different machines all the same
    #[arg(long)]
    pub force: bool,
    /// Directory of the baselines
    #[arg(long, env = "BENCH_HARNESS_STORE")]
    pub store: Option<PathBuf>,
    /// The words after `run` that both binaries are called with
    #[arg(last = true)]
    pub work: Vec<String>,
}

/// With fewer rounds than this on a side, the verdict is `Inconclusive`.
const FEWEST: usize = 3;

/// A side of a comparison: a stored result, or a build to run.
enum Side {
    Run(Box<RunDocument>),
    Peers(Box<PeersDocument>),
    Binary(PathBuf),
}

impl Side {
    /// What an error calls it.
    fn words(&self) -> &'static str {
        match self {
            Self::Run(_) => "a result of `run`",
            Self::Peers(_) => "a result of `peers`",
            Self::Binary(_) => "taken for a binary, as its name does not end in .json",
        }
    }
}

/// A figure that both sides have.
struct Figure {
    name: String,
    /// True for nanoseconds, of which less is better; false for million messages a second.
    less: bool,
    base: Vec<f64>,
    new: Vec<f64>,
    /// True if the rounds of both sides are pairs, which ran next to each other.
    paired: bool,
}

impl Figure {
    /// The number of runs or rounds of the side that has fewer.
    fn rounds(&self) -> usize {
        self.base.len().min(self.new.len())
    }

    /// True if the limit `name` of `--fail-on` is about this figure.
    fn is_named(&self, name: &str) -> bool {
        self.name == name || (name == "median" && self.name.contains(' '))
    }

    /// A value with its unit.
    fn show(&self, value: f64) -> String {
        if self.less { nanos(value.max(0.0).round() as u64) } else { per_second(value * 1e6) }
    }
}

/// The verdict on a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Regressed,
    Improved,
    NoChange,
    Inconclusive,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::Improved => "improved",
            Self::NoChange => "no change",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Runs `compare`.
///
/// # Errors
///
/// [`Failure`]: usage (different machines, different work), files, or a regression that `--fail-on` names.
pub fn command(arguments: &CompareArgs) -> Result<(), Failure> {
    let margin = percent(&arguments.margin)?;
    let limits = arguments.fail_on.as_deref().map(limits).transpose()?.unwrap_or_default();
    let base = side(&arguments.base, arguments)?;
    let new = side(&arguments.new, arguments)?;
    let figures = match (base, new) {
        (Side::Run(_) | Side::Peers(_), Side::Run(_) | Side::Peers(_)) if !arguments.work.is_empty() => {
            return Err(Failure::usage("the words after -- are what two binaries run; these are stored results"));
        }
        (Side::Run(base), Side::Run(new)) => {
            same_machine(&base.environment, &new.environment, arguments.force)?;
            same_work(&work(&base), &work(&new), arguments.force)?;
            doubts([("BASE", &base), ("NEW", &new)]);
            stored_runs(&base, &new)
        }
        (Side::Peers(base), Side::Peers(new)) => {
            same_machine(&base.environment, &new.environment, arguments.force)?;
            stored_peers(&base, &new)
        }
        (Side::Binary(base), Side::Binary(new)) => take_turns(&base, &new, arguments)?,
        (base, new) => {
            return Err(Failure::usage(format!(
                "compare like with like: two runs, two peers results, or two binaries; {} is {}, {} is {}",
                arguments.base,
                base.words(),
                arguments.new,
                new.words()
            )));
        }
    };
    if figures.is_empty() {
        return Err(Failure::usage("the two results have no figure in common"));
    }
    report(&figures, margin, &limits)
}

/// Says what speaks against the figures of two stored runs.
fn doubts(sides: [(&str, &RunDocument); 2]) {
    for (side, document) in sides {
        if !document.valid {
            println!("{side} is INVALID: {}", document.reason);
        }
        if document.environment.profile == "debug" {
            println!("{side} is a debug build, whose figures mean nothing");
        }
    }
}

fn report(figures: &[Figure], margin: f64, limits: &[(String, f64)]) -> Result<(), Failure> {
    println!("{:<44}{:>12}{:>12}{:>10}{:>20}  verdict", "figure", "base", "new", "change", "95 % interval");
    let mut failures = Vec::new();
    for figure in figures {
        let (Some(base), Some(new)) = (statistics::median(&figure.base), statistics::median(&figure.new)) else {
            continue;
        };
        let interval = if figure.paired {
            statistics::paired_ratio(&figure.new, &figure.base)
        } else {
            statistics::unpaired_ratio(&figure.base, &figure.new)
        };
        let Some(interval) = interval else { continue };
        let verdict = verdict(interval, figure.less, margin, figure.rounds());
        let change = (interval.median - 1.0) * 100.0;
        println!(
            "{:<44}{:>12}{:>12}{:>10}{:>20}  {}",
            figure.name,
            figure.show(base),
            figure.show(new),
            format!("{change:+.1} %"),
            format!("{:+.1} .. {:+.1} %", (interval.low - 1.0) * 100.0, (interval.high - 1.0) * 100.0),
            verdict.words()
        );
        let worse = if figure.less { change } else { -change };
        for (name, limit) in limits {
            if figure.is_named(name) && verdict == Verdict::Regressed && worse > *limit * 100.0 {
                failures.push(format!("{} is worse by {worse:.1} %", figure.name));
            }
        }
    }
    if figures.iter().all(|figure| figure.rounds() < FEWEST) {
        println!("\nno verdict: it needs {FEWEST} runs or rounds on each side (--runs {FEWEST}, --rounds {FEWEST})");
    }
    if !failures.is_empty() {
        return Err(Failure::Regression(failures.join("; ")));
    }
    limits.iter().try_for_each(|(name, _)| judged(figures, name))
}

/// Whether a figure of `--fail-on` was judged: a limit that nothing is held to would pass in silence.
fn judged(figures: &[Figure], name: &str) -> Result<(), Failure> {
    let mut named = figures.iter().filter(|figure| figure.is_named(name)).peekable();
    if named.peek().is_none() {
        let known: Vec<&str> =
            figures.iter().map(|figure| figure.name.as_str()).filter(|name| !name.contains(' ')).collect();
        return Err(Failure::usage(match known.is_empty() {
            true => format!("--fail-on {name} was not judged: results of peers are held to `median`"),
            false => format!(
                "--fail-on {name} was not judged: both results have {} and no more; a high percentile needs longer runs or \
                 a higher rate",
                known.join(", ")
            ),
        }));
    }
    match named.find(|figure| figure.rounds() < FEWEST) {
        None => Ok(()),
        Some(figure) => Err(Failure::usage(format!(
            "--fail-on {name} was not judged: {} has {} run(s) or round(s) on a side, and a verdict needs {FEWEST}",
            figure.name,
            figure.rounds()
        ))),
    }
}

fn verdict(interval: Interval, less: bool, margin: f64, rounds: usize) -> Verdict {
    let small = (interval.median - 1.0).abs() <= margin;
    let narrow = interval.low >= 1.0 - margin && interval.high <= 1.0 + margin;
    match (interval.low > 1.0, interval.high < 1.0) {
        _ if rounds < FEWEST => Verdict::Inconclusive,
        _ if narrow => Verdict::NoChange,
        (false, false) => Verdict::Inconclusive,
        _ if small => Verdict::NoChange,
        (grew, _) if grew == less => Verdict::Regressed,
        _ => Verdict::Improved,
    }
}

/// The percentage in a text: 0.05 for `5%`.
fn percent(text: &str) -> Result<f64, Failure> {
    text.trim()
        .strip_suffix('%')
        .and_then(|number| number.trim().parse::<f64>().ok())
        .filter(|number| number.is_finite() && *number >= 0.0)
        .map(|number| number / 100.0)
        .ok_or_else(|| Failure::usage(format!("`{text}` is not a percentage, such as 5%")))
}

/// The figures of `--fail-on` with the change that each may have, such as `p99>5%,rate>3%`.
fn limits(text: &str) -> Result<Vec<(String, f64)>, Failure> {
    text.split(',')
        .map(|part| {
            let read = part.split_once('>').map(|(name, limit)| (name.trim(), limit));
            match read {
                Some((name, limit)) if is_figure(name) || name == "median" => Ok((name.to_owned(), percent(limit)?)),
                _ => Err(Failure::usage(format!(
                    "--fail-on {part}: write for example p99>5%,rate>3%; of peers results median>5%"
                ))),
            }
        })
        .collect()
}

fn side(text: &str, arguments: &CompareArgs) -> Result<Side, Failure> {
    let path = Path::new(text);
    if path.is_dir() {
        return stored(path);
    }
    if path.is_file() {
        if path.extension().is_some_and(|extension| extension == "json") {
            let document: serde_json::Value = load(path)?;
            return if document.get("rows").is_some() {
                Ok(Side::Peers(Box::new(load(path)?)))
            } else {
                Ok(Side::Run(Box::new(load(path)?)))
            };
        }
        let path = path.canonicalize().map_err(|error| Failure::file(path, error))?;
        return Ok(Side::Binary(path));
    }
    let kept = baseline::directory(arguments.store.as_deref())?.join(text);
    if kept.is_dir() {
        return stored(&kept);
    }
    Err(Failure::usage(format!(
        "{text} is no directory, no file and no baseline; `bench-harness baseline ls` lists the baselines"
    )))
}

fn stored(directory: &Path) -> Result<Side, Failure> {
    let (run, peers) = (directory.join("run.json"), directory.join("peers.json"));
    if run.is_file() {
        Ok(Side::Run(Box::new(load(&run)?)))
    } else if peers.is_file() {
        Ok(Side::Peers(Box::new(load(&peers)?)))
    } else {
        Err(Failure::usage(format!("{} holds no run.json and no peers.json", directory.display())))
    }
}

fn same_machine(base: &Environment, new: &Environment, force: bool) -> Result<(), Failure> {
    if base.machine == new.machine || force {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "these are figures of different machines ({}, {} cores, and {}, {} cores): nothing can be said about the \
         program from them. --force compares them all the same.",
        base.cpu, base.cores, new.cpu, new.cores
    )))
}

fn same_work(base: &str, new: &str, force: bool) -> Result<(), Failure> {
    if base == new || force {
        return Ok(());
    }
    Err(Failure::usage(format!("these runs did different work ({base} and {new}); --force compares them all the same")))
}

fn work(document: &RunDocument) -> String {
    let setup = &document.setup;
    let rate = document.rate_asked.map_or_else(|| "max".to_owned(), |rate| format!("{rate}/s"));
    format!(
        "{} at {rate}, {} loop, {}, {} bytes, capacity {}, {} to {} threads, batch {}, {}",
        document.scenario,
        setup.pace,
        setup.arrival,
        setup.payload,
        setup.capacity,
        setup.producers,
        setup.consumers,
        setup.batch,
        setup.wait
    )
}

const NAMES: [&str; 6] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

/// The values of the figure `name` in a `run` result, one for each run that has it: a percentile in nanoseconds, or by
/// any other name the rate in million messages a second.
fn samples(document: &RunDocument, name: &str) -> Vec<f64> {
    document
        .runs
        .iter()
        .filter_map(|run| match NAMES.iter().position(|known| *known == name) {
            Some(index) => run.latency.values()[index].map(|value| value as f64),
            None => Some(run.rate_achieved / 1e6),
        })
        .collect()
}

fn stored_runs(base: &RunDocument, new: &RunDocument) -> Vec<Figure> {
    NAMES
        .iter()
        .map(|name| (*name, true))
        .chain([("rate", false)])
        .map(|(name, less)| Figure {
            name: name.to_owned(),
            less,
            base: samples(base, name),
            new: samples(new, name),
            paired: false,
        })
        .filter(|figure| !figure.base.is_empty() && !figure.new.is_empty())
        .collect()
}

fn stored_peers(base: &PeersDocument, new: &PeersDocument) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (row, old) in base.rows.iter().zip(&base.samples) {
        let same = new.rows.iter().position(|other| other.contender == row.contender && other.same_cell(row));
        let Some(fresh) = same.and_then(|index| new.samples.get(index)) else { continue };
        figures.push(Figure {
            name: format!("{} {} {} {} {}B", row.scenario, row.contender, row.mode, row.capacity, row.payload),
            less: !row.more_is_better(),
            base: old.clone(),
            new: fresh.clone(),
            paired: false,
        });
    }
    figures
}

/// Runs two builds in turn: A B, B A, A B, ...
fn take_turns(base: &Path, new: &Path, arguments: &CompareArgs) -> Result<Vec<Figure>, Failure> {
    if arguments.work.is_empty() {
        return Err(Failure::usage("say after -- what both are to run, such as -- spsc --rate 1M/s"));
    }
    let scratch = tempfile::tempdir().map_err(|error| Failure::file(&std::env::temp_dir(), error))?;
    let mut documents: [Vec<RunDocument>; 2] = [Vec::new(), Vec::new()];
    let rounds = arguments.rounds.max(1);
    for round in 0..rounds {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let binary = [base, new][which];
            eprintln!("round {} of {rounds}: {}", round + 1, binary.display());
            documents[which].push(one_run(binary, &arguments.work, scratch.path())?);
        }
    }
    let [base, new] = documents;
    let invalid = base.iter().chain(&new).filter(|document| !document.valid).count();
    if invalid > 0 {
        println!("{invalid} of {} runs were INVALID; their figures are in the table all the same\n", rounds * 2);
    }
    let whole = |document: &RunDocument, index: usize| match index {
        0..6 => document.latency.values()[index].map(|value| value as f64),
        _ => Some(document.rate_achieved / 1e6),
    };
    Ok(NAMES
        .iter()
        .map(|name| (*name, true))
        .chain([("rate", false)])
        .enumerate()
        .map(|(index, (name, less))| {
            // A round counts only if both builds have the figure, so that the values stay pairs.
            let pairs: Vec<(f64, f64)> = base
                .iter()
                .zip(&new)
                .filter_map(|(base, new)| Some((whole(base, index)?, whole(new, index)?)))
                .collect();
            let (base, new) = pairs.into_iter().unzip();
            Figure { name: name.to_owned(), less, base, new, paired: true }
        })
        .filter(|figure| !figure.base.is_empty())
        .collect())
}

fn one_run(binary: &Path, work: &[String], scratch: &Path) -> Result<RunDocument, Failure> {
    let output = Command::new(binary)
        .arg("run")
        .args(work)
        .args(["--runs", "1", "--format", "json", "--out"])
        .arg(scratch)
        .output()
        .map_err(|error| Failure::file(binary, error))?;
    // Exit codes 1 and 2, a broken assertion and an invalid run, have a result as well.
    match output.status.code() {
        Some(0..=2) if !scratch.join("run.json").is_file() => Err(Failure::usage(format!(
            "{} run {} wrote no result: is it a bench-harness?",
            binary.display(),
            work.join(" ")
        ))),
        Some(0..=2) => load(&scratch.join("run.json")),
        code => Err(Failure::usage(format!(
            "{} run {} ended with {code:?}: {}",
            binary.display(),
            work.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: f64, median: f64, high: f64) -> Interval {
        Interval { median, low, high }
    }

    #[test]
    fn a_verdict_needs_the_whole_interval_on_one_side() {
        let judge = |low, median, high| verdict(interval(low, median, high), true, 0.02, 5);
        assert_eq!(judge(1.05, 1.10, 1.20), Verdict::Regressed);
        assert_eq!(judge(0.80, 0.90, 0.95), Verdict::Improved);
        assert_eq!(judge(0.99, 1.00, 1.01), Verdict::NoChange);
        assert_eq!(judge(0.90, 1.10, 1.30), Verdict::Inconclusive);
        assert_eq!(judge(1.001, 1.01, 1.03), Verdict::NoChange);
        assert_eq!(verdict(interval(1.05, 1.1, 1.2), false, 0.02, 5), Verdict::Improved);
        assert_eq!(verdict(interval(1.05, 1.1, 1.2), true, 0.02, 2), Verdict::Inconclusive);
    }

    #[test]
    fn reads_limits() {
        assert_eq!(limits("p99>5%").unwrap(), vec![("p99".to_owned(), 0.05)]);
        assert!(limits("p98>5%").is_err() && limits("p99>5").is_err() && limits("p99").is_err());
    }
}
