//! Reading and publishing as tasks: with a waker of the test's own, and on an executor.

use futures_core::Stream;
use slipring::{
    Engine, Message, Record, Topic,
    clock::ManualClock,
    group::GroupError,
    producer::PublishError,
    subscriber::At,
    topic::{Overflow, RateLimit, Slow, TopicPartition},
};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::bell::bell;
use crate::soon::soon;

fn once<F: Future + Unpin>(mut future: F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(&mut future).poll(&mut Context::from_waker(waker))
}

fn give_up<F: Future>(_: F) {}

fn numbers(capacity: usize, partitions: usize) -> (Engine, Topic<u64>) {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("numbers").capacity(capacity).partitions(partitions).create().unwrap();
    (engine, topic)
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(future)
}

#[test]
fn a_reader_is_woken_once_by_a_publish_and_never_while_nothing_comes() {
    let (_engine, topic) = numbers(8, 3);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let (bell, waker) = bell();
    assert!(once(tape.next_batch(), &waker).is_pending());
    assert_eq!(bell.rung(), 0);
    producer.publish_to(1, |event| *event = 7).unwrap();
    assert_eq!(bell.rung(), 1);
    producer.publish_to(1, |event| *event = 8).unwrap();
    producer.publish_to(2, |event| *event = 9).unwrap();
    assert_eq!(bell.rung(), 1, "it was told already");
    let mut seen = Vec::new();
    while let Poll::Ready(batch) = once(tape.next_batch(), &waker) {
        seen.extend((&mut batch.unwrap().unwrap()).into_iter().map(|(event, _)| *event));
    }
    seen.sort_unstable();
    assert_eq!(seen, [7, 8, 9]);
}

/// The end of a topic rings only for what is read: a task beside a paused partition was never woken by it.
#[test]
fn a_task_beside_paused_partitions_hears_of_the_end() {
    let (_engine, topic) = numbers(8, 2);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut stream = topic.subscribe("stream").poll().unwrap();
    let mut member = topic.group("sums").join().unwrap();
    drop(member.poll(Duration::ZERO).unwrap());
    for partition in [0, 1] {
        tape.pause(partition).unwrap();
        member.pause(&TopicPartition::new("numbers", partition)).unwrap();
    }
    stream.pause(1).unwrap();
    let mut stream = pin!(stream.stream(|event, _| *event));
    let mut producer = topic.producer().create().unwrap();
    let bells = [bell(), bell(), bell()];
    let [(_, first), (_, second), (_, third)] = &bells;
    let rung = || bells.each_ref().map(|(bell, _)| bell.rung());
    assert!(once(tape.next_batch(), first).is_pending());
    assert!(once(member.next_batch(), second).is_pending());
    assert!(stream.as_mut().poll_next(&mut Context::from_waker(third)).is_pending());
    producer.publish_to(1, |event| *event = 7).unwrap();
    assert_eq!(rung(), [0, 0, 0], "what is paused wakes nobody");
    topic.close();
    assert_eq!(rung(), [1, 1, 1]);
    let Poll::Ready(Ok(Some(batch))) = once(tape.next_batch(), first) else { panic!("pending or over") };
    assert!(batch.is_empty());
    drop(batch);
    let Poll::Ready(Ok(Some(batch))) = once(member.next_batch(), second) else { panic!("pending or over") };
    assert!(batch.is_empty());
    drop(batch);
    assert!(matches!(stream.as_mut().poll_next(&mut Context::from_waker(third)), Poll::Ready(None)));
    for partition in [0, 1] {
        tape.resume(partition).unwrap();
        member.resume(&TopicPartition::new("numbers", partition)).unwrap();
    }
    run(async {
        assert_eq!((&mut tape.next_batch().await.unwrap().unwrap()).into_iter().count(), 1);
        assert!(tape.next_batch().await.unwrap().is_none());
        let batch = member.next_batch().await.unwrap().unwrap();
        assert_eq!(batch.len(), 1);
        batch.commit().unwrap();
        assert!(member.next_batch().await.unwrap().is_none());
    });
}

