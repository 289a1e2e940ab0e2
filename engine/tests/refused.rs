//! A sandbox that forbids `membarrier(2)` comes over a program that has topics. One test, since it is for good.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

#[path = "../../ring/tests/common/sandbox.rs"]
mod sandbox;

use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::subscriber::SubscribeError;
use slipring::{Engine, Level};
use slipring_ring::fence::{self, Fences};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_end_of_a_topic_without_its_barrier_reads_all_and_is_told() {
    if fence::kind() != Fences::Membarrier {
        println!("skipped: this system has no membarrier to refuse");
        return;
    }
    let small = Options { segment_size: 1 << 16, ..Options::default() };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(small).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").partitions(2).create().unwrap();
    let trades = engine.topic::<u64>("trades").durable().create().unwrap();
    let sum = Arc::new(AtomicU64::new(0));
    ticks
        .subscribe("sums")
        .run({
            let sum = Arc::clone(&sum);
            move |tick, _| {
                sum.fetch_add(*tick, Ordering::Relaxed);
                Ok::<_, String>(())
            }
        })
        .unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let mut durable = trades.producer().acknowledge(Level::Durable).create().unwrap();
    producer.publish_to(0, |tick| *tick = 1).unwrap();
    durable.publish(|trade| *trade = 1).unwrap();
    sandbox::forbid_membarrier();

    // All goes on; who would need the barrier is refused by name.
    producer.publish_to(1, |tick| *tick = 2).unwrap();
    durable.publish(|trade| *trade = 2).unwrap();
    let refused = ticks.subscribe("late").poll().err().unwrap();
    assert!(
        matches!(&refused, SubscribeError::Refused { .. }) && refused.to_string().contains("membarrier"),
        "{refused}"
    );
    let later = engine.topic::<u64>("later").create().unwrap();
    later.subscribe("late").poll().unwrap();

    let report = engine.shutdown(LONG);
    assert_eq!(sum.load(Ordering::Relaxed), 3);
    assert_eq!(report.journal, Some(Ok(())), "{report}");
    let told: Vec<_> = report.topics.iter().map(|topic| (&*topic.name, topic.unfenced.is_some())).collect();
    assert!(told.iter().all(|(name, unfenced)| *unfenced == (*name != "later")), "{told:?}");
    assert!(!report.is_complete() && report.to_string().contains("SLIPRING_FENCES=seqcst"), "{report}");
    assert!(report.topics.iter().flat_map(|topic| &topic.consumers).all(|consumer| consumer.left == 0), "{report}");
}
