//! Goal: what the last value of each key costs. A table's `get` against a hash map behind a read lock, and its updates against
//! a bare reader; what a conflating reader costs producers; how large a compacted topic is, and what compaction costs the
//! publishing rate. All as ratios of rounds that take turns; the medians are printed with the lowest and the highest
//! round. Not a goal: figures of one machine against another.
//!
//!     cargo bench -p slipring --bench values [-- quick] [tables] [conflating] [compaction]
//!
//! Without a word of the last three it measures all of them.
#![allow(clippy::unwrap_used)]

use slipring::journal::Options;
use slipring::topic::Compaction;
use slipring::{Engine, Level, Message, Record};
use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::RwLock;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(600);

slipring::plain_event! {
    #[derive(Default)]
    pub struct Quote { pub symbol: u64, pub bid: u64, pub ask: u64, pub at: u64 }
}

/// The median of rounds, the lowest and the highest one.
fn spread(mut rounds: Vec<f64>) -> String {
    rounds.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", rounds[rounds.len() / 2], rounds[0], rounds[rounds.len() - 1])
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// One rate as a part of another one. Prints both.
fn ratio(rate: f64, other: f64) -> f64 {
    println!("  {:.1} and {:.1} M/s", rate / 1e6, other / 1e6);
    rate / other
}

fn quote(number: u64, keys: u64) -> Quote {
    Quote { symbol: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys, bid: number, ask: number + 1, at: number }
}

fn table_get(keys: u64, gets: u64) {
    let engine = Engine::builder().build().unwrap();
    let quotes = engine.topic::<Quote>("quotes").capacity(1 << 12).create().unwrap();
    let table = quotes.table(|quote| quote.symbol).keys(keys as usize).open().unwrap();
    let mut map = HashMap::new();
    let mut feed = quotes.producer().create().unwrap();
    let mut last = 0;
    for symbol in 0..keys {
        let quote = Quote { symbol, bid: symbol, ask: symbol, at: 0 };
        last = feed.publish(|place| *place = quote).unwrap().offset;
        map.insert(symbol, quote);
    }
    assert!(table.wait_for(0, last, LONG).unwrap());
    let map = RwLock::new(map);
    let ratios = (0..9).map(|_| {
        let begun = Instant::now();
        let sum: u64 =
            (0..gets).map(|it| map.read().unwrap().get(&black_box(quote(it, keys).symbol)).unwrap().bid).sum();
        let locked = begun.elapsed();
        let begun = Instant::now();
        let own: u64 = (0..gets).map(|it| table.get(&black_box(quote(it, keys).symbol)).unwrap().unwrap().bid).sum();
        let ours = begun.elapsed();
        assert_eq!(sum, own);
        ours.as_secs_f64() / locked.as_secs_f64()
    });
    println!("table get, {keys} keys: {} x the time of a hash map's behind a read lock", spread(ratios.collect()));
}

/// Events a second from the first publish until the reader has seen the last one.
fn followed(keys: u64, events: u64, with_table: bool) -> f64 {
    let engine = Engine::builder().build().unwrap();
    let quotes = engine.topic::<Quote>("quotes").capacity(1 << 14).single_producer().create().unwrap();
    let mut feed = quotes.producer().create().unwrap();
    let publish = |feed: &mut slipring::Producer<Quote, _>| {
        (0..events).map(|number| feed.publish(|place| *place = quote(number, keys)).unwrap().offset).last().unwrap()
    };
    if with_table {
        let table = quotes.table(|quote| quote.symbol).keys(keys as usize).open().unwrap();
        let begun = Instant::now();
        let last = publish(&mut feed);
        assert!(table.wait_for(0, last, LONG).unwrap());
        return per_second(events, begun.elapsed());
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut sum = 0_u64;
    let reader = quotes.subscribe("bare").run(move |quote, at| {
        sum = sum.wrapping_add(quote.bid);
        if at.offset + 1 == events {
            sender.send(sum).unwrap();
        }
        Ok::<(), std::convert::Infallible>(())
    });
    let _reader = reader.unwrap();
    let begun = Instant::now();
    publish(&mut feed);
    black_box(receiver.recv().unwrap());
    per_second(events, begun.elapsed())
}

/// Events a second that a producer publishes beside one reader: one that sees each event, or one that conflates. With a third
/// thread on two cores the figure would be that of the scheduler.
fn published(keys: u64, events: u64, conflates: bool) -> f64 {
    let engine = Engine::builder().build().unwrap();
    let quotes = engine.topic::<Quote>("quotes").capacity(1 << 14).single_producer().create().unwrap();
    let reader = (!conflates).then(|| {
        let reader = quotes.subscribe("reader").run(|quote, _| {
            black_box(quote.bid);
        });
        reader.unwrap()
    });
    let screen = conflates.then(|| {
        quotes.subscribe("screen").conflate(|quote: &Quote| quote.symbol).keys(keys as usize).start().unwrap()
    });
    let mut feed = quotes.producer().create().unwrap();
    let begun = Instant::now();
    for number in 0..events {
        feed.publish(|place| *place = quote(number, keys)).unwrap();
    }
    let rate = per_second(events, begun.elapsed());
    drop((reader, screen));
    rate
}

fn segments(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let segments = files.filter(|file| file.file_name().to_string_lossy().ends_with(".segment"));
    segments.map(|file| file.metadata().unwrap().len()).sum()
}

/// What compacts the topic while it is written. A last pass follows, if anything does.
#[derive(Clone, Copy, PartialEq)]
enum Compacts {
    Nothing,
    /// The journal's helper, held to its rate.
    Background,
    /// One pass after another, as fast as they go.
    Always,
}

/// Messages a second, durable at the end, the bytes of all segments at last, and how long the last pass took.
fn compacted(keys: u64, updates: u64, by: Compacts) -> (f64, u64, Duration) {
    let compacts = by != Compacts::Nothing;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let options = Options { segment_size: 16 << 20, ..Options::default() };
    let engine = Engine::builder().journal(&path).journal_options(options).build().unwrap();
    let topic = engine.topic::<Message>("prices").capacity(1 << 14).max_message(256).durable();
    let topic = if compacts { topic.compact(Compaction::by_key()) } else { topic };
    let topic = topic.create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let (value, over) = ([7; 100], std::sync::atomic::AtomicBool::new(false));
    let rate = std::thread::scope(|scope| {
        if by == Compacts::Always {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Acquire) {
                    engine.compact().unwrap();
                    std::thread::sleep(Duration::from_millis(500));
                }
            });
        }
        let begun = Instant::now();
        let mut receipt = None;
        for number in 0..keys * updates {
            let key = quote(number, keys).symbol.to_le_bytes();
            receipt = Some(producer.send(Record::new(&value).key(&key)).unwrap());
        }
        receipt.unwrap().wait(Level::Durable).unwrap();
        let rate = per_second(keys * updates, begun.elapsed());
        over.store(true, std::sync::atomic::Ordering::Release);
        rate
    });
    let begun = Instant::now();
    if compacts {
        engine.compact().unwrap();
    }
    let took = begun.elapsed();
    // A journal that is closed cuts its last segment, and removes the one that was made ahead.
    drop((producer, topic));
    assert!(engine.shutdown(LONG).is_complete());
    (rate, segments(&path), took)
}