#[test]
fn a_member_reads_as_a_task_and_a_dropped_future_loses_nothing() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(2).create().unwrap();
    let deadline = Duration::from_secs(10);
    let mut member = topic.group("sums").deadline(deadline).join().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let (bell, waker) = bell();
    let mut waits = member.next_batch();
    assert!(once(&mut waits, &waker).is_pending());
    // As long as it waits it makes progress; dropped, it does no more.
    clock.advance(deadline * 3);
    assert_eq!(bell.rung(), 0);
    producer.publish_to(1, |event| *event = 1).unwrap();
    assert_eq!(bell.rung(), 1);
    give_up(waits);
    // Woken and dropped; ready and dropped; dropped with its batch, which was not committed.
    give_up(member.next_batch());
    let Poll::Ready(batch) = once(member.next_batch(), &waker) else { panic!("there is an event") };
    drop(batch);
    let Poll::Ready(Ok(Some(batch))) = once(member.next_batch(), &waker) else { panic!("there is an event") };
    assert!(batch.iter().map(|(event, _)| *event).eq([1]));
    batch.commit().unwrap();
    // A newcomer is news: the task gives up what is taken from it, and waits on.
    assert!(once(member.next_batch(), &waker).is_pending());
    let before = bell.rung();
    let mut newcomer = topic.group("sums").join().unwrap();
    assert!(bell.rung() > before);
    assert!(once(member.next_batch(), &waker).is_pending());
    drop(newcomer.poll(Duration::ZERO).unwrap());
    assert_eq!((member.assignment().len(), newcomer.assignment().len()), (1, 1));
    // A dropped future is no progress any more.
    give_up(member.next_batch());
    clock.advance(deadline * 2);
    assert!(matches!(once(member.next_batch(), &waker), Poll::Ready(Err(GroupError::Fenced(_)))));
}

#[test]
fn a_future_dropped_at_any_moment_loses_nothing() {
    let (_engine, topic) = numbers(8, 1);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let (_, waker) = bell();
    // Before anything is there; after it was woken; with a batch that was not looked at.
    give_up(tape.next_batch());
    assert!(once(tape.next_batch(), &waker).is_pending());
    producer.publish(|event| *event = 1).unwrap();
    give_up(tape.next_batch());
    drop(once(tape.next_batch(), &waker));
    let Poll::Ready(Ok(Some(mut batch))) = once(tape.next_batch(), &waker) else { panic!("there is an event") };
    assert_eq!((&mut batch).into_iter().next().map(|(event, at)| (*event, at.offset)), Some((1, 0)));
}

#[test]
fn the_last_task_that_asks_is_the_one_that_is_woken() {
    let (_engine, topic) = numbers(8, 1);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let ((first, first_waker), (second, second_waker)) = (bell(), bell());
    assert!(once(tape.next_batch(), &first_waker).is_pending());
    assert!(once(tape.next_batch(), &second_waker).is_pending());
    topic.producer().create().unwrap().publish(|event| *event = 1).unwrap();
    assert_eq!((first.rung(), second.rung()), (0, 1));
}

#[test]
fn the_end_and_a_new_partition_wake_a_reader() {
    let (_engine, topic) = numbers(8, 1);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let (bell, waker) = bell();
    assert!(once(tape.next_batch(), &waker).is_pending());
    topic.add_partitions(1).unwrap();
    assert_eq!(bell.rung(), 1);
    assert!(once(tape.next_batch(), &waker).is_pending());
    topic.producer().create().unwrap().publish_to(1, |event| *event = 1).unwrap();
    assert_eq!(bell.rung(), 2);
    let Poll::Ready(Ok(Some(mut batch))) = once(tape.next_batch(), &waker) else { panic!("there is an event") };
    assert_eq!((&mut batch).into_iter().count(), 1);
    drop(batch);
    assert!(once(tape.next_batch(), &waker).is_pending());
    topic.close();
    assert_eq!(bell.rung(), 3);
    for _ in 0..2 {
        assert!(matches!(once(tape.next_batch(), &waker), Poll::Ready(Ok(None))));
    }
    assert!(tape.poll(Duration::from_secs(1000)).unwrap().is_none(), "the end stays the end");
}

