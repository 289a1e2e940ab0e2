//! The machine, the build and the time of a measurement. A figure means little without them.

use std::fs;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::clock;

/// The description that is stored with each result. Text that the system does not report is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// A digest of the machine's identity, processor, cores and memory. Results of one machine have equal digests,
    /// which do not reveal its name.
    pub machine: String,
    /// The model name of the processor.
    pub cpu: String,
    /// Count of the cores that are online.
    pub cores: usize,
    /// Cores that this process may use, by the system's numbers.
    pub allowed: Vec<usize>,
    /// Hardware threads of each core.
    pub threads_per_core: usize,
    /// The hypervisor; empty on a machine that is not virtual.
    pub hypervisor: String,
    /// Memory in bytes.
    pub memory: u64,
    /// The operating system and its kernel version.
    pub kernel: String,
    /// The frequency governor of the first core; empty if there is none.
    pub governor: String,
    /// The kernel's clock source.
    pub clock_source: String,
    /// True if the time-stamp counter has a constant rate.
    pub constant_tsc: bool,
    /// True if the time-stamp counter goes on while cores sleep.
    pub nonstop_tsc: bool,
    /// The time that one reading of the harness's clock takes, in nanoseconds.
    pub clock_reading_ns: f64,
    /// The isolated cores, as a kernel list such as `2-3`; empty if there are none.
    pub isolated: String,
    /// The load average over one minute, before the measurement.
    pub load: f64,
    /// The version of the compiler.
    pub rustc: String,
    /// `release` or `debug`.
    pub profile: String,
    /// Version of this program.
    pub version: String,
    /// The time of the measurement, in UTC.
    pub date: String,
}

impl Environment {
    /// Examines the machine. Call it before any thread is pinned: a pin would hide the other cores.
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
            allowed: slipring_ring::pin::allowed_cores(),
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
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }

    /// Two lines that head a report.
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

    /// Name and value of each row of a page's table.
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

/// The command line, without the directory of the program; words that a shell would split are quoted.
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

/// The trimmed text of a file; empty if it cannot be read.
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

/// Count of the numbers in a kernel list such as `0-3,8`; `None` if the text is no list.
pub fn range_len(list: &str) -> Option<usize> {
    let mut total = 0;
    for part in list.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (usize, usize) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        total += high.checked_sub(low)? + 1;
    }
    Some(total)
}

/// The FNV-1a hash.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists() {
        assert_eq!(range_len("0-3,8"), Some(5));
        assert_eq!(range_len("0"), Some(1));
        assert_eq!(range_len(""), None);
    }
}
