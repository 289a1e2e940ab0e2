//! Where a group starts, and where its members go.

use crate::*;

#[test]
fn a_group_starts_where_it_is_told_and_from_then_on_where_it_committed() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock).build().unwrap();
    let topic = engine.topic::<u64>("numbers").capacity(16).retain(8).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    (0..12).for_each(|_| _ = producer.publish(|_| ()).unwrap());
    let starts = [(StartAt::Earliest, 4), (StartAt::Latest, 12), (StartAt::Offset(7), 7)];
    for (index, (start, first)) in starts.into_iter().enumerate() {
        let group = || topic.group(format!("g{index}"));
        let mut member = group().start(start).join().unwrap();
        drop(member.poll(NOW).unwrap());
        assert_eq!(member.position(&numbers(0)), Ok(first));
        drop(member);
        let mut member = group().start(StartAt::Offset(99)).join().unwrap();
        drop(member.poll(NOW).unwrap());
        assert_eq!(member.committed(&numbers(0)), Ok(first), "the committed offset comes before any other");
    }
    let refused = topic.group("new").start(StartAt::Offset(99)).join().unwrap_err();
    let GroupError::OutOfRange { refused, .. } = refused else { panic!("{refused}") };
    assert_eq!((refused.asked, refused.earliest, refused.latest), (99, 4, 12));
}

#[test]
fn a_member_seeks_pauses_and_resumes_within_what_it_has() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(2).capacity(16).retain(8).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut member = topic.group("sums").join().unwrap();
    for partition in 0..2 {
        (0..12).for_each(|_| _ = producer.publish_to(partition, |_| ()).unwrap());
    }
    drop(member.poll(NOW).unwrap());
    assert_eq!((member.lag(&numbers(0)), member.position(&numbers(1))), (Ok(12), Ok(0)));
    member.pause(&numbers(0)).unwrap();
    assert_eq!(drain(&mut member), (0..12).map(|offset| (1, offset)).collect::<Vec<_>>());
    member.resume(&numbers(0)).unwrap();
    member.seek(&numbers(0), StartAt::Offset(10)).unwrap();
    assert_eq!(member.committed(&numbers(0)), Ok(10), "a seek commits");
    assert_eq!(drain(&mut member), [(0, 10), (0, 11)]);
    member.seek(&numbers(0), StartAt::Earliest).unwrap();
    assert_eq!(drain(&mut member), (4..12).map(|offset| (0, offset)).collect::<Vec<_>>());
    for asked in [3, 13] {
        let refused = member.seek(&numbers(0), StartAt::Offset(asked)).unwrap_err();
        let GroupError::Position(PositionError::OutOfRange { refused, .. }) = refused else { panic!("{refused}") };
        assert_eq!((refused.earliest, refused.latest), (4, 12));
        assert_eq!(member.position(&numbers(0)), Ok(12));
    }
    let refused = member.pause(&numbers(9)).unwrap_err();
    assert!(refused.to_string().contains("numbers/0, numbers/1"), "{refused}");
}

#[test]
fn a_group_starts_and_seeks_by_time_where_the_topic_has_times() {
    let clock = ManualClock::at(Timestamp::from_millis(0));
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let settings = |name| engine.topic::<u64>(name).capacity(16).retain(8).timestamps();
    let topic = settings("numbers").create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for _ in 0..10 {
        clock.advance(Duration::from_secs(1));
        producer.publish(|_| ()).unwrap();
    }
    let at = |seconds: u64| StartAt::Timestamp(Timestamp::from_millis(seconds * 1000));
    let mut member = topic.group("sums").deadline(LONG).start(at(6)).join().unwrap();
    assert_eq!(look(&mut member).1, [5, 6, 7, 8, 9]);
    drain(&mut member);
    for (seconds, first) in [(4, 3), (9, 8), (1, 2), (7, 6), (99, 10)] {
        member.seek(&numbers(0), at(seconds)).unwrap();
        let stands = (member.position(&numbers(0)), member.committed(&numbers(0)));
        assert_eq!(stands, (Ok(first), Ok(first)), "{seconds}");
    }
    let plain = engine.topic::<u64>("plain").create().unwrap();
    let refused = plain.group("sums").start(at(1)).join().unwrap_err();
    assert!(matches!(refused, GroupError::Position(PositionError::NoTimestamps { .. })));
    // What is too old is for nobody who comes or goes back.
    let aged = settings("aged").retain_for(Duration::from_secs(3)).create().unwrap();
    let mut producer = aged.producer().create().unwrap();
    for _ in 0..6 {
        producer.publish(|_| ()).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let mut member = aged.group("aging").deadline(LONG).join().unwrap();
    assert_eq!(look(&mut member).1, [3, 4, 5]);
    drain(&mut member);
    let this = TopicPartition::new("aged", 0);
    let refused = member.seek(&this, StartAt::Offset(1)).unwrap_err();
    let GroupError::Position(PositionError::OutOfRange { refused, .. }) = refused else { panic!("{refused}") };
    assert_eq!((refused.earliest, refused.latest), (3, 6));
    assert_eq!(member.position(&this), Ok(6));
    member.seek(&this, StartAt::Earliest).unwrap();
    assert_eq!(member.position(&this), Ok(3));
}