#[test]
fn a_failure_is_told_to_a_reader_and_to_a_producer_that_wait() {
    let (_engine, topic) = numbers(1, 1);
    topic.subscribe("fails").run(|_, _| Err::<(), _>("broken")).unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    run(async {
        producer.publish_async(|event| *event = 1).await.unwrap();
        let refused = producer.publish_async(|event| *event = 2).await.unwrap_err();
        assert!(refused.to_string().contains("broken"), "{refused}");
        let refused = loop {
            match tape.next_batch().await {
                Ok(batch) => drop(batch),
                Err(refused) => break refused,
            }
        };
        assert!(refused.to_string().contains("broken"), "{refused}");
    });
}

#[test]
fn a_producer_that_waits_is_woken_by_room_and_one_that_is_dropped_publishes_nothing() {
    let (_engine, topic) = numbers(2, 1);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let (bell, waker) = bell();
    for number in 0..2 {
        assert!(once(producer.publish_async(|event| *event = number), &waker).is_ready());
    }
    assert!(once(producer.publish_async(|event| *event = 77), &waker).is_pending());
    let mut waiting = producer.publish_async(|event| *event = 2);
    assert!(once(&mut waiting, &waker).is_pending());
    assert_eq!(bell.rung(), 0);
    assert_eq!((&mut tape.poll(Duration::ZERO).unwrap().unwrap()).into_iter().count(), 2);
    assert_eq!(bell.rung(), 1, "the first one is gone: only the second is told");
    assert!(matches!(once(&mut waiting, &waker), Poll::Ready(Ok(receipt)) if receipt.offset == 2));
    let seen: Vec<u64> = (&mut tape.poll(Duration::ZERO).unwrap().unwrap()).into_iter().map(|it| *it.0).collect();
    assert_eq!(seen, [2], "what was dropped was not published");
}

#[test]
fn the_topics_policies_hold_for_tasks() {
    let engine = Engine::builder().build().unwrap();
    let (_, waker) = bell();
    let policies = [(Overflow::Fail, false), (Overflow::DropNewest, true)];
    for (index, (policy, is_dropped)) in policies.into_iter().enumerate() {
        let topic = engine.topic::<u64>(format!("full-{index}")).capacity(1).overflow(policy).create().unwrap();
        let _slow = topic.subscribe("slow").poll().unwrap();
        let mut producer = topic.producer().create().unwrap();
        assert!(once(producer.publish_async(|_| ()), &waker).is_ready());
        match once(producer.publish_async(|_| ()), &waker) {
            Poll::Ready(Ok(receipt)) => assert!(is_dropped && receipt.is_dropped()),
            Poll::Ready(Err(PublishError::Full { by: Some(by), .. })) => assert!(!is_dropped && by == "slow"),
            other => panic!("{other:?}"),
        }
    }
    let topic = engine.topic::<u64>("evicts").capacity(1).slow(Slow::EVICT).create().unwrap();
    let _slow = topic.subscribe("slow").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    run(async {
        for _ in 0..3 {
            producer.publish_async(|_| ()).await.unwrap();
        }
    });
    assert_eq!(topic.metrics().evicted, 1);
}

/// The engine's timer, which ends the patience with the reader, had not been started by anybody, so the task waited for
/// ever.
#[test]
fn a_task_waits_for_a_slow_reader_as_long_as_its_patience() {
    let engine = Engine::builder().build().unwrap();
    let slow = Slow::EvictAfter(Duration::from_millis(20));
    let topic = engine.topic::<u64>("evicts").capacity(1).slow(slow).create().unwrap();
    let _slow = topic.subscribe("slow").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    soon("the task", move || {
        run(async {
            for _ in 0..3 {
                producer.publish_async(|_| ()).await.unwrap();
            }
        });
    });
    assert_eq!(topic.metrics().evicted, 1);
}

