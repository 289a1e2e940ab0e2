//! A durable topic: what the next process finds of what this one wrote. The program opens its journal three times, as three
//! runs of a program would.
//!
//!     cargo run --example durable

use slipring::{Engine, Level, Message, Record, subscriber::StartAt};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn first(journal: &Path) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(journal)?;
    let orders = engine.topic::<Message>("orders").durable().create()?;
    // A send returns when its record can be read. The receipt waits until a power cut would not lose it.
    let mut producer = orders.producer().create()?;
    producer.send(Record::new("buy 1"))?;
    let receipt = producer.send(Record::new("buy 2"))?;
    println!("the order at {} is {}", receipt.offset, receipt.wait(Level::Durable)?);

    let mut billing = orders.group("billing").join()?;
    if let Some(mut batch) = billing.poll(LONG)? {
        println!("billing reads one of {} orders, and commits it", batch.len());
        batch.commit_to(1)?;
    }
    drop((billing, producer));
    println!("{}", engine.shutdown(LONG));
    Ok(())
}

fn second(journal: &Path) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(journal)?;
    let orders = engine.topic::<Message>("orders").durable().create()?;
    // The group goes on where it committed.
    let mut billing = orders.group("billing").join()?;
    let batch = billing.poll(LONG)?.ok_or("there is an order left")?;
    for (order, at) in batch.iter() {
        println!("billing goes on at {}: {}", at.offset, String::from_utf8_lossy(order.value()));
        assert_eq!((at.offset, order.value()), (1, &b"buy 2"[..]));
    }
    batch.commit_durable()?;
    drop(billing);
    engine.shutdown(LONG);
    Ok(())
}

fn third(journal: &Path) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(journal)?;
    let orders = engine.topic::<Message>("orders").durable().create()?;
    // A replay reads the past, then what comes. A subscriber would begin at the next new order.
    let mut audit = orders.replay("audit").start(StartAt::Earliest).open()?;
    let mut seen = 0;
    while seen < 2 {
        audit.read(LONG, |order, at| {
            println!("audit sees {}: {}", at.offset, String::from_utf8_lossy(order.value()));
            seen += 1;
        })?;
    }
    drop(audit);
    engine.shutdown(LONG);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let journal = folder.path().join("journal");
    first(&journal)?;
    second(&journal)?;
    third(&journal)
}
