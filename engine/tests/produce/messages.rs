//! Messages: whatever is sent comes back whole, at every slot and over every wrap-around.

use proptest::prelude::*;
use slipring::{Engine, Message, Record, clock::Timestamp, producer::PublishError};
use std::time::Duration;

/// How often messages are drawn, and how many at most each time. Miri takes a thousand times as long.
const CASES: u32 = if cfg!(miri) { 3 } else { 300 };
const MOST: usize = if cfg!(miri) { 8 } else { 60 };

/// What is sent: owned, to be compared with.
#[derive(Clone, Debug)]
struct Parts {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    timestamp: Option<u64>,
}

impl Parts {
    fn record(&self) -> Record<'_> {
        let mut record = Record::new(&self.value);
        if let Some(key) = &self.key {
            record = record.key(key);
        }
        for (name, value) in &self.headers {
            record = record.header(name, value);
        }
        match self.timestamp {
            Some(at) => record.timestamp(Timestamp::from_nanos(at)),
            None => record,
        }
    }

    fn assert_is(&self, message: &Message) {
        assert_eq!(message.key(), self.key.as_deref());
        assert_eq!(message.value(), self.value);
        let headers: Vec<_> = message.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(headers, self.headers);
        assert_eq!(message.timestamp().map(Timestamp::as_nanos), self.timestamp);
        assert_eq!(message.size(), self.record().size());
    }
}

fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=longest)
}

fn parts() -> impl Strategy<Value = Parts> {
    let headers = prop::collection::vec((".{0,6}", bytes(20)), 0..6);
    (prop::option::of(bytes(20)), bytes(120), headers, prop::option::of(0..u64::MAX))
        .prop_map(|(key, value, headers, timestamp)| Parts { key, value, headers, timestamp })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn what_fits_comes_back_whole_and_what_does_not_is_refused_with_both_sizes(
        capacity in 0..4u32,
        largest in 0..200usize,
        limit in 1..5usize,
        sent in prop::collection::vec(parts(), 1..MOST),
    ) {
        let engine = Engine::builder().build().unwrap();
        let topic = engine.topic::<Message>("orders").capacity(1 << capacity).max_message(largest).create().unwrap();
        let mut tape = topic.subscribe("tape").limit(limit).poll().unwrap();
        let mut producer = topic.producer().create().unwrap();
        let mut waiting: std::collections::VecDeque<&Parts> = Default::default();
        let mut read = |waiting: &mut std::collections::VecDeque<&Parts>| {
            for (message, _) in &mut tape.poll(Duration::ZERO).unwrap().unwrap() {
                waiting.pop_front().expect("nothing that was not sent").assert_is(message);
                assert_eq!(message.capacity(), largest);
            }
        };
        let mut offset = 0;
        for parts in &sent {
            loop {
                match producer.try_send(parts.record()) {
                    Ok(receipt) => {
                        prop_assert_eq!(receipt.offset, offset);
                        offset += 1;
                        waiting.push_back(parts);
                        break;
                    }
                    Err(PublishError::Full { .. }) => read(&mut waiting),
                    Err(PublishError::MessageTooLarge { size, largest: most, .. }) => {
                        prop_assert!(size > largest && size == parts.record().size() && most == largest);
                        break;
                    }
                    Err(refused) => panic!("{refused}"),
                }
            }
        }
        while !waiting.is_empty() {
            read(&mut waiting);
        }
    }
}

/// Each size at each slot, and at the very limit: no neighbour is touched.
#[test]
fn every_size_at_every_slot_leaves_its_neighbours_alone() {
    let all = [0, 1, 63, 64, 65, 130];
    for &largest in if cfg!(miri) { &all[..2] } else { &all } {
        let engine = Engine::builder().build().unwrap();
        let topic = engine.topic::<Message>("orders").capacity(4).retain(3).max_message(largest).create().unwrap();
        let mut producer = topic.producer().create().unwrap();
        let fill = |number: usize| vec![number as u8; number % (largest + 1)];
        let mut tape = topic.subscribe("tape").poll().unwrap();
        for number in 0..(largest + 1) * 4 + 4 {
            producer.send(Record::new(&fill(number))).unwrap();
            (&mut tape.poll(Duration::ZERO).unwrap().unwrap()).into_iter().for_each(drop);
            // The ones before it, at their own sizes.
            tape.seek(0, (number as u64 + 1).saturating_sub(3)).unwrap();
            for (message, at) in &mut tape.poll(Duration::ZERO).unwrap().unwrap() {
                assert_eq!(message.value(), fill(at.offset as usize), "largest {largest}, at {}", at.offset);
            }
        }
        let refused = producer.send(Record::new(&vec![0; largest + 1])).unwrap_err().to_string();
        assert!(refused.contains(&(largest + 1).to_string()) && refused.contains(&largest.to_string()), "{refused}");
    }
}

#[test]
fn a_header_name_beyond_its_length_is_refused() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<Message>("orders").capacity(2).max_message(1 << 17).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let name = "n".repeat(Record::MAX_HEADER_NAME);
    producer.send(Record::new("").header(&name, "v")).unwrap();
    let long = name.clone() + "n";
    let refused = producer.send(Record::new("").header(&long, "v")).unwrap_err();
    assert!(matches!(refused, PublishError::HeaderName { len: 65_536, .. }), "{refused}");
}

#[test]
fn a_message_bears_the_time_of_its_publishing_where_the_topic_has_times() {
    let clock = slipring::clock::ManualClock::at(Timestamp::from_millis(5_000));
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<Message>("orders").capacity(4).max_message(64).timestamps().create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut producer = topic.producer().create().unwrap();
    producer.send(Record::new("a")).unwrap();
    clock.advance(Duration::from_millis(7));
    producer.send(Record::new("b")).unwrap();
    producer.send(Record::new("c").timestamp(Timestamp::from_millis(1))).unwrap();
    let mut batch = tape.poll(Duration::ZERO).unwrap().unwrap();
    let times: Vec<_> = (&mut batch).into_iter().map(|(message, _)| message.timestamp().unwrap().as_millis()).collect();
    assert_eq!(times, [5_000, 5_007, 1]);
}
