//! Members whose topics change while they are in their group: by a call, and by a pattern that finds new topics.

use crate::*;
use slipring::journal::simulated::SimulatedDisk;
use slipring::producer::Multi;
use slipring::subscriber::Selector;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

fn create(engine: &Engine, name: &str, partitions: usize) -> Topic<u64> {
    engine.topic::<u64>(name).partitions(partitions).capacity(8).create().unwrap()
}

fn publish(topic: &Topic<u64>, count: u64) {
    let mut producer = topic.producer().create().unwrap();
    (0..count).for_each(|number| _ = producer.publish(|place| *place = number).unwrap());
}

/// The partitions that a member has, as text.
fn names(member: &Member<u64>) -> Vec<String> {
    member.assignment().iter().map(TopicPartition::to_string).collect()
}

/// Reads and commits what there is, as topics with offsets.
fn read(member: &mut Member<u64>) -> Vec<(String, u64)> {
    let mut read = Vec::new();
    while let Some(batch) = member.poll(NOW).unwrap() {
        let Some(partition) = batch.partition().cloned() else { break };
        read.extend(batch.iter().map(|(_, at)| (partition.topic.to_string(), at.offset)));
        batch.commit().unwrap();
    }
    read
}

fn is_full(topic: &Topic<u64>) -> bool {
    let mut producer = topic.producer().create().unwrap();
    (0..=8).any(|_| producer.try_publish(|_| ()).is_err_and(|refused| refused.is_full()))
}

#[test]
fn a_member_begins_and_ends_topics_and_the_others_notice_nothing() {
    let engine = Engine::builder().build().unwrap();
    let (orders, returns) = (create(&engine, "orders", 4), create(&engine, "returns", 1));
    let (told, hears) = mpsc::channel();
    let join = |told: mpsc::Sender<Rebalance>| {
        orders.group("billing").listener(move |change| told.send(change.clone()).unwrap()).join().unwrap()
    };
    let (unheard, _kept) = mpsc::channel();
    let (mut a, mut b) = (join(told), join(unheard));
    drop(b.poll(NOW));
    drop(a.poll(NOW));
    drop(b.poll(NOW));
    let (had, of_b) = (names(&a), names(&b));
    assert_eq!((had.len(), of_b.len()), (2, 2));
    assert!(hears.try_iter().count() > 0);

    assert!(!is_full(&returns), "nobody reads it");
    a.subscribe(&returns).unwrap();
    assert!(is_full(&returns), "from now on producers wait");
    assert_eq!(a.topics(), ["orders", "returns"]);
    let new = TopicPartition::new("returns", 0);
    assert_eq!(hears.try_iter().collect::<Vec<_>>(), [Rebalance::Assigned(vec![new.clone()])]);
    assert_eq!(names(&a).len(), 3);
    let epoch = a.epoch();
    a.subscribe(&returns).unwrap();
    assert_eq!((a.epoch(), hears.try_iter().count()), (epoch, 0), "it reads the topic already");

    assert_eq!(read(&mut a).len(), 8);
    assert!(!is_full(&returns) || !read(&mut a).is_empty());
    assert!(a.unsubscribe(&returns).unwrap());
    assert_eq!(hears.try_iter().collect::<Vec<_>>(), [Rebalance::Revoked(vec![new])]);
    assert!(!is_full(&returns), "producers do not wait for who has gone");
    assert!(!a.unsubscribe(&returns).unwrap());
    drop(b.poll(NOW));
    assert_eq!((names(&a), names(&b)), (had, of_b));
    let last = a.unsubscribe(&orders);
    assert!(matches!(last, Err(GroupError::NoTopics { .. })), "{last:?}");
    assert_eq!((names(&a).len(), a.topics()), (2, vec!["orders".to_owned()]));
}

