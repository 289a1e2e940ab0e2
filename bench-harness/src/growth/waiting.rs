//! The processor time of readers with many partitions or topics: before they sleep, and while one of these has events.

use std::time::Duration;

use slipring::journal::simulated::SimulatedDisk;
use slipring::subscriber::{Selectable, Selector};
use slipring::{Engine, Level, Receipt, Subscriber, Topic};

use super::bound::Bound;
use super::cost::{LONG, in_memory, median, nanos_a_call, on_disk, partitioned, thread_nanos, topics};
use super::row::{Row, Unit};
use crate::failure::Failure;
use crate::system::others_time;

pub const ROWS: &[Row] = &[
    Row {
        name: "subscriber-sleep",
        cost: "a poll of 100 ms in which nothing comes",
        of: "partitions",
        unit: Unit::Nanos,
        quick: &[4, 16, 64, 256],
        full: &[4, 16, 64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "0.4 ms at 4, 27 ms at 1,024",
        measure: subscriber,
    },
    Row {
        name: "selector-sleep",
        cost: "a select of 100 ms in which nothing comes",
        of: "readers",
        unit: Unit::Nanos,
        quick: &[4, 16, 64, 256],
        full: &[4, 16, 64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "145 ms at 1,024",
        measure: selector,
    },
    Row {
        name: "journal-sleep",
        cost: "the journal's threads for one event of each topic, until they sleep again",
        of: "durable topics",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[16, 64, 256, 1024],
        target: Bound::Linear,
        today: None,
        before: "78 to 95 ms at 1,024, without the events",
        measure: journal,
    },
    Row {
        name: "poll-one-busy",
        cost: "a publish to one partition, and the poll that reads it",
        of: "partitions",
        unit: Unit::Nanos,
        quick: &[4, 16, 64, 256],
        full: &[4, 16, 64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "6.5 us at 4, 405 us at 256",
        measure: poll_one_busy,
    },
    Row {
        name: "select-one-busy",
        cost: "a select that finds one reader that has an event",
        of: "readers",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[16, 64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "linear",
        measure: select_one_busy,
    },
];

const QUIET: Duration = Duration::from_millis(100);

fn subscriber(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topic = partitioned(&engine, n)?;
    let mut reader = topic.subscribe("reader").poll().map_err(Failure::refused)?;
    median(3, || Ok(thread_nanos(|| reader.poll(QUIET).map(drop).map_err(Failure::refused))?.1))
}

/// Topics with a subscriber each, and their engine.
type Readers = (Engine, Vec<Topic<u64>>, Vec<Subscriber<u64>>);

/// A topic for each of `n` readers.
fn readers(n: usize) -> Result<Readers, Failure> {
    let engine = in_memory()?;
    let topics = topics(&engine, n)?;
    let readers = topics.iter().map(|topic| topic.subscribe("reader").poll()).collect::<Result<_, _>>();
    let readers = readers.map_err(Failure::refused)?;
    Ok((engine, topics, readers))
}

fn selectable(readers: &mut [Subscriber<u64>]) -> Vec<&mut dyn Selectable> {
    readers.iter_mut().map(|reader| reader as &mut dyn Selectable).collect()
}

fn selector(n: usize) -> Result<f64, Failure> {
    let (_engine, _topics, mut readers) = readers(n)?;
    let mut selector = Selector::round_robin();
    let mut all = selectable(&mut readers);
    median(3, || Ok(thread_nanos(|| selector.select(&mut all, QUIET).map(drop).map_err(Failure::refused))?.1))
}

/// The time of the events is part of the figure: what comes after them alone is so short that it is noise.
fn journal(n: usize) -> Result<f64, Failure> {
    let disk = SimulatedDisk::new();
    let engine = on_disk(&disk, 8 << 20)?;
    let topic = |index| engine.topic::<u64>(format!("topic-{index}")).capacity(8).durable().create();
    let topics = (0..n).map(topic).collect::<Result<Vec<_>, _>>().map_err(Failure::refused)?;
    let publish = |topic: &Topic<u64>| -> Result<Receipt, Failure> {
        topic.producer().create().map_err(Failure::refused)?.publish(|_| ()).map_err(Failure::refused)
    };
    std::thread::sleep(QUIET);
    let before = others_time()?;
    let receipts = topics.iter().map(publish).collect::<Result<Vec<_>, _>>()?;
    receipts.iter().try_for_each(|receipt| receipt.wait(Level::Durable).map(drop)).map_err(Failure::refused)?;
    std::thread::sleep(5 * QUIET);
    let spent = others_time()? - before;
    engine.shutdown(LONG);
    Ok(spent as f64)
}

fn poll_one_busy(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topic = partitioned(&engine, n)?;
    let mut reader = topic.subscribe("reader").poll().map_err(Failure::refused)?;
    let mut producer = topic.producer().create().map_err(Failure::refused)?;
    nanos_a_call(50, || {
        producer.publish_to(0, |event| *event = 1).map_err(Failure::refused)?;
        read_one(&mut reader)
    })
}

/// Polls until a batch has an event.
fn read_one(reader: &mut Subscriber<u64>) -> Result<(), Failure> {
    loop {
        match reader.poll(Duration::ZERO).map_err(Failure::refused)? {
            Some(mut batch) => {
                if (&mut batch).into_iter().count() > 0 {
                    return Ok(());
                }
            }
            None => return Err(Failure::refused("the topic was closed")),
        }
    }
}

fn select_one_busy(n: usize) -> Result<f64, Failure> {
    let (_engine, topics, mut readers) = readers(n)?;
    let mut producer = topics[n / 2].producer().create().map_err(Failure::refused)?;
    let mut selector = Selector::round_robin();
    let mut one = || {
        producer.publish(|event| *event = 1).map_err(Failure::refused)?;
        // Listing the readers is the caller's own cost, so it is not measured.
        let mut all = selectable(&mut readers);
        let (found, spent) = thread_nanos(|| selector.select(&mut all, LONG).map_err(Failure::refused))?;
        let reader = found.and_then(|found| readers.get_mut(found));
        read_one(reader.ok_or_else(|| Failure::refused("the selector found no reader"))?)?;
        Ok(spent)
    };
    median(5, || Ok((0..50).map(|_| one()).sum::<Result<f64, Failure>>()? / 50.0))
}
