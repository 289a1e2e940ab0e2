//! Power cuts after each call to the disk, with any subset of the unsynced changes kept.

use super::*;
use crate::simulated::{Fault, SimulatedDisk};
use fastrand::Rng;
use std::sync::Arc;

const STEPS: u64 = 22;

/// Runs a workload until the power is cut at call number `cut`, or to its end if `cut` is `None`. Returns the story so
/// far.
fn run(seed: u64, cut: Option<u64>, options: &Options, disk: &SimulatedDisk) -> Story {
    let mut story = Story::default();
    if let Some(cut) = cut {
        disk.fail_at(cut, Fault::PowerCut);
    }
    if let Ok((mut writer, _)) = open(Arc::new(disk.clone()), options.clone()) {
        let _ = story.work(&mut writer, &mut Rng::with_seed(seed), STEPS);
    }
    story
}

fn calls(seed: u64, options: &Options) -> u64 {
    let disk = SimulatedDisk::new();
    run(seed, None, options, &disk);
    disk.calls()
}

/// Tries `subsets` crashes at each call of a workload. A quarter of them crash once more after the recovery, and
/// another quarter after some more work. `lie`: true if syncs of files, or of the directory, do nothing. Returns the
/// count of examined states, or a description of the first wrong one.
fn crashes(seed: u64, options: &Options, subsets: u64, lie: (bool, bool)) -> Result<u64, String> {
    let mut states = 0;
    for cut in 1..=calls(seed, options) {
        let disk = SimulatedDisk::new();
        disk.ignore_syncs(lie.0, lie.1);
        let story = run(seed, Some(cut), options, &disk);
        for subset in 0..subsets {
            let place = |what: String| format!("seed {seed}, call {cut}, subset {subset}: {what}");
            let left = disk.crash(subset.wrapping_mul(0x9e37_79b9) ^ cut);
            let mut found = story.clone();
            left.ignore_syncs(lie.0, lie.1);
            let mut writer = reopen(&left, options, &mut found).map_err(place)?;
            states += 1;
            // A record that was returned to a reader stays, whatever happens next.
            let again = |left: &SimulatedDisk, found: &Story| {
                let left = left.crash(subset ^ 77);
                let outcome = reopen(&left, options, &mut found.clone());
                outcome.map_err(|what| format!("seed {seed}, call {cut}, subset {subset}, again: {what}"))
            };
            if subset % 4 == 0 {
                again(&left, &found)?;
                states += 1;
            }
            if subset % 4 == 1 {
                let _ = found.work(&mut writer, &mut Rng::with_seed(seed + subset), 5);
                again(&left, &found)?;
                states += 1;
            }
        }
    }
    Ok(states)
}

/// Crashes at every `stride`-th call of a workload, and again at each call of the recovery. Returns the count of
/// examined states.
fn crashes_in_recovery(seed: u64, options: &Options, stride: u64) -> Result<u64, String> {
    let mut states = 0;
    for cut in (1..=calls(seed, options)).step_by(stride as usize) {
        let disk = SimulatedDisk::new();
        let story = run(seed, Some(cut), options, &disk);
        let left = disk.crash(cut);
        let whole = left.copy();
        let _ = open(Arc::new(whole.clone()), options.clone());
        for second in 1..=whole.calls() {
            let place = |what: String| format!("seed {seed}, call {cut}, call {second} of the recovery: {what}");
            let interrupted = left.copy();
            interrupted.fail_at(second, Fault::PowerCut);
            let mut found = story.clone();
            if let Ok((mut writer, recovered)) = open(Arc::new(interrupted.clone()), options.clone()) {
                match content(&writer.journal(), &recovered.state) {
                    // The journal was open, and the power was cut while an index was being written.
                    Err(ReplayError::Disk(_)) => {}
                    content => {
                        let frames = content.as_ref().ok().and_then(|content| story.prefix(content));
                        found.cut(frames.ok_or_else(|| place(format!("not a beginning: {content:?}")))?);
                        let _ = found.work(&mut writer, &mut Rng::with_seed(second), 6);
                    }
                }
            }
            for subset in 0..3 {
                let mut found = found.clone();
                let left = interrupted.crash(subset * 31 + second);
                reopen(&left, options, &mut found).map_err(place)?;
                states += 1;
            }
        }
    }
    Ok(states)
}

