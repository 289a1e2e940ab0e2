//! A producer that never waits, as an audio callback must not: what finds no room is dropped and counted. The reader naps
//! and looks by itself, so that no publish has to wake it with a system call. See docs/REAL_TIME.md.
//!
//!     cargo run --example never_block

use slipring::{Engine, Wait, subscriber::At, topic::Overflow};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
struct Block {
    number: u64,
    samples: [f32; 32],
}

fn main() -> Result<(), Box<dyn Error>> {
    const BLOCKS: u64 = 10_000;
    let engine = Engine::builder().build()?;
    let blocks = engine.topic::<Block>("blocks").single_producer().capacity(256);
    let blocks = blocks.overflow(Overflow::DropNewest).never_wake().create()?;

    let read = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&read);
    let (mut last, mut loudest) = (None, 0.0_f32);
    let meter = move |block: &Block, _: At| {
        assert!(last < Some(block.number), "blocks come in order, also where some were dropped");
        last = Some(block.number);
        loudest = block.samples.iter().fold(loudest, |most, sample| most.max(sample.abs()));
        counts.fetch_add(1, Ordering::Relaxed);
    };
    blocks.subscribe("meter").wait(Wait::nap(Duration::from_micros(200))).run(meter)?;

    let mut producer = blocks.producer().create()?;
    for number in 0..BLOCKS {
        // The callback: written in place, no allocation, no lock, no system call.
        producer.publish(|block| {
            block.number = number;
            block.samples = [0.5; 32];
        })?;
    }
    let dropped = blocks.metrics().dropped;
    drop(producer);
    println!("{}", engine.shutdown(Duration::from_secs(60)));
    let read = read.load(Ordering::Relaxed);
    println!("of {BLOCKS} blocks {read} were read and {dropped} dropped");
    assert_eq!(read + dropped, BLOCKS);
    Ok(())
}
