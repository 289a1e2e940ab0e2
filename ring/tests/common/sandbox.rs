//! A sandbox that a process lays over itself.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Forbids `membarrier(2)` to this thread and to those that it starts from now on, for good.
pub fn forbid_membarrier() {
    const MEMBARRIER: i64 = if cfg!(target_arch = "x86_64") { 324 } else { 283 };
    const NOT_PERMITTED: u32 = 1;
    let rules = [(MEMBARRIER, Vec::new())].into();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(NOT_PERMITTED), arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}