/// A process is killed, so its unsynced frames are in the page cache only. The next process serves them, and the power
/// is cut. Returns the count of examined states.
fn killed(seed: u64, options: &Options, subsets: u64) -> Result<u64, String> {
    let disk = SimulatedDisk::new();
    let mut story = run(seed, None, options, &disk);
    let left = disk.unsynced();
    drop(reopen(&disk, options, &mut story)?);
    for subset in 0..subsets {
        let place = |what: String| format!("seed {seed}, subset {subset}: {what}");
        reopen(&disk.crash(subset), options, &mut story.clone()).map_err(place)?;
    }
    Ok(if left.is_empty() { 0 } else { subsets })
}

#[test]
fn what_was_served_after_a_kill_is_there_after_a_power_cut() {
    let states: u64 = (1..60).map(|seed| killed(seed, &small(), 12).unwrap()).sum();
    assert!(states > 200, "{states} states");
}

/// After a failed sync a process reads its frames from the page cache and serves them, but no sync writes their pages.
#[test]
fn what_the_next_process_serves_after_a_failed_sync_is_there_after_a_power_cut() {
    let id = PartitionId { topic: 1, partition: 0 };
    let disk = SimulatedDisk::new();
    let (mut writer, _) = crate::open(Arc::new(disk.clone()), small()).unwrap();
    let mut frame = FrameBuilder::new();
    frame.record(id, 0, None, &[7; 800]);
    writer.append(&mut frame, 1).unwrap();
    disk.fail_after(1, Fault::Io);
    writer.sync().unwrap_err();
    let killed = disk.copy();
    let (writer, recovered) = crate::open(Arc::new(killed.clone()), small()).unwrap();
    assert_eq!(recovered.state.extent(id).map(|extent| extent.end), Some(1));
    for seed in 0..40 {
        let (_, recovered) = crate::open(Arc::new(killed.crash(seed)), small()).unwrap();
        assert_eq!(recovered.state.extent(id).map(|extent| extent.end), Some(1), "seed {seed}");
    }
    drop(writer);
}

#[test]
fn whatever_a_crash_leaves_acknowledged_frames_are_there_and_the_rest_is_a_beginning() {
    let mut states = 0;
    for seed in [3, 1234, 98765] {
        states += crashes(seed, &small(), 34, (false, false)).unwrap();
    }
    let packed = Options { codec: Codec::Lz4, ..small() };
    states += crashes(55, &packed, 8, (false, false)).unwrap();
    println!("{states} states");
    assert!(states >= 10_000, "{states} states");
}

#[test]
fn a_crash_in_the_middle_of_a_recovery_changes_nothing() {
    let states = crashes_in_recovery(3, &small(), 4).unwrap() + crashes_in_recovery(1234, &small(), 5).unwrap();
    println!("{states} states");
    assert!(states >= 1_000, "{states} states");
}

#[test]
fn many_crashes_one_after_the_other() {
    for seed in 1..40 {
        let mut dice = Rng::with_seed(seed * 7919);
        let mut disk = SimulatedDisk::new();
        let mut story = Story::default();
        for _ in 0..6 {
            disk.fail_at(20 + dice.u64(..120), Fault::PowerCut);
            if let Ok(mut writer) = reopen(&disk, &small(), &mut story) {
                let _ = story.work(&mut writer, &mut dice, STEPS);
            }
            disk = disk.crash(dice.u64(..(1 << 30)));
        }
        disk.fail_at(0, Fault::PowerCut);
        reopen(&disk, &small(), &mut story).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

/// The workloads of the tests above find each fault.
#[test]
fn each_fault_is_found() {
    let found = |what: &str, options: Options, lie| {
        let why = (1..=16).find_map(|seed| crashes(seed, &options, 24, lie).err());
        println!("{what}: {:.200}", why.unwrap_or_else(|| panic!("not found: {what}")));
    };
    found("files are not synced", small(), (true, false));
    found("the directory is not synced", small(), (false, true));
    let sabotaged = |set: fn(&mut Sabotage)| {
        let mut options = small();
        set(&mut options.sabotage);
        options
    };
    let honest = (false, false);
    found("acknowledged before the sync", sabotaged(|fault| fault.acknowledge_before_sync = true), honest);
    found("the torn tail is not cut", sabotaged(|fault| fault.keep_torn_tail = true), honest);
    let served = sabotaged(|fault| fault.serve_before_sync = true);
    let why = (1..60).find_map(|seed| killed(seed, &served, 12).err());
    println!("served before it is synced: {:.200}", why.expect("not found: served before it is synced"));
}