#[test]
fn a_rate_limit_is_waited_for_as_a_task() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("slow").rate_limit(RateLimit::new().events(1, 1)).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let (bell, waker) = bell();
    assert!(once(producer.publish_async(|_| ()), &waker).is_ready());
    let mut waiting = producer.publish_async(|event| *event = 2);
    assert!(once(&mut waiting, &waker).is_pending());
    assert_eq!(bell.rung(), 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(bell.rung(), 1);
    assert!(matches!(once(&mut waiting, &waker), Poll::Ready(Ok(receipt)) if receipt.offset == 1));
}

#[test]
fn a_record_that_never_fits_is_refused_at_once() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<Message>("orders").max_message(4).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let (_, waker) = bell();
    let refused = once(producer.send_async(&Record::new("too long")), &waker);
    assert!(matches!(refused, Poll::Ready(Err(PublishError::MessageTooLarge { .. }))));
}

#[test]
fn a_stream_gives_every_event_once_also_when_it_is_given_up_in_the_middle() {
    let (_engine, topic) = numbers(8, 1);
    let mut producer = topic.producer().create().unwrap();
    let tape = topic.subscribe("tape").poll().unwrap();
    producer.publish_batch(5, |index, event| *event = index as u64).unwrap();
    let (_, waker) = bell();
    let mut context = Context::from_waker(&waker);
    let mut stream = tape.stream(|event, at: At| (*event, at.offset));
    for number in 0..3 {
        assert!(
            matches!(Pin::new(&mut stream).poll_next(&mut context), Poll::Ready(Some(Ok(it))) if it == (number, number))
        );
    }
    let mut stream = stream.into_inner().stream(|event, _| *event);
    for number in 3..5 {
        assert!(matches!(Pin::new(&mut stream).poll_next(&mut context), Poll::Ready(Some(Ok(it))) if it == number));
    }
    assert!(Pin::new(&mut stream).poll_next(&mut context).is_pending());
    topic.close();
    assert!(matches!(Pin::new(&mut stream).poll_next(&mut context), Poll::Ready(None)));
}

/// Every future is dropped now and then, on both sides of a small ring, on two threads.
#[test]
fn nothing_is_lost_or_doubled_on_an_executor_that_gives_up_futures() {
    const NUMBERS: u64 = 20_000;
    let (_engine, topic) = numbers(4, 2);
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    run(async move {
        let reader = tokio::spawn(async move {
            let mut seen = vec![false; NUMBERS as usize];
            let mut last = [None; 2];
            let mut turn = 0u64;
            loop {
                turn += 1;
                if turn.is_multiple_of(3) {
                    // Looks once, and goes away.
                    let mut next = pin!(tape.next_batch());
                    poll_fn(|context| {
                        let _ = next.as_mut().poll(context).map(drop);
                        Poll::Ready(())
                    })
                    .await;
                }
                let Some(mut batch) = tape.next_batch().await.unwrap() else { return seen };
                for (event, at) in &mut batch {
                    assert!(last[at.partition as usize] < Some(*event), "order");
                    last[at.partition as usize] = Some(*event);
                    assert!(!std::mem::replace(&mut seen[*event as usize], true), "twice: {event}");
                }
            }
        });
        for number in 0..NUMBERS {
            if number % 3 == 0 {
                let mut gone = pin!(producer.publish_async(|event| *event = number));
                let published = poll_fn(|context| Poll::Ready(gone.as_mut().poll(context).is_ready())).await;
                if published {
                    continue;
                }
            }
            producer.publish_async(|event| *event = number).await.unwrap();
        }
        topic.close();
        assert!(reader.await.unwrap().into_iter().all(|seen| seen), "lost");
    });
}