#[test]
fn what_a_member_gives_up_goes_on_at_the_committed_offset_with_another() {
    let engine = Engine::builder().build().unwrap();
    let (orders, returns) = (create(&engine, "orders", 1), create(&engine, "returns", 1));
    let both = || engine.group("billing").topics([&orders, &returns]);
    let mut a = both().join().unwrap();
    publish(&returns, 6);
    let mut batch = a.poll(NOW).unwrap().unwrap();
    batch.commit_to(2).unwrap();
    drop(batch);
    let mut b = both().join().unwrap();
    settle(&mut [&mut a, &mut b]);
    let (mut with, mut without) = if names(&a).iter().any(|name| name.contains("returns")) { (a, b) } else { (b, a) };
    assert!(with.unsubscribe(&returns).unwrap());
    settle(&mut [&mut with, &mut without]);
    let offsets: Vec<_> = read(&mut without).into_iter().filter(|(topic, _)| topic == "returns").collect();
    assert_eq!(offsets.iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert!(read(&mut with).is_empty());
    assert_eq!(engine.groups()[0].partition("returns", 0).unwrap().committed, Some(6));
}

#[test]
fn what_was_overwritten_meanwhile_is_an_error_with_its_range_and_the_member_goes_on() {
    let engine = Engine::builder().build().unwrap();
    let (orders, returns) = (create(&engine, "orders", 1), create(&engine, "returns", 1));
    let mut member = engine.group("billing").topics([&orders, &returns]).join().unwrap();
    drop(member.poll(NOW).unwrap());
    assert!(member.unsubscribe(&returns).unwrap());
    publish(&returns, 20);
    let refused = member.subscribe(&returns);
    assert!(matches!(&refused, Err(GroupError::OutOfRange { refused, .. }) if refused.asked == 0), "{refused:?}");
    publish(&orders, 3);
    assert_eq!((member.topics(), read(&mut member).len()), (vec!["orders".to_owned()], 3));
    let latest = returns.group("billing").set_offset(&TopicPartition::new("returns", 0), StartAt::Latest, b"");
    assert_eq!(latest.unwrap(), 20);
    member.subscribe(&returns).unwrap();
    publish(&returns, 1);
    assert_eq!(read(&mut member), [("returns".to_owned(), 20)]);

    returns.close();
    let other = create(&engine, "other", 1);
    other.close();
    let refused = member.subscribe(&other);
    assert!(matches!(&refused, Err(GroupError::Closed { topic, .. }) if topic == "other"), "{refused:?}");
    orders.close();
    assert!(member.poll(LONG).unwrap().is_none(), "all that it reads is read");
    let late = create(&engine, "late", 1);
    member.subscribe(&late).unwrap();
    publish(&late, 2);
    assert_eq!(read(&mut member).len(), 2, "it has something to read again");
}

#[test]
fn a_fenced_member_changes_nothing_and_joins_again_with_the_topics_it_had() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topics = ["orders", "returns", "late"].map(|name| create(&engine, name, 1));
    let [orders, returns, late] = &topics;
    let mut member = orders.group("billing").deadline(DEADLINE).join().unwrap();
    member.subscribe(returns).unwrap();
    drop(member.poll(NOW).unwrap());
    clock.advance(DEADLINE * 2);
    assert!(matches!(member.subscribe(late), Err(GroupError::Fenced(_))));
    assert!(matches!(member.unsubscribe(orders), Err(GroupError::Fenced(_))));
    member.rejoin().unwrap();
    drop(member.poll(NOW).unwrap());
    assert_eq!(member.topics(), ["orders", "returns"]);
    assert_eq!(names(&member).len(), 2);
}

#[test]
fn a_topic_deleted_while_it_is_read_goes_from_the_member_and_the_pattern_finds_the_next_of_its_name() {
    let engine = Engine::builder().build().unwrap();
    let builder = engine.group("prices").matching::<u64, Multi>(|name| name.starts_with("ticks."));
    let mut member = builder.join().unwrap();
    assert_eq!(member.poll(NOW).unwrap().map(|batch| batch.len()), Some(0), "it waits without topics");
    for round in 0..3 {
        let ticks = create(&engine, "ticks.eur", 2);
        publish(&ticks, 4);
        assert_eq!(read(&mut member).len(), 4);
        assert!(engine.delete("ticks.eur").is_err(), "the group reads it");
        engine.delete_forced("ticks.eur").unwrap();
        let refused = member.poll(NOW).map(drop);
        assert!(matches!(refused, Err(GroupError::Closed { .. })), "{round}: {refused:?}");
        assert_eq!(member.poll(NOW).unwrap().map(|batch| batch.len()), Some(0));
        assert!(member.topics().is_empty());
    }
    engine.shutdown(LONG);
    assert!(member.poll(LONG).unwrap().is_none(), "no more topics come");
}

