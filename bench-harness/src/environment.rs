//! The machine a figure was measured on. Without it a figure says nothing.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{clock, pin};

/// What is recorded about the machine, the build and the moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Equal for equal machines; a digest, so that it gives no name away.
    pub machine: String,
    /// The processor's own name.
    pub cpu: String,
    /// Cores the system has online.
    pub cores: usize,
    /// Cores this process may use, by their real numbers.
    pub allowed: Vec<usize>,
    /// Hardware threads a core.
    pub threads_per_core: usize,
    /// The hypervisor, or empty.
    pub hypervisor: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Operating system and kernel.
    pub kernel: String,
    /// Frequency governor of the first core, or empty.
    pub governor: String,
    /// The kernel's clock source.
    pub clock_source: String,
    /// The time-stamp counter runs at one speed.
    pub constant_tsc: bool,
    /// The time-stamp counter runs on in sleep.
    pub nonstop_tsc: bool,
    /// What one reading of the harness's clock costs, in nanoseconds.
    pub clock_reading_ns: f64,
    /// Cores that the kernel leaves alone, or empty.
    pub isolated: String,
    /// Load average over a minute when the run began.
    pub load: f64,
    /// The compiler.
    pub rustc: String,
    /// `release` or `debug`.
    pub profile: String,
    /// Version of this program.
    pub version: String,
    /// When, in UTC.
    pub date: String,
}

impl Environment {
    /// Looks at the machine. Call it before any thread is pinned.
    pub fn capture() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpu_field(&cpuinfo, "model name")
            .or_else(|| cpu_field(&cpuinfo, "Model"))
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let flags = cpu_field(&cpuinfo, "flags").unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|found| found == flag);
        let cores = range_len(&read("/sys/devices/system/cpu/online"))
            .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
            .unwrap_or(1);
        let kernel = format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease"));
        let memory = read("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
            .map_or(0, |kib| kib * 1024);
        let identity = format!("{}{}", read("/etc/machine-id"), read("/proc/sys/kernel/hostname"));
        Self {
            machine: format!("{:016x}", digest(&format!("{identity}{cpu}{cores}{memory}"))),
            cpu,
            cores,
            allowed: pin::allowed(),
            threads_per_core: threads_per_core(),
            hypervisor: if has("hypervisor") {
                let kind = read("/sys/hypervisor/type");
                if kind.is_empty() { "yes".to_owned() } else { kind }
            } else {
                String::new()
            },
            memory,
            kernel: kernel.trim().to_owned(),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            constant_tsc: has("constant_tsc"),
            nonstop_tsc: has("nonstop_tsc"),
            clock_reading_ns: (clock::Clock::new().reading_cost() * 100.0).round() / 100.0,
            isolated: read("/sys/devices/system/cpu/isolated"),
            load: read("/proc/loadavg").split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0),
            rustc: env!("BENCH_RUSTC").to_owned(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: utc(SystemTime::now()),
        }
    }

    /// Two lines for the head of a report.
    pub fn headline(&self) -> String {
        let virtualised = if self.hypervisor.is_empty() { "" } else { ", virtual machine" };
        format!(
            "{} | {} cores, {} allowed {:?}{virtualised} | {}\n{} | {} | clock {} ({} ns a reading) | load {:.2} | {}",
            self.cpu,
            self.cores,
            self.allowed.len(),
            self.allowed,
            self.kernel,
            self.rustc,
            self.profile,
            self.clock_source,
            self.clock_reading_ns,
            self.load,
            self.date,
        )
    }

    /// Name and value of each line for a page's table.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let known = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![
            ("processor", self.cpu.clone()),
            ("cores", format!("{} online, allowed {:?}", self.cores, self.allowed)),
            ("threads a core", self.threads_per_core.to_string()),
            ("virtual machine", known(&self.hypervisor)),
            ("memory", format!("{:.1} GiB", self.memory as f64 / (1u64 << 30) as f64)),
            ("kernel", self.kernel.clone()),
            ("isolated cores", known(&self.isolated)),
            ("governor", known(&self.governor)),
            (
                "clock",
                format!(
                    "{}, constant_tsc {}, nonstop_tsc {}, {} ns a reading",
                    self.clock_source, self.constant_tsc, self.nonstop_tsc, self.clock_reading_ns
                ),
            ),
            ("load", format!("{:.2}", self.load)),
            ("build", format!("{}, {}, {}", self.version, self.profile, self.rustc)),
            ("date", self.date.clone()),
            ("machine", self.machine.clone()),
        ]
    }
}

/// The command line as typed, without the directory of the program.
pub fn command_line() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = std::path::Path::new(&program)
        .file_name()
        .map_or_else(|| "bench-harness".to_owned(), |name| name.to_string_lossy().into_owned());
    std::iter::once(name)
        .chain(words.map(|word| {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./,=:+@".contains(letter);
            if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{word}'") }
        }))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A small file's text without its line end, or nothing.
pub fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn cpu_field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn threads_per_core() -> usize {
    range_len(&read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")).unwrap_or(1)
}

/// How many numbers a kernel list such as `0-3,8` names.
pub fn range_len(list: &str) -> Option<usize> {
    let mut total = 0;
    for part in list.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (usize, usize) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        total += high.checked_sub(low)? + 1;
    }
    Some(total)
}

/// FNV-1a.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// `2026-05-02T12:34:56Z`.
pub fn utc(moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date of a day number, with years that begin in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest % 3_600 / 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        assert_eq!(utc(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(1_777_725_296)), "2026-05-02T12:34:56Z");
    }

    #[test]
    fn kernel_lists() {
        assert_eq!(range_len("0-3,8"), Some(5));
        assert_eq!(range_len("0"), Some(1));
        assert_eq!(range_len(""), None);
    }
}