fn main() {
    let asks = |word: &str| std::env::args().any(|argument| argument == word);
    // With `--test`, as the gate runs benchmarks, it only shows that it runs.
    let (keys, events, rounds) = match (asks("--test"), asks("quick")) {
        (true, _) => (500, 10_000, 1),
        (_, true) => (20_000, 400_000, 3),
        _ => (1_000_000, 10_000_000, 5),
    };
    let all = !["tables", "conflating", "compaction"].into_iter().any(asks);
    if all || asks("tables") {
        table_get(1000, events / 4);
        table_get(keys, events / 4);
        let updates = (0..rounds).map(|_| ratio(followed(1000, events, true), followed(1000, events, false)));
        println!("table updates, 1000 keys: {} x the rate of a bare reader", spread(updates.collect()));
    }
    if all || asks("conflating") {
        let conflates = (0..rounds).map(|_| ratio(published(1000, events, true), published(1000, events, false)));
        println!("producers beside a conflating reader: {} x the rate without it", spread(conflates.collect()));
    }
    if all || asks("compaction") {
        compaction(keys, rounds.min(3));
    }
}

fn compaction(keys: u64, rounds: usize) {
    // What one record of each key takes where nothing else was written.
    let (_, live, _) = compacted(keys, 1, Compacts::Nothing);
    let rounds = (0..rounds).map(|_| {
        let (plain, all, _) = compacted(keys, 10, Compacts::Nothing);
        let (background, left, took) = compacted(keys, 10, Compacts::Background);
        let (always, ..) = compacted(keys, 10, Compacts::Always);
        println!("  {keys} keys x 10: {all} bytes, compacted {left}, the last pass took {took:.1?}");
        (left as f64 / live as f64, (background / plain, always / plain))
    });
    let (sizes, rates): (Vec<_>, Vec<_>) = rounds.unzip();
    let (background, always) = rates.into_iter().unzip();
    println!("a compacted topic, {keys} keys with 10 updates each: {} x the live data", spread(sizes));
    println!("  publishing beside compaction in the background: {} x the rate without it", spread(background));
    println!("  publishing beside one pass after another: {} x the rate without it", spread(always));
}
