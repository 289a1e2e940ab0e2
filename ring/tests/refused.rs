//! A sandbox that forbids `membarrier(2)` comes over a process that began with it. One test, since it is for good.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(any(loom, shuttle, miri))))]

mod common;
#[path = "common/sandbox.rs"]
mod sandbox;

use common::{LONG, at_once, soon};
use sandbox::forbid_membarrier;
use slipring_ring::fence::{self, Fences};
use slipring_ring::{BuildError, Builder, Closed, Ending, SeekError, Sequence, Stage, StageError, Start, Waiter};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::time::Duration;

struct Tell(mpsc::Sender<()>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_refusal_after_the_start_hangs_nobody_and_is_told_by_name() {
    if fence::kind() != Fences::Membarrier {
        println!("skipped: this system has no membarrier to refuse");
        return;
    }
    soon("a ring under a sandbox", under_a_sandbox);
}

fn under_a_sandbox() {
    let mut builder = Builder::single(4, || 0u64);
    builder.retain(2).poll(Stage::new("tape").wait(at_once())).poll("slow");
    let (mut producer, ring) = builder.build().unwrap();
    let (mut tape, mut slow) = (ring.consumer("tape").unwrap(), ring.consumer("slow").unwrap());
    let mut managed = Builder::multi(4, || 0u64);
    managed.run("sums", || |_: &u64, _, _| Ok::<_, String>(()));
    let (mut finishing, finished) = managed.build().unwrap();
    let mut managed = Builder::multi(4, || 0u64);
    managed.run("sums", || |_: &u64, _, _| Ok::<_, String>(()));
    let (mut closing, closed) = managed.build().unwrap();
    producer.publish_batch(2, |index, event| *event = index as u64).unwrap();
    assert_eq!((&mut slow.poll(2).unwrap()).into_iter().count(), 2);
    forbid_membarrier();

    // Sleepers of the old ring are woken.
    let (tell, told) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        for expected in 0..200 {
            let mut batch = tape.poll_wait(1).unwrap();
            assert_eq!((&mut batch).into_iter().map(|(_, event)| *event).collect::<Vec<_>>(), [expected]);
            drop(batch);
            tell.send(expected).unwrap();
        }
        tape
    });
    for value in 2..200 {
        assert_eq!(told.recv(), Ok(value - 2));
        producer.publish(|event| *event = value).unwrap();
        assert!((&mut slow.poll(1).unwrap()).into_iter().count() <= 1);
    }
    while slow.lag() > 0 {
        (&mut slow.poll(9).unwrap()).into_iter().for_each(drop);
    }
    let mut tape = reading.join().unwrap();
    assert_eq!(fence::kind(), Fences::SeqCst, "from now on");

    // Who would need the barrier is refused, and nothing is left behind.
    let refused = ring.join("late").err().unwrap();
    assert!(matches!(&refused, BuildError::Fence { stage, .. } if stage == "late"), "{refused}");
    assert!(refused.to_string().contains("SLIPRING_FENCES=seqcst"), "{refused}");
    assert_eq!(ring.positions().stages.len(), 2);
    assert!(matches!(ring.run("late", || |_: &u64, _, _| Ok::<_, String>(())), Err(BuildError::Fence { .. })));
    assert!(matches!(ring.take_over("slow", "next"), Err(BuildError::Fence { .. })));
    let back = tape.seek(Sequence(199));
    assert!(matches!(&back, Err(SeekError::Fence { stage, .. }) if stage == "tape"), "{back:?}");
    assert_eq!(tape.consumed(), Sequence(200));
    producer.publish_batch(2, |_, event| *event = 7).unwrap();
    assert_eq!((&mut tape.poll(9).unwrap()).into_iter().count(), 2);
    let evicted = ring.evict("slow");
    assert!(matches!(&evicted, Err(StageError::Fence { name, .. }) if name == "slow"), "{evicted:?}");
    assert!(matches!(slow.poll(1).err(), Some(Closed::Evicted { .. })), "it leaves by itself");
    assert_eq!(ring.positions().stages.len(), 1);

    // A waiter that may have been missed is woken without a bell, as a thread and as a task.
    let waiter = Waiter::new();
    assert!(tape.arm(&waiter, 3));
    assert!(waiter.park(None, |token| assert_eq!(token, 3)));
    assert!(tape.arm(&waiter, 4));
    let (tell, told) = mpsc::channel();
    assert!(!waiter.take_or_wake(&Waker::from(Arc::new(Tell(tell))), |_| ()));
    told.recv().unwrap();
    assert!(waiter.take(|token| assert_eq!(token, 4)));

    // It ends, and the report names what its end lacks. A managed stage reads to the end, although it slept.
    producer.publish(|event| *event = 7).unwrap();
    let report = ring.shutdown(Duration::ZERO);
    assert!(report.unfenced.is_some() && !report.is_complete(), "{report}");
    assert_eq!((&mut tape.poll(9).unwrap()).into_iter().count(), 1);
    assert!(matches!(tape.poll(9).err(), Some(Closed::Closed)));
    closing.publish_batch(3, |_, event| *event = 7).unwrap();
    let report = closed.shutdown(LONG);
    let [sums] = &report.stages[..] else { panic!("{report}") };
    assert_eq!((sums.left, &sums.ending), (0, &Some(Ending::Drained)), "{report}");
    assert!(report.unfenced.is_some() && !report.is_complete(), "{report}");
    assert!(report.to_string().contains("SLIPRING_FENCES=seqcst"), "{report}");
    // Without a producer there is nothing that could be missing.
    finishing.publish_batch(3, |_, event| *event = 7).unwrap();
    drop(finishing);
    let report = finished.shutdown(LONG);
    assert!(report.unfenced.is_none() && report.is_complete(), "{report}");

    // A ring that is made now has full fences on both sides, and lacks nothing.
    let mut builder = Builder::multi(4, || 0u64);
    builder.retain(2).poll(Stage::new("tape").wait(at_once()));
    let (mut producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    let reading = std::thread::spawn(move || {
        let read = (&mut tape.poll_wait(1).unwrap()).into_iter().count();
        (read, tape)
    });
    producer.publish(|_| ()).unwrap();
    let (read, mut tape) = reading.join().unwrap();
    assert_eq!(read, 1);
    let late = ring.join(Stage::new("late").start(Start::Earliest)).unwrap();
    tape.seek(Sequence(0)).unwrap();
    assert_eq!(ring.evict("tape"), Ok(Sequence(0)));
    let waiter = Waiter::new();
    let mut late = late;
    assert_eq!((&mut late.poll(1).unwrap()).into_iter().count(), 1);
    assert!(late.arm(&waiter, 1) && !waiter.take(|_| ()), "its sleepers count on the bell alone");
}
