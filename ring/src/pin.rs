//! Pinning threads to cores by the system's core numbers, and reading the result back.

/// Why a thread was not pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// This process may not use the core, or the core does not exist.
    #[error("core {asked} is refused: this process may use {}", ranges(.allowed))]
    Refused {
        /// The requested core.
        asked: usize,
        /// The cores that the process may use.
        allowed: Vec<usize>,
    },
    /// The call succeeded, but the thread may still run on other cores than the requested one.
    #[error("core {asked} was asked for, but the system lets the thread run on {}", ranges(.got))]
    NotKept {
        /// The requested core.
        asked: usize,
        /// The cores on which the thread may run.
        got: Vec<usize>,
    },
}

/// Pins the calling thread to `core`, the operating system's number of a core.
///
/// A thread that is pinned already can be pinned again, to any core that its process may use.
///
/// ```
/// let allowed = slipring_ring::pin::allowed_cores();
/// std::thread::spawn(move || slipring_ring::pin::pin_current(allowed[0])).join().unwrap()?;
/// # Ok::<(), slipring_ring::pin::PinError>(())
/// ```
///
/// # Errors
/// The core is refused, and the error lists the cores that this process may use; or the thread may still run on other
/// cores. Cores outside the process's CPU affinity mask (`taskset`) are refused unless [`use_every_core`] was called.
pub fn pin_current(core: usize) -> Result<(), PinError> {
    let allowed = allowed_cores();
    let is_outside = !allowed.is_empty() && !allowed.contains(&core);
    // The system's sets of cores have 1,024 places, and the setter does not check the number.
    if is_outside || core >= 1024 || !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Err(PinError::Refused { asked: core, allowed });
    }
    let got = cores_of_this_thread();
    if got.is_empty() || got == [core] { Ok(()) } else { Err(PinError::NotKept { asked: core, got }) }
}

/// Lets the calling thread run on these cores, for instance to undo a pin. Core numbers from 1,024 on are ignored. Has
/// no effect on systems other than Linux.
///
/// # Errors
/// The system refuses the set; the error has the set's first core, and the cores that this process may use.
pub fn let_current_run_on(cores: &[usize]) -> Result<(), PinError> {
    #[cfg(target_os = "linux")]
    {
        // The process's affinity mask must be read before a thread of the process gets another one.
        let _ = allowed_cores();
        let mut set = rustix::thread::CpuSet::new();
        cores.iter().filter(|core| **core < rustix::thread::CpuSet::MAX_CPU).for_each(|core| set.set(*core));
        if rustix::thread::sched_setaffinity(None, &set).is_err() {
            let asked = cores.first().copied().unwrap_or_default();
            return Err(PinError::Refused { asked, allowed: allowed_cores() });
        }
    }
    let _ = cores;
    Ok(())
}

/// The cores that this process may use, even after the calling thread was pinned. Empty if the system does not report
/// them.
///
/// On Linux this is the CPU affinity mask of the process (set by `taskset` or a container), as its first thread has the
/// mask when this is called for the first time. Pins by this module do not change the result. A program that pins its
/// first thread by other means must call this function before. After [`use_every_core`] the result is every core that
/// the system grants.
pub fn allowed_cores() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    {
        if EVERY.get().is_some() {
            return granted_cores();
        }
        MASK.get_or_init(|| {
            let first = rustix::thread::sched_getaffinity(Some(rustix::process::getpid()));
            first.map_or_else(|_| granted_cores(), |set| numbers(&set))
        })
        .clone()
    }
    #[cfg(not(target_os = "linux"))]
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// The CPU affinity mask of the process, as it was read first.
#[cfg(target_os = "linux")]
static MASK: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();

/// Set once cores outside the affinity mask may be used.
#[cfg(target_os = "linux")]
static EVERY: std::sync::OnceLock<()> = std::sync::OnceLock::new();

/// Lets this process pin its threads to every core that the system grants, even outside the process's CPU affinity
/// mask. Cores that were isolated with `isolcpus` are in no process's mask.
pub fn use_every_core() {
    #[cfg(target_os = "linux")]
    {
        // The affinity mask is ignored from now on. A second call has no effect.
        let _ = EVERY.set(());
    }
}

#[cfg(target_os = "linux")]
fn numbers(set: &rustix::thread::CpuSet) -> Vec<usize> {
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

#[cfg(target_os = "linux")]
fn granted_cores() -> Vec<usize> {
    // A new thread requests all cores, and the system grants those that the process's control group allows. It must be
    // a new thread, because the request would undo a pin of the calling thread.
    let asker = std::thread::Builder::new().spawn(|| {
        let mut all = rustix::thread::CpuSet::new();
        (0..rustix::thread::CpuSet::MAX_CPU).for_each(|core| all.set(core));
        let _ = rustix::thread::sched_setaffinity(None, &all);
        cores_of_this_thread()
    });
    asker.ok().and_then(|asker| asker.join().ok()).unwrap_or_else(cores_of_this_thread)
}

/// The cores on which the calling thread may run. Empty if the system does not report them.
pub fn cores_of_this_thread() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    {
        let set = rustix::thread::sched_getaffinity(None);
        set.map(|set| numbers(&set)).unwrap_or_default()
    }
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// The cores as text, such as `cores 0-3, 6`.
fn ranges(cores: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => runs.push((core, core)),
        }
    }
    let runs: Vec<String> = runs.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    if runs.is_empty() { "no cores that the system names".to_owned() } else { format!("cores {}", runs.join(", ")) }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_refused_core_is_an_error_that_says_what_is_allowed() {
        for asked in [1023, 1024, usize::MAX] {
            let refused = pin_current(asked).unwrap_err();
            assert!(matches!(&refused, PinError::Refused { allowed, .. } if !allowed.is_empty()), "{refused}");
        }
        let refused = PinError::Refused { asked: 9, allowed: vec![0, 1, 2, 5] };
        assert_eq!(refused.to_string(), "core 9 is refused: this process may use cores 0-2, 5");
    }

    /// core_affinity lists only one core once a thread is pinned, so a check against its list would refuse the others.
    #[test]
    fn a_pinned_thread_can_be_pinned_to_another_core() {
        std::thread::spawn(|| {
            let cores = allowed_cores();
            for &core in &cores {
                pin_current(core).unwrap();
                assert_eq!(cores_of_this_thread(), [core]);
                assert_eq!(allowed_cores(), cores);
            }
            let_current_run_on(&cores).unwrap();
            assert_eq!(cores_of_this_thread(), cores);
        })
        .join()
        .unwrap();
    }
}
