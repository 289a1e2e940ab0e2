//! What the operating system counts of this process. All of it needs Linux.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::failure::Failure;

fn unknown(what: &str) -> Failure {
    Failure::usage(format!("the system does not tell {what}: this needs Linux"))
}

/// Resident bytes of this process.
///
/// # Errors
///
/// [`Failure`]: the system does not report it.
pub fn resident() -> Result<u64, Failure> {
    let path = Path::new("/proc/self/status");
    let status = fs::read_to_string(path).map_err(|error| Failure::file(path, error))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| unknown("resident memory"))
}

/// The processor time that this process has used so far; `None` if the system does not report it.
pub fn process_time() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return spent(rustix::time::ClockId::ProcessCPUTime);
    #[cfg(not(target_os = "linux"))]
    None
}

/// The processor time that the calling thread has used so far.
///
/// # Errors
///
/// [`Failure::Usage`]: the system does not report it.
pub fn thread_time() -> Result<Duration, Failure> {
    #[cfg(target_os = "linux")]
    let spent = spent(rustix::time::ClockId::ThreadCPUTime);
    #[cfg(not(target_os = "linux"))]
    let spent = None;
    spent.ok_or_else(|| unknown("the processor time of a thread"))
}

#[cfg(target_os = "linux")]
fn spent(clock: rustix::time::ClockId) -> Option<Duration> {
    let now = rustix::time::clock_gettime(clock);
    Some(Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?))
}

/// Nanoseconds that all threads of this process have run so far, without the main thread: it needs some milliseconds to
/// read the figures of a thousand threads.
///
/// # Errors
///
/// [`Failure`]: the system does not report it.
pub fn others_time() -> Result<u64, Failure> {
    let path = Path::new("/proc/self/task");
    let tasks = fs::read_dir(path).map_err(|error| Failure::file(path, error))?;
    let main = std::process::id().to_string();
    let mut told = false;
    let mut sum = 0;
    for task in tasks.flatten() {
        // The file of a thread that has just ended is gone: that thread is not counted.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        told = true;
        if task.file_name().to_str() != Some(&main) {
            sum += text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    if told { Ok(sum) } else { Err(unknown("the time that threads have run")) }
}
