//! `doctor`: what disturbs measurements on this machine, and the command that mends it. Each finding has its section in
//! docs/TUNING.md.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use slipring_ring::pin;

use crate::clock::{Clock, instant_cost};
use crate::environment::{Environment, read};
use crate::failure::Failure;
use crate::pin::PinPlan;
use crate::{peers, statistics};

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Fail with exit code 1 if there is a cross: measurements here would mislead
    #[arg(long)]
    pub strict: bool,
}

/// The grade of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Fine.
    Tick,
    /// Measurements will be noisier than they could be.
    Warning,
    /// Measurements will mislead.
    Cross,
}

impl Mark {
    fn sign(self) -> char {
        match self {
            Self::Tick => '\u{2713}',
            Self::Warning => '!',
            Self::Cross => '\u{2717}',
        }
    }
}

/// A property of the machine that was examined.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Its name, as in docs/TUNING.md.
    pub name: &'static str,
    /// Its grade.
    pub mark: Mark,
    /// The state of the property, in words.
    pub found: String,
    /// The command or the step that mends it; empty if nothing needs mending.
    pub mend: String,
}

#[derive(Serialize)]
struct Examination {
    version: u32,
    environment: Environment,
    findings: Vec<Finding>,
}

/// Runs `doctor`.
///
/// # Errors
///
/// [`Failure::Invalid`] if the result can't be written as JSON. [`Failure::Regression`] if the machine must be fit and a finding is
/// a cross.
pub fn command(arguments: &DoctorArgs) -> Result<(), Failure> {
    let environment = Environment::capture();
    let findings = examine(&environment);
    let fit = if arguments.strict { fit(&findings) } else { Ok(()) };
    if arguments.json {
        let examination = Examination { version: 1, environment, findings };
        let text = serde_json::to_string_pretty(&examination).map_err(|error| Failure::Invalid(error.to_string()))?;
        println!("{text}");
        return fit;
    }
    println!("{}\n", environment.headline());
    print!("{}", render(&findings));
    fit
}

/// An error that names the crosses, if there are any.
fn fit(findings: &[Finding]) -> Result<(), Failure> {
    let crosses = findings.iter().filter(|finding| finding.mark == Mark::Cross).map(|finding| finding.name);
    let crosses: Vec<_> = crosses.collect();
    match crosses.is_empty() {
        true => Ok(()),
        false => Err(Failure::Regression(format!("this machine is not fit to measure on: {}", crosses.join(", ")))),
    }
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(text, "  {} {:<16} {}", finding.mark.sign(), finding.name, finding.found);
        if !finding.mend.is_empty() {
            let _ = writeln!(text, "    {:<16} -> {}", "", finding.mend);
        }
    }
    let count = |mark| findings.iter().filter(|finding| finding.mark == mark).count();
    let _ = writeln!(
        text,
        "\n{} fine, {} warnings, {} crosses. docs/TUNING.md has a section for each.",
        count(Mark::Tick),
        count(Mark::Warning),
        count(Mark::Cross)
    );
    text
}

fn finding(name: &'static str, mark: Mark, found: String, mend: &str) -> Finding {
    let mend = if mark == Mark::Tick { String::new() } else { mend.to_owned() };
    Finding { name, mark, found, mend }
}

fn examine(environment: &Environment) -> Vec<Finding> {
    vec![
        build(environment),
        cores(environment),
        isolation(environment),
        smt(environment),
        governor(environment),
        clock_source(environment),
        constant_tsc(environment),
        timer_cost(),
        spin_hint(),
        line(environment),
        membarrier(),
        huge_pages(),
        container(),
        load(environment),
        hiccups(),
    ]
}

fn build(environment: &Environment) -> Finding {
    let mark = if environment.profile == "release" { Mark::Tick } else { Mark::Cross };
    let mend = "cargo run --release -p bench-harness -- ...";
    finding("build", mark, format!("{} build", environment.profile), mend)
}

fn cores(environment: &Environment) -> Finding {
    let count = environment.allowed.len();
    let mark = match count {
        0 | 1 => Mark::Cross,
        2 | 3 => Mark::Warning,
        _ => Mark::Tick,
    };
    let found = format!(
        "{count} cores allowed {:?} of {}; so many threads can spin at once, a third one on two cores must yield",
        environment.allowed, environment.cores
    );
    finding("cores", mark, found, "give the process more cores: taskset -c 0-3 bench-harness ..., or a larger machine")
}

fn isolation(environment: &Environment) -> Finding {
    let isolated = &environment.isolated;
    if isolated.is_empty() {
        let mend = "boot with isolcpus=2,3 nohz_full=2,3 rcu_nocbs=2,3, then measure with --pin p=2,c=3";
        return finding(
            "isolation",
            Mark::Warning,
            "no core is isolated: the system runs its own work on all of them".into(),
            mend,
        );
    }
    finding("isolation", Mark::Tick, format!("isolated: {isolated}"), "")
}

