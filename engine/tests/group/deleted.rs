//! Members of a group over several topics of which one goes.

use crate::*;
use slipring::subscriber::Selector;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A polled member was once told of it at nearly every poll, kept the dead partitions, and could not join again.
#[test]
fn a_member_is_told_once_of_a_topic_that_was_deleted_by_force_lets_go_and_reads_the_others() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let orders = engine.topic::<u64>("orders").create().unwrap();
    let returns = engine.topic::<u64>("returns").partitions(2).create().unwrap();
    let (told, hears) = mpsc::channel();
    let listener = move |change: &Rebalance| told.send(change.clone()).unwrap();
    let builder = || engine.group("billing").topics([&orders, &returns]).deadline(DEADLINE);
    let mut member = builder().listener(listener).join().unwrap();
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    let run = engine.group("managed").topics([&orders, &returns]).run(move |_, _| {
        count.fetch_add(1, SeqCst);
        Ok::<_, Infallible>(())
    });
    let run = run.unwrap();
    assert_eq!(member.poll(NOW).unwrap().unwrap().len(), 0);
    assert!(matches!(hears.try_recv(), Ok(Rebalance::Assigned(all)) if all.len() == 3));
    returns.producer().create().unwrap().publish(|_| ()).unwrap();
    until(|| handled.load(SeqCst) == 1);
    engine.delete_forced("returns").unwrap();

    let mut producer = orders.producer().create().unwrap();
    let (mut refusals, mut read) = (Vec::new(), 0);
    for _ in 0..50 {
        producer.publish(|_| ()).unwrap();
        match member.poll(NOW) {
            Ok(Some(batch)) => {
                read += batch.len();
                batch.commit().unwrap();
            }
            Ok(None) => panic!("there is another topic"),
            Err(refused) => refusals.push(refused.to_string()),
        }
    }
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].contains("returns") && refusals[0].contains("halted"), "{refusals:?}");
    assert!(read >= 49, "{read}");
    assert_eq!(member.assignment(), [TopicPartition::new("orders", 0)]);
    let gone = [TopicPartition::new("returns", 0), TopicPartition::new("returns", 1)];
    assert_eq!(hears.try_recv(), Ok(Rebalance::Lost(gone.to_vec())));
    assert!(hears.try_recv().is_err());

    // Fenced, it joins again for what there still is.
    clock.advance(DEADLINE + DEADLINE);
    let fenced = member.poll(NOW);
    assert!(matches!(fenced, Err(GroupError::Fenced(_))), "{fenced:?}");
    drop(fenced);
    member.rejoin().unwrap();
    producer.publish(|_| ()).unwrap();
    assert!(!drain(&mut member).is_empty());
    until(|| handled.load(SeqCst) == 52);
    assert_eq!(run.ended(), None);
    orders.close();
    assert!(member.poll(LONG).unwrap().is_none());
    assert_eq!(run.wait_for(LONG), Some(MemberEnd::Finished));
}

/// A selector and a future check a member before they poll it. The check once took the error of the deleted topic, which
/// is told only once, and the poll after it returned an empty batch.
#[test]
fn the_error_of_a_deleted_topic_is_told_to_who_waits_in_a_selector_or_a_task() {
    for selects in [true, false] {
        let engine = Engine::builder().build().unwrap();
        let orders = engine.topic::<u64>("orders").create().unwrap();
        let returns = engine.topic::<u64>("returns").create().unwrap();
        let mut member = engine.group("billing").topics([&orders, &returns]).join().unwrap();
        assert_eq!(member.poll(NOW).unwrap().unwrap().len(), 0);
        engine.delete_forced("returns").unwrap();
        let told = if selects {
            let mut selector = Selector::round_robin();
            // The second call finds the error that the first one has kept.
            for _ in 0..2 {
                assert_eq!(selector.select(&mut [&mut member], LONG).unwrap(), Some(0));
            }
            member.poll(NOW).map(|batch| batch.map(|batch| batch.len()))
        } else {
            match pin!(member.next_batch()).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(told) => told.map(|batch| batch.map(|batch| batch.len())),
                Poll::Pending => panic!("the topic is deleted, and the future waits"),
            }
        };
        assert!(matches!(&told, Err(GroupError::Closed { topic, .. }) if topic == "returns"), "{selects}: {told:?}");
        orders.producer().create().unwrap().publish(|_| ()).unwrap();
        assert_eq!(member.poll(NOW).unwrap().unwrap().len(), 1, "it is told once, and the other topic is read");
    }
}