#[test]
fn a_pattern_finds_topics_before_their_first_event_of_its_type_only_and_none_that_was_given_up() {
    let engine = Engine::builder().build().unwrap();
    create(&engine, "ticks.first", 1);
    let calls = Arc::new(Mutex::new(Vec::new()));
    let pattern = {
        let calls = Arc::clone(&calls);
        move |name: &str| {
            calls.lock().unwrap().push(name.to_owned());
            name.starts_with("ticks.")
        }
    };
    let other = create(&engine, "other", 1);
    let builder = engine.group("prices").topics([&other]).matching(pattern);
    let mut member = builder.start(StartAt::Latest).join().unwrap();
    assert_eq!(member.topics(), ["other", "ticks.first"]);
    engine.topic::<u32>("ticks.of_another_type").create().unwrap();
    engine.topic::<u64>("ticks.single").single_producer().create().unwrap();
    create(&engine, "news", 1);
    let ticks = create(&engine, "ticks.second", 1);
    publish(&ticks, 3);
    assert_eq!(member.topics(), ["other", "ticks.first", "ticks.second"]);
    assert_eq!(read(&mut member).len(), 3, "also at the latest: the group was there before the first event");
    assert!(!calls.lock().unwrap().iter().any(|name| name.contains("type") || name.contains("single")));

    assert!(member.unsubscribe(&ticks).unwrap());
    create(&engine, "ticks.third", 1);
    assert_eq!(member.topics(), ["other", "ticks.first", "ticks.third"]);
    for name in ["other", "ticks.first", "ticks.third"] {
        assert!(member.unsubscribe(&engine.get(name).unwrap()).unwrap(), "with a pattern, the last one too");
    }
    member.subscribe(&ticks).unwrap();
    assert_eq!(member.topics(), ["ticks.second"]);
}

#[test]
fn more_members_than_partitions_share_what_they_find_without_a_revocation() {
    let engine = Engine::builder().build().unwrap();
    let (told, hears) = mpsc::channel();
    let mut members: Vec<_> = (0..3)
        .map(|_| {
            let told = told.clone();
            let builder = engine.group("prices").matching::<u64, Multi>(|name| name == "ticks");
            builder.listener(move |change| told.send(change.clone()).unwrap()).join().unwrap()
        })
        .collect();
    let ticks = create(&engine, "ticks", 2);
    for _ in 0..3 {
        members.iter_mut().for_each(|member| drop(member.poll(NOW).unwrap()));
    }
    let changes: Vec<_> = hears.try_iter().collect();
    assert!(changes.iter().all(|change| matches!(change, Rebalance::Assigned(all) if all.len() == 1)), "{changes:?}");
    assert_eq!(changes.len(), 2);
    publish(&ticks, 6);
    assert_eq!(members.iter_mut().map(|member| read(member).len()).sum::<usize>(), 6);
}

#[test]
fn a_member_that_waits_is_woken_by_a_topic_that_its_pattern_finds_or_that_another_thread_subscribes() {
    let engine = Engine::builder().build().unwrap();
    let mut member = engine.group("prices").matching::<u64, Multi>(|name| name == "ticks").join().unwrap();
    std::thread::scope(|threads| {
        let waits = threads.spawn(|| member.poll(LONG).unwrap().unwrap().len());
        publish(&create(&engine, "ticks", 1), 1);
        assert_eq!(waits.join().unwrap(), 1);
    });

    let mut selector = Selector::round_robin();
    let mut other = engine.group("others").matching::<u64, Multi>(|name| name == "trades").join().unwrap();
    std::thread::scope(|threads| {
        let waits = threads.spawn(|| selector.select(&mut [&mut other], LONG).unwrap());
        publish(&create(&engine, "trades", 1), 1);
        assert_eq!(waits.join().unwrap(), Some(0));
    });
}

struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_task_that_waits_is_woken_by_a_topic_that_its_pattern_finds() {
    let engine = Engine::builder().build().unwrap();
    let mut member = engine.group("prices").matching::<u64, Multi>(|name| name == "ticks").join().unwrap();
    let count = Arc::new(Count(AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut next = pin!(member.next_batch());
    assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    publish(&create(&engine, "ticks", 1), 1);
    assert!(count.0.load(SeqCst) > 0);
    let Poll::Ready(Ok(Some(batch))) = next.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("not ready")
    };
    assert_eq!(batch.len(), 1);
}

#[test]
fn managed_members_find_topics_change_them_and_end_with_the_engine() {
    let engine = Engine::builder().build().unwrap();
    let (seen, sees) = mpsc::channel();
    let run = {
        let seen = seen.clone();
        let builder = engine.group("prices").matching::<u64, Multi>(|name| name.starts_with("ticks."));
        builder.run(move |tick: &u64, _| {
            seen.send(*tick).unwrap();
            Ok::<_, Infallible>(())
        })
    };
    let run = run.unwrap();
    let ticks = create(&engine, "ticks.eur", 2);
    publish(&ticks, 1);
    assert_eq!(sees.recv_timeout(LONG), Ok(0));
    let other = create(&engine, "other", 1);
    run.subscribe(&other).unwrap();
    publish(&other, 2);
    assert_eq!([sees.recv_timeout(LONG), sees.recv_timeout(LONG)], [Ok(0), Ok(1)]);
    assert!(run.unsubscribe(&other).unwrap());
    until(|| engine.groups()[0].members[0].partitions.len() == 2);
    publish(&other, 20);
    assert!(sees.try_recv().is_err());

    let strange = engine.topic::<u32>("strange").create().unwrap();
    let refused = run.subscribe(&strange);
    assert!(matches!(&refused, Err(GroupError::Refused { topic, .. }) if topic == "strange"), "{refused:?}");
    let report = engine.shutdown(LONG);
    assert!(report.is_complete(), "{report}");
    assert_eq!(run.wait(), MemberEnd::Finished);
    let ended = run.subscribe(&other);
    assert!(matches!(ended, Err(GroupError::NotMember { .. })), "{ended:?}");

    let engine = Engine::builder().build().unwrap();
    let nothing = |_: &u64, _| Ok::<_, Infallible>(());
    let idle = engine.group("prices").matching::<u64, Multi>(|_| false).run(nothing).unwrap();
    assert_eq!(idle.wait_for(NOW), None);
    drop(engine);
    assert_eq!(idle.wait(), MemberEnd::Finished, "nobody can create a topic any more");
}

#[test]
fn a_handler_subscribes_what_an_event_names_and_is_refused_its_own_dead_letters() {
    let engine = Engine::builder().build().unwrap();
    let (orders, extra) = (create(&engine, "orders", 1), create(&engine, "extra", 1));
    let dead = create(&engine, "dead", 1);
    let (hand, handed) = mpsc::channel::<slipring::group::GroupRun>();
    let (seen, sees) = mpsc::channel();
    let topics = [extra.clone(), dead.clone()];
    let mut own = None;
    let builder = orders.group("billing").dead_letter(&dead);
    let run = builder.run(move |number: &u64, _| {
        let run = own.get_or_insert_with(|| handed.recv().unwrap());
        let changed = topics.iter().map(|topic| run.subscribe(topic).map_err(|refused| refused.to_string()));
        seen.send((*number, changed.collect::<Vec<_>>())).unwrap();
        Ok::<_, Infallible>(())
    });
    let run = run.unwrap();
    hand.send(run.clone()).unwrap();
    publish(&orders, 1);
    let (_, changed) = sees.recv_timeout(LONG).unwrap();
    assert_eq!(changed[0], Ok(()));
    assert!(changed[1].as_ref().is_err_and(|refused| refused.contains("dead")), "{changed:?}");
    publish(&extra, 1);
    assert_eq!(sees.recv_timeout(LONG).unwrap().0, 0);
    engine.shutdown(LONG);
    assert_eq!(run.wait(), MemberEnd::Finished);
}

#[test]
fn what_a_found_topic_is_refused_for_is_told_and_its_creation_succeeds() {
    let engine = Engine::builder().build().unwrap();
    let ticks = |name: &str| name.starts_with("ticks.");
    let mut member = engine.group("prices").matching::<u64, Multi>(ticks).start(StartAt::Offset(5)).join().unwrap();
    let mut spills = engine.group("reports").matching::<u64, Multi>(ticks).spill(true).join().unwrap();
    let mut panics = engine
        .group("careless")
        .matching::<u64, Multi>(|name| if name.ends_with("usd") { panic!("no {name}") } else { true })
        .join()
        .unwrap();
    create(&engine, "ticks.eur", 1);
    let refused = member.poll(NOW).map(drop);
    assert!(
        matches!(&refused, Err(GroupError::OutOfRange { refused, .. }) if refused.topic == "ticks.eur"),
        "{refused:?}"
    );
    let refused = spills.poll(NOW).map(drop);
    assert!(matches!(&refused, Err(GroupError::NoJournal { topic, .. }) if topic == "ticks.eur"), "{refused:?}");
    create(&engine, "ticks.usd", 1);
    let refused = panics.poll(NOW).map(drop);
    assert!(
        matches!(&refused, Err(GroupError::Panicked { cause, .. }) if cause.contains("no ticks.usd")),
        "{refused:?}"
    );
    assert_eq!(panics.topics(), ["ticks.eur"]);
    assert!(member.poll(NOW).is_err() && spills.poll(NOW).is_err(), "each is told of each topic once");
    for member in [&mut member, &mut spills, &mut panics] {
        assert_eq!(member.poll(NOW).unwrap().map(|batch| batch.len()), Some(0), "it goes on");
    }
    let refused = engine.group("late").matching::<u64, Multi>(|name| if name.is_empty() { true } else { panic!("oh") });
    assert!(matches!(refused.join(), Err(GroupError::Panicked { .. })));
    let none = engine.group("none").topics::<u64, Multi>([]).join();
    assert!(matches!(none, Err(GroupError::NoTopics { .. })));
}

#[test]
fn after_a_restart_a_pattern_goes_on_at_what_was_committed_in_topics_opened_after_it_joined() {
    let disk = SimulatedDisk::new();
    for _ in 0..3 {
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let builder = engine.group("prices").matching::<u64, Multi>(|name| name.starts_with("ticks."));
        let mut member = builder.join().unwrap();
        let ticks = engine.topic::<u64>("ticks.eur").durable().create().unwrap();
        publish(&ticks, 3);
        let mut offsets = Vec::new();
        while offsets.len() < 3 {
            let batch = member.poll(LONG).unwrap().unwrap();
            offsets.extend(batch.iter().map(|(_, at)| at.offset));
            batch.commit().unwrap();
        }
        assert_eq!(offsets.len(), 3);
        assert!(offsets.is_sorted());
        assert_eq!(engine.groups()[0].partition("ticks.eur", 0).unwrap().lag, 0);
        drop(member);
        assert!(engine.shutdown(LONG).is_complete());
    }
}

/// While topics are created, members join, change their topics and leave. Each event is read at least once, and each is
/// committed at the end.
#[test]
fn nothing_is_missed_while_topics_and_members_come_and_go() {
    const TOPICS: u64 = 24;
    const EVENTS: u64 = 20;
    let engine = Engine::builder().build().unwrap();
    let left = AtomicU64::new(3);
    // Holds producers, so that no event is overwritten while no member has a topic.
    let join = || engine.group("prices").matching::<u64, Multi>(|name| name.starts_with("ticks.")).hold(true).join();
    let first = join().unwrap();
    let read = Mutex::new(BTreeMap::<(String, u64), u64>::new());
    let note = |member: &mut Member<u64>| {
        let batch = member.poll(Duration::from_millis(1)).unwrap().unwrap();
        let Some(partition) = batch.partition().cloned() else { return };
        for (_, at) in batch.iter() {
            *read.lock().unwrap().entry((partition.topic.to_string(), at.offset)).or_default() += 1;
        }
        batch.commit().unwrap();
    };
    let all = || read.lock().unwrap().len() as u64 == TOPICS * EVENTS;
    std::thread::scope(|threads| {
        for part in 0..3 {
            let (engine, left) = (&engine, &left);
            threads.spawn(move || {
                for number in (part..TOPICS).step_by(3) {
                    publish(&create(engine, &format!("ticks.{number}"), 1), EVENTS);
                }
                left.fetch_sub(1, SeqCst);
            });
        }
        for seed in 0..2 {
            let (engine, note, all, join) = (&engine, &note, &all, &join);
            threads.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while !all() {
                    let mut member = join().unwrap();
                    for _ in 0..random.usize(1..20) {
                        note(&mut member);
                        let name = format!("ticks.{}", random.u64(..TOPICS));
                        let Ok(topic) = engine.get::<u64, Multi>(&name) else { continue };
                        // Given up and taken up again, so that some member always ends up with it.
                        member.unsubscribe(&topic).unwrap();
                        member.subscribe(&topic).unwrap();
                    }
                }
            });
        }
        let mut first = first;
        let note = &note;
        threads.spawn(move || {
            while !all() {
                note(&mut first);
            }
        });
    });
    assert_eq!(left.load(SeqCst), 0);
    let mut last = join().unwrap();
    assert!(drain(&mut last).is_empty(), "all was committed");
    assert_eq!(last.topics().len() as u64, TOPICS);
    let read = read.into_inner().unwrap();
    assert!(read.values().all(|times| *times == 1), "nobody was fenced, so nothing was read twice");
}

/// It was taken, and its events were read in the place of those of the own topic that had its name.
#[test]
fn a_topic_of_another_engine_is_refused() {
    let [engine, other] = [0; 2].map(|_| Engine::builder().build().unwrap());
    let ([ours, theirs], own) = ([&engine, &other].map(|of| create(of, "ticks", 1)), create(&engine, "own", 1));
    let mut member = own.group("prices").join().unwrap();
    let refused = member.subscribe(&theirs).unwrap_err();
    assert!(matches!(&refused, GroupError::Refused { topic, .. } if topic == "ticks"), "{refused}");
    assert!(refused.to_string().contains("another engine"), "{refused}");
    assert_eq!(member.topics(), ["own"]);
    member.subscribe(&ours).unwrap();
    let refused = engine.group("both").topics([&ours, &theirs]).join().unwrap_err();
    assert!(matches!(refused, GroupError::Refused { .. }), "{refused}");
}
