//! What comes and goes leaves nothing behind: no memory, thread, descriptor or mapping. `SLIPRING_CHURN` says how often.
#![cfg(all(target_os = "linux", not(any(loom, shuttle))))]

#[path = "common/footprint.rs"]
mod footprint;

use slipring_ring::{Builder, LossyRing, OnError, Stage, Start};
use std::convert::Infallible;
use std::sync::Mutex;

/// One test at a time: each measures the process.
static ALONE: Mutex<()> = Mutex::new(());

/// A managed stage that was evicted once kept its thread's handle until the shutdown: 3,000 of them held 76 MB and 6 GB of
/// address space.
#[test]
fn managed_stages_that_are_run_and_evicted_leave_nothing() {
    let _alone = ALONE.lock().unwrap();
    let (mut producer, ring) = Builder::multi(8, u64::default).build().unwrap();
    footprint::stays_flat("managed stages", |round| {
        let name = format!("stage {round}");
        ring.run(Stage::new(name.clone()), || |_: &u64, _, _| Ok::<_, Infallible>(())).unwrap();
        producer.publish(|event| *event = round as u64).unwrap();
        while ring.evict(&name).is_err_and(|refused| refused.to_string().contains("batch")) {
            std::thread::yield_now();
        }
    });
    let report = ring.shutdown(std::time::Duration::from_secs(60));
    assert!(report.is_complete() && report.stages.is_empty(), "{report}");
}

#[test]
fn consumers_producers_and_rings_leave_nothing() {
    let _alone = ALONE.lock().unwrap();
    let (mut producer, ring) = Builder::multi(8, u64::default).build().unwrap();
    footprint::stays_flat("consumers and producers", |round| {
        let mut tape = ring.join(Stage::new(format!("tape {round}"))).unwrap();
        let mut other = producer.clone();
        other.publish(|event| *event = 7).unwrap();
        producer.publish(|event| *event = 8).unwrap();
        assert!(!tape.poll(2).unwrap().is_empty());
    });
    footprint::stays_flat("rings", |_| {
        let mut builder = Builder::single(8, u64::default);
        builder.run(Stage::new("tape").on_error(OnError::Skip), || |_: &u64, _, _| Ok::<_, Infallible>(()));
        let (mut producer, ring) = builder.build().unwrap();
        producer.publish(|event| *event = 7).unwrap();
        assert!(ring.shutdown(std::time::Duration::from_secs(60)).is_complete());
    });
}

#[test]
fn workers_and_lossy_readers_leave_nothing() {
    let _alone = ALONE.lock().unwrap();
    footprint::stays_flat("workers", |_| {
        let mut builder = Builder::multi(8, u64::default);
        builder.run_workers("pool", 2, |_| |_: &u64, _, _| Ok::<_, Infallible>(()));
        let (mut producer, ring) = builder.build().unwrap();
        producer.publish(|event| *event = 7).unwrap();
        assert!(ring.shutdown(std::time::Duration::from_secs(60)).is_complete());
    });
    let (mut writer, lossy) = LossyRing::<u64>::multi(8).unwrap();
    footprint::stays_flat("lossy readers and writers", |round| {
        let (mut reader, mut other) = (lossy.reader(Start::Latest), writer.clone());
        other.write(&(round as u64));
        writer.write(&7);
        assert_eq!(reader.read().unwrap().map(|(_, event)| event), Some(round as u64));
    });
}