fn smt(environment: &Environment) -> Finding {
    let threads = environment.threads_per_core;
    let mark = if threads > 1 { Mark::Warning } else { Mark::Tick };
    let siblings = read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list");
    let found = if threads > 1 {
        format!("{threads} threads a core; core 0 shares with {siblings}: two of them share one pipeline")
    } else {
        "one thread a core".to_owned()
    };
    finding(
        "smt",
        mark,
        found,
        "echo off | sudo tee /sys/devices/system/cpu/smt/control, or pin to cores that are no siblings",
    )
}

fn governor(environment: &Environment) -> Finding {
    let governor = environment.governor.as_str();
    let (mark, found) = match governor {
        "" => (Mark::Tick, "the system offers no frequency control here".to_owned()),
        "performance" => (Mark::Tick, "performance".to_owned()),
        other => (Mark::Warning, format!("{other}: cores change their speed while they are measured")),
    };
    finding("governor", mark, found, "sudo cpupower frequency-set -g performance")
}

fn clock_source(environment: &Environment) -> Finding {
    let source = environment.clock_source.as_str();
    let mark = match source {
        "tsc" => Mark::Tick,
        "" => Mark::Warning,
        _ => Mark::Warning,
    };
    let found = if source.is_empty() { "unknown".to_owned() } else { source.to_owned() };
    finding(
        "clock-source",
        mark,
        found,
        "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource",
    )
}

fn constant_tsc(environment: &Environment) -> Finding {
    let (constant, nonstop) = (environment.constant_tsc, environment.nonstop_tsc);
    let mark = match (cfg!(target_arch = "x86_64"), constant, nonstop) {
        (false, ..) | (true, true, true) => Mark::Tick,
        (true, true, false) => Mark::Warning,
        (true, false, _) => Mark::Cross,
    };
    let found = format!("constant_tsc {constant}, nonstop_tsc {nonstop}");
    finding("constant-tsc", mark, found, "without a constant counter intervals are wrong: measure on another machine")
}

fn timer_cost() -> Finding {
    let clock = Clock::new();
    let (counter, instant) = (clock.reading_cost(), instant_cost());
    let mark = match counter {
        cost if cost < 40.0 => Mark::Tick,
        cost if cost < 200.0 => Mark::Warning,
        _ => Mark::Cross,
    };
    let found = format!(
        "{counter:.1} ns a reading of the counter (smallest step {:.1} ns), {instant:.1} ns an Instant",
        clock.resolution()
    );
    finding(
        "timer-cost",
        mark,
        found,
        "a reading that traps into the hypervisor: ask for a machine that exposes the time-stamp counter",
    )
}

fn spin_hint() -> Finding {
    let found =
        format!("{} ns a spin hint, by which waits count their time", slipring_ring::spin_hint_cost().as_nanos());
    finding("spin-hint", Mark::Tick, found, "")
}

/// How far apart two cores are: what a number's way to another core and back takes.
fn line(environment: &Environment) -> Finding {
    let name = "cache-line";
    let Some(pins) = (environment.allowed.len() > 1).then(|| PinPlan::given_or_spread(None, &environment.allowed, 1))
    else {
        return finding(name, Mark::Warning, "one core: nothing to measure".to_owned(), "give the process two cores");
    };
    let trips: Vec<f64> = (0..5).filter_map(|_| peers::bare_line(&pins)).collect();
    let Some(spread) = statistics::spread(&trips) else {
        return finding(
            name,
            Mark::Warning,
            "it could not be measured".to_owned(),
            "a core that threads may be pinned to",
        );
    };
    let moved = spread.max > spread.min * 1.5;
    let found = format!(
        "{:.0} ns to another core and back [{:.0}..{:.0}]{}",
        spread.median,
        spread.min,
        spread.max,
        if moved { ": the cores move nearer and farther" } else { "" }
    );
    let mend = "compare only what ran in turns, as peers does; a machine of its own, or cores that the host pins";
    finding(name, if moved { Mark::Warning } else { Mark::Tick }, found, mend)
}

fn membarrier() -> Finding {
    let kind = slipring_ring::fence::kind();
    let cheap = kind == slipring_ring::fence::Fences::Membarrier;
    let (mark, found) = if cheap {
        (Mark::Tick, "private expedited: publishers pay nothing for sleepers".to_owned())
    } else {
        (Mark::Warning, "not there: each publish pays a full fence".to_owned())
    };
    finding("membarrier", mark, found, "a kernel from 4.14 on, with a seccomp profile that allows membarrier(2)")
}

