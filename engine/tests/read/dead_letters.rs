//! Subscribers that move aside what they cannot handle.

use slipring::{
    Engine, Message, Record, Topic,
    dead_letter::DeadLetter,
    subscriber::{At, OnError, SubscribeError},
    topic::Closed,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

fn topics() -> (Engine, Topic<Message>, Topic<Message>) {
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<Message>("orders").partitions(2).create().unwrap();
    let dead = engine.topic::<Message>("dead").capacity(4).create().unwrap();
    (engine, orders, dead)
}

/// Fails on what begins with "bad", panics at "worse".
fn handle(seen: &Mutex<Vec<String>>, order: &Message) -> Result<(), String> {
    let text = String::from_utf8_lossy(order.value()).into_owned();
    seen.lock().unwrap().push(text.clone());
    if text == "worse" {
        std::panic::resume_unwind(Box::new("beyond words"));
    }
    if text.starts_with("bad") { Err(format!("{text} indeed")) } else { Ok(()) }
}

fn letters(dead: &mut slipring::Subscriber<Message>, len: usize) -> Vec<DeadLetter> {
    let mut found = Vec::new();
    while found.len() < len {
        let mut batch = dead.poll(LONG).unwrap().expect("open");
        found.extend((&mut batch).into_iter().map(|(message, _)| DeadLetter::read(message).unwrap()));
    }
    found
}

#[test]
fn what_fails_is_moved_aside_with_the_reason_after_its_attempts_and_the_rest_goes_on() {
    for each in [false, true] {
        let (engine, orders, dead) = topics();
        let mut undertaker = dead.subscribe("undertaker").poll().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let builder = orders.subscribe("book").on_error(OnError::Retry(2)).dead_letter(&dead);
        let shared = Arc::clone(&seen);
        if each {
            let make = move |_| {
                let seen = Arc::clone(&shared);
                move |order: &Message, _: At| handle(&seen, order)
            };
            builder.run_each(make).unwrap();
        } else {
            builder.run(move |order, _| handle(&shared, order)).unwrap();
        }
        let mut producer = orders.producer().create().unwrap();
        for text in ["good", "bad", "better", "worse", "last"] {
            producer.send(Record::new(text).key("k").header("trace", "7").partition(1)).unwrap();
        }
        let found = letters(&mut undertaker, 2);
        assert_eq!((&*found[0].topic, found[0].partition, found[0].offset), ("orders", 1, 1));
        assert_eq!((&*found[0].consumer, found[0].attempts, &*found[0].reason), ("book", 3, "bad indeed"));
        assert_eq!((found[0].message.key(), found[0].message.value()), (Some(&b"k"[..]), &b"bad"[..]));
        assert!(found[1].reason.contains("beyond words"), "{:?}", found[1]);
        drop(undertaker);
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert_eq!(
            *seen.lock().unwrap(),
            ["good", "bad", "bad", "bad", "better", "worse", "worse", "worse", "last"],
            "each attempt in its place"
        );
        assert_eq!(orders.metrics().partitions[1].published, 5);
    }
}

#[test]
fn a_letter_without_room_stops_the_subscriber_and_says_so_and_the_event_stays_unread() {
    let (engine, orders, dead) = topics();
    let _full = dead.subscribe("never reads".replace(' ', "-")).poll().unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let shared = Arc::clone(&seen);
    orders.subscribe("book").dead_letter(&dead).run(move |order, _| handle(&shared, order)).unwrap();
    let mut producer = orders.producer().create().unwrap();
    for index in 0..5 {
        producer.send(Record::new(&format!("bad {index}")).partition(0)).unwrap();
    }
    let told = loop {
        match producer.send(Record::new("good").partition(0)) {
            Ok(_) => std::thread::yield_now(),
            Err(told) => break told.to_string(),
        }
    };
    for part in ["book", "bad 4 indeed", "not moved to the dead letters", "never-reads"] {
        assert!(told.contains(part), "{told}");
    }
    let report = engine.shutdown(LONG);
    assert!(!report.is_complete());
    assert!(matches!(orders.closed(), Some(Closed::Failed { .. })));
    assert_eq!(seen.lock().unwrap().iter().filter(|text| *text == "bad 4").count(), 1);
}

#[test]
fn typed_events_are_copied() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<(u64, u64)>("ticks").create().unwrap();
    let dead = engine.topic::<(u64, u64)>("dead").create().unwrap();
    let mut undertaker = dead.subscribe("undertaker").poll().unwrap();
    ticks
        .subscribe("book")
        .on_error(OnError::Skip)
        .dead_letter(&dead)
        .run(|tick, _| if tick.0 % 2 == 0 { Ok(()) } else { Err("odd") })
        .unwrap();
    let mut producer = ticks.producer().create().unwrap();
    producer.publish_batch(6, |index, tick| *tick = (index as u64, 7)).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend((&mut undertaker.poll(LONG).unwrap().unwrap()).into_iter().map(|(tick, _)| *tick));
    }
    assert_eq!(seen, [(1, 7), (3, 7), (5, 7)]);
    drop(undertaker);
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_topic_that_cannot_take_letters_is_refused_before_anything_is_read() {
    let (_engine, orders, dead) = topics();
    let circle = orders.subscribe("book").dead_letter(&orders).run(|_, _| Ok::<_, String>(())).unwrap_err();
    assert!(matches!(&circle, SubscribeError::DeadLetters { .. }) && circle.to_string().contains("own"), "{circle}");
    dead.close();
    let closed = orders.subscribe("book").dead_letter(&dead).run(|_, _| Ok::<_, String>(())).unwrap_err();
    assert!(matches!(&closed, SubscribeError::DeadLetters { .. }), "{closed}");
    assert!(orders.metrics().consumers.is_empty());
}
