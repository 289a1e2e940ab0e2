//! Members on threads of their own: what follows when a handler fails.

use crate::*;

/// Where handlers write what they saw.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(u32, u64)>>>);

impl Seen {
    fn put(&self, at: slipring::subscriber::At) {
        self.0.lock().unwrap().push((at.partition, at.offset));
    }

    fn all(&self) -> Vec<(u32, u64)> {
        let mut seen = self.0.lock().unwrap().clone();
        seen.sort_unstable();
        seen
    }
}

#[test]
fn members_on_threads_read_everything_before_a_shutdown_and_the_report_says_so() {
    let mut world = world(3, 8);
    let other = world.engine.topic::<u64>("others").create().unwrap();
    let seen = Seen::default();
    let runs: Vec<_> = (0..2)
        .map(|_| {
            let seen = seen.clone();
            let group = world.engine.group("sums").topics([&world.topic, &other]);
            group.run(move |_, at| {
                seen.put(at);
                Ok::<_, Infallible>(())
            })
        })
        .collect();
    (0..3).for_each(|partition| world.publish(partition, 20));
    other.producer().create().unwrap().publish_batch(5, |_, _| ()).unwrap();
    drop(world.producer);
    let report = world.engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    assert_eq!(seen.all().len(), 65);
    assert_eq!(report.topics.iter().flat_map(|topic| topic.consumer("group:sums")).count(), 4, "{report}");
    runs.into_iter().for_each(|run| assert_eq!(run.unwrap().wait(), MemberEnd::Finished));
}

#[test]
fn a_member_is_stopped_after_the_event_that_it_is_at_and_others_go_on() {
    let mut world = world(1, 8);
    let seen = Seen::default();
    let (in_handler, entered) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let run = {
        let seen = seen.clone();
        world.group().hold(true).run(move |_, at| {
            in_handler.send(()).unwrap();
            wait.recv().unwrap();
            seen.put(at);
            Ok::<_, Infallible>(())
        })
    };
    let run = run.unwrap();
    world.publish(0, 3);
    entered.recv().unwrap();
    run.stop();
    go_on.send(()).unwrap();
    assert_eq!(run.wait(), MemberEnd::Stopped);
    assert_eq!((seen.all(), world.committed(0)), (vec![(0, 0)], Some(1)));
    assert_eq!(look(&mut world.join()).1, [1, 2]);
}

/// Fails at offset 2 as often as it is told, in one way or the other.
fn failing(
    seen: &Seen,
    times: u64,
    panics: bool,
) -> impl FnMut(&u64, slipring::subscriber::At) -> Result<(), &'static str> + use<> {
    let seen = seen.clone();
    let mut left = times;
    move |_, at| {
        if at.offset == 2 && left > 0 {
            left -= 1;
            assert!(!panics, "torn");
            return Err("torn");
        }
        seen.put(at);
        Ok(())
    }
}

#[test]
fn what_a_handler_fails_on_is_retried_skipped_or_stopped_for() {
    // Policy, failures, whether it goes on, whether offset 2 was seen, and how many were skipped.
    let cases = [
        (OnError::Stop, 1, false, false, 0),
        (OnError::Skip, 1, true, false, 1),
        (OnError::Retry(2), 2, true, true, 0),
        (OnError::Retry(2), 3, false, false, 0),
        (OnError::RetryThenSkip(2), 2, true, true, 0),
        (OnError::RetryThenSkip(2), 9, true, false, 1),
    ];
    for (policy, failures, goes_on, handled, skipped) in cases {
        for panics in [false, true] {
            let mut world = world(1, 8);
            let seen = Seen::default();
            let run = world.group().hold(true).on_error(policy).run(failing(&seen, failures, panics)).unwrap();
            world.publish(0, 5);
            world.topic.close();
            let end = run.wait();
            let expected: Vec<_> = match (goes_on, handled) {
                (true, true) => vec![0, 1, 2, 3, 4],
                (true, false) => vec![0, 1, 3, 4],
                _ => vec![0, 1],
            };
            assert_eq!(seen.all(), expected.into_iter().map(|offset| (0, offset)).collect::<Vec<_>>(), "{policy:?}");
            assert_eq!(world.engine.groups()[0].skipped, skipped);
            if goes_on {
                assert_eq!((end, world.committed(0)), (MemberEnd::Finished, Some(5)));
            } else {
                assert!(end.to_string().contains("failed at 2 of numbers/0") && end.to_string().contains("torn"));
                assert_eq!(world.committed(0), Some(2), "others begin with what it failed on");
                let report = world.engine.shutdown(LONG);
                assert!(!report.is_complete() && report.to_string().contains("torn"), "{report}");
            }
        }
    }
}

#[test]
fn a_failed_members_partitions_go_to_the_others() {
    let mut world = world(2, 8);
    let seen = Seen::default();
    let failing = world.group().run(|_, _| Err::<(), _>("torn")).unwrap();
    let other = {
        let seen = seen.clone();
        world.group().run(move |_, at| {
            seen.put(at);
            Ok::<_, Infallible>(())
        })
    };
    (0..2).for_each(|partition| world.publish(partition, 4));
    assert!(matches!(failing.wait(), MemberEnd::Failed { offset: 0, .. }));
    world.topic.close();
    assert_eq!(other.unwrap().wait(), MemberEnd::Finished);
    assert_eq!(seen.all().len(), 8);
}