fn huge_pages() -> Finding {
    let transparent = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let chosen = transparent
        .split_whitespace()
        .find(|word| word.starts_with('['))
        .unwrap_or("unknown")
        .trim_matches(['[', ']'])
        .to_owned();
    let mark = if matches!(chosen.as_str(), "always" | "madvise") { Mark::Tick } else { Mark::Warning };
    finding(
        "huge-pages",
        mark,
        format!("transparent huge pages: {chosen}; large rings miss the TLB less with them"),
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )
}

/// The processor limits of this process's control group: a quota stops all its threads at once.
fn container() -> Finding {
    let own = read("/proc/self/cgroup");
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    let quota = [format!("/sys/fs/cgroup{path}/cpu.max"), "/sys/fs/cgroup/cpu.max".to_owned()]
        .iter()
        .map(|file| read(file))
        .find(|text| !text.is_empty())
        .unwrap_or_default();
    let limited = !quota.is_empty() && !quota.starts_with("max");
    let (mark, found) = if limited {
        (
            Mark::Cross,
            format!(
                "a CPU quota of {quota} (time and period in microseconds): all threads stand still when it is used up"
            ),
        )
    } else {
        (Mark::Tick, "no CPU quota".to_owned())
    };
    finding(
        "container",
        mark,
        found,
        "docker run --cpuset-cpus=2,3 instead of --cpus=2 (Kubernetes: static CPU manager, whole cores)",
    )
}

fn load(environment: &Environment) -> Finding {
    let free = environment.cores as f64 * 0.1;
    let mark = match environment.load {
        load if load <= free.max(0.2) => Mark::Tick,
        load if load <= environment.cores as f64 * 0.5 => Mark::Warning,
        _ => Mark::Cross,
    };
    let found = format!("load average {:.2} on {} cores", environment.load, environment.cores);
    finding("load", mark, found, "stop what else runs (top -o %CPU), and look again in a minute")
}

/// Runs a spinning thread on each allowed core for 0.2 s, and finds how long the machine stops it: the longest stop,
/// and the share of the time that is lost in stops of more than 5 us.
fn hiccups() -> Finding {
    let threads: Vec<_> = pin::allowed_cores()
        .into_iter()
        .map(|core| {
            std::thread::spawn(move || {
                let _ = pin::pin_current(core);
                let (begun, mut last) = (Instant::now(), Instant::now());
                let (mut worst, mut lost) = (Duration::ZERO, Duration::ZERO);
                while begun.elapsed() < Duration::from_millis(200) {
                    let now = Instant::now();
                    let gap = now - last;
                    if gap > Duration::from_micros(5) {
                        lost += gap;
                    }
                    worst = worst.max(gap);
                    last = now;
                }
                (core, worst, lost.as_secs_f64() / begun.elapsed().as_secs_f64())
            })
        })
        .collect();
    let seen: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
    let worst = seen.iter().map(|(_, worst, _)| *worst).max().unwrap_or_default();
    let mark = match worst {
        gap if gap < Duration::from_micros(100) => Mark::Tick,
        gap if gap < Duration::from_millis(2) => Mark::Warning,
        _ => Mark::Cross,
    };
    let each: Vec<String> = seen
        .iter()
        .map(|(core, worst, lost)| format!("core {core}: longest {worst:.1?}, {:.2} % lost", lost * 100.0))
        .collect();
    finding(
        "hiccups",
        mark,
        format!("spinning for 0.2 s, {}", each.join("; ")),
        "isolate cores, move interrupts away (/proc/irq/*/smp_affinity), stop other work; on a virtual machine ask for dedicated cores",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_fine_says_what_mends_it() {
        let findings = examine(&Environment::capture());
        assert_eq!(findings.len(), 15);
        for finding in &findings {
            assert_eq!(finding.mark == Mark::Tick, finding.mend.is_empty(), "{finding:?}");
            assert!(!finding.found.is_empty());
        }
    }

    #[test]
    fn every_finding_has_its_section_in_the_tuning_page() {
        let page = include_str!("../../docs/TUNING.md");
        for finding in examine(&Environment::default()) {
            assert!(page.contains(&format!("## {}", finding.name)), "no section {}", finding.name);
        }
    }

    #[test]
    fn a_strict_look_fails_by_the_names_of_its_crosses() {
        let one = |name, mark| finding(name, mark, String::new(), "");
        let fine = [one("smt", Mark::Warning), one("cores", Mark::Tick)];
        assert!(fit(&fine).is_ok());
        let [warning, tick] = fine;
        let failure = fit(&[warning, one("load", Mark::Cross), tick, one("build", Mark::Cross)]).unwrap_err();
        assert_eq!(failure.code(), 1);
        assert!(failure.to_string().ends_with(": load, build"), "{failure}");
    }
}
