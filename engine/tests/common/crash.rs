//! Power cuts, one at each call that a piece of work makes to its disk.

use slipring::journal::simulated::{Fault, SimulatedDisk};

/// Has `work` done on an empty disk again and again, the power cut at its first call, at its second, and so on until it gets
/// through. `then` gets what the work told, at which call the power was cut, and the disk. Returns how many cuts there were.
pub fn at_each_call<T>(
    mut work: impl FnMut(&SimulatedDisk, u64) -> T,
    mut then: impl FnMut(T, u64, &SimulatedDisk),
) -> u64 {
    let mut nth = 1;
    loop {
        let disk = SimulatedDisk::new();
        disk.fail_at(nth, Fault::PowerCut);
        let told = work(&disk, nth);
        if disk.calls() < nth {
            return nth - 1;
        }
        then(told, nth, &disk);
        nth += 1;
    }
}