#[test]
fn dead_letters_are_copied_to_another_topic_with_the_reason() {
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<Message>("orders").create().unwrap();
    let dead = engine.topic::<Message>("dead").create().unwrap();
    let mut graves = dead.subscribe("graves").poll().unwrap();
    let run = orders.group("billing").on_error(OnError::Retry(1)).dead_letter(&dead);
    let run = run.run(|order: &Message, _| if order.value() == b"bad" { Err("no such account") } else { Ok(()) });
    let mut producer = orders.producer().create().unwrap();
    for value in ["good", "bad", "good"] {
        producer.send(Record::new(value).key("k").header("trace", "42")).unwrap();
    }
    orders.close();
    assert_eq!(run.unwrap().wait(), MemberEnd::Finished);
    let mut batch = graves.poll(LONG).unwrap().unwrap();
    let (letter, _) = (&mut batch).into_iter().next().unwrap();
    assert_eq!((letter.key(), letter.value()), (Some(&b"k"[..]), &b"bad"[..]));
    let header = |name| letter.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(header("trace").unwrap(), "42");
    let letter = DeadLetter::read(letter).unwrap();
    assert_eq!((&*letter.topic, letter.offset, letter.attempts), ("orders", 1, 2));
    assert_eq!((&*letter.consumer, &*letter.reason), ("billing", "no such account"));
    assert_eq!(engine.groups()[0].skipped, 1);
}

#[test]
fn a_dead_letter_that_is_refused_stops_the_member_and_nothing_is_lost() {
    let mut world = world(1, 8);
    let dead = world.engine.topic::<u64>("dead").create().unwrap();
    let run = world.group().hold(true).dead_letter(&dead).run(|_, _| Err::<(), _>("torn")).unwrap();
    dead.close();
    world.publish(0, 1);
    let end = run.wait().to_string();
    assert!(end.contains("torn") && end.contains("the topic was closed"), "{end}");
    assert_eq!(world.committed(0), Some(0));
    let refused = world.group().dead_letter(&dead).join().unwrap_err();
    assert!(refused.to_string().contains("closed"), "{refused}");
}

#[test]
fn a_handler_that_takes_too_long_begins_anew_and_what_it_did_late_counts_for_nothing() {
    let mut world = world(1, 8);
    let seen = Seen::default();
    let (in_handler, entered) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let run = {
        let seen = seen.clone();
        let mut first = true;
        world.group().hold(true).run(move |_, at| {
            if std::mem::take(&mut first) {
                in_handler.send(()).unwrap();
                wait.recv().unwrap();
            }
            seen.put(at);
            Ok::<_, Infallible>(())
        })
    };
    world.publish(0, 2);
    entered.recv().unwrap();
    world.clock.advance(DEADLINE);
    assert!(world.engine.groups()[0].members.is_empty());
    go_on.send(()).unwrap();
    let deadline = std::time::Instant::now() + LONG;
    while seen.all().last() != Some(&(0, 1)) {
        assert!(std::time::Instant::now() < deadline, "{:?}", seen.all());
        std::thread::yield_now();
    }
    world.topic.close();
    assert_eq!(run.unwrap().wait(), MemberEnd::Finished);
    // The event at which it was late comes again, since that one was not committed.
    assert_eq!(*seen.0.lock().unwrap(), [(0, 0), (0, 0), (0, 1)]);
    assert_eq!(world.committed(0), Some(2));
}

#[test]
fn a_handler_that_goes_on_event_by_event_is_not_late() {
    let mut world = world(1, 4);
    let clock = world.clock.clone();
    let run = world.group().run(move |_, _| {
        clock.advance(DEADLINE / 2);
        Ok::<_, Infallible>(())
    });
    let run = run.unwrap();
    (0..4).for_each(|_| world.publish(0, 4));
    assert_eq!(world.engine.groups()[0].members[0].id, 1, "it was never fenced");
    world.topic.close();
    assert_eq!(run.wait(), MemberEnd::Finished);
    assert_eq!(world.committed(0), Some(16));
}

#[test]
fn a_refused_pin_starts_nothing() {
    let world = world(1, 8);
    let refused = world.group().pin(777).run(|_, _| Ok::<_, Infallible>(())).unwrap_err();
    assert!(refused.to_string().contains("777"), "{refused}");
    assert!(world.engine.groups()[0].members.is_empty());
}

#[test]
fn a_wait_without_end_has_none() {
    let world = world(1, 8);
    let run = world.group().run(|_, _| Ok::<_, Infallible>(())).unwrap();
    let (told, hears) = mpsc::channel();
    let waits = std::thread::spawn({
        let run = run.clone();
        move || {
            told.send(()).unwrap();
            run.wait_for(Duration::MAX)
        }
    });
    hears.recv().unwrap();
    world.topic.close();
    assert_eq!(waits.join().unwrap(), Some(MemberEnd::Finished));
}
