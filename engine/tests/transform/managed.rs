//! Transforms on threads of their own.

use slipring::journal::simulated::SimulatedDisk;
use slipring::{Engine, Level, transform::TransformEnd};
use std::time::{Duration, Instant};

use crate::accounts::read_all;

const LONG: Duration = Duration::from_secs(60);

fn engine(disk: &SimulatedDisk) -> Engine {
    Engine::builder().journal_in(disk.clone()).build().unwrap()
}

#[test]
fn a_managed_transform_reads_all_and_ends_with_its_input() {
    let disk = SimulatedDisk::new();
    for round in 0..2_u64 {
        let engine = engine(&disk);
        let orders = engine.topic::<u64>("orders").partitions(2).durable().create().unwrap();
        let doubled = engine.topic::<u64>("doubled").durable().create().unwrap();
        let run = engine.transform("orders", "doubled", "double", |order: &u64, _, out| {
            out.publish(|next: &mut u64| *next = order * 2)
        });
        let run = run.unwrap();
        let mut producer = orders.producer().create().unwrap();
        for order in 0..50 {
            producer.publish_to((order % 2) as u32, |event| *event = round * 50 + order).unwrap();
        }
        drop(producer);
        orders.close();
        assert!(matches!(run.wait(), TransformEnd::Finished), "{run:?}");
        let mut seen = Vec::new();
        read_all(&doubled, |event, _| seen.push(*event)).unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..(round + 1) * 50).map(|order| order * 2).collect::<Vec<_>>());
        assert!(engine.shutdown(LONG).is_complete());
    }
}

/// The handler fails on a batch that was read ahead, while the commit before it finds no room.
#[test]
fn what_a_handler_fails_on_ahead_of_a_commit_is_read_again_and_counts_once() {
    const ORDERS: u64 = 40;
    const ROOM: u64 = 64;
    // The second batch, with one on its way; the third, which is to be committed together with the second.
    for culprit in [5, 9] {
        let engine = engine(&SimulatedDisk::new());
        let orders = engine.topic::<u64>("orders").capacity(64).durable().create().unwrap();
        let out = engine.topic::<u64>("out").capacity(ROOM as usize).durable().create().unwrap();
        let mut tape = out.subscribe("tape").poll().unwrap();
        let mut filler = out.producer().create().unwrap();
        filler.publish_batch(ROOM as usize, |_, event| *event = u64::MAX).unwrap();
        let mut producer = orders.producer().create().unwrap();
        for order in 0..ORDERS {
            producer.publish(|event| *event = order).unwrap().wait(Level::Written).unwrap();
        }
        drop((producer, filler));
        orders.close();
        let (tell, told) = std::sync::mpsc::channel();
        let mut failed = false;
        let copy = orders.transform("copy").batch(4).open().unwrap();
        let run = copy.run(out, move |order, _, outputs| {
            // What it has published of this batch is to be forgotten.
            outputs.publish(|event| *event = *order).map_err(|refused| refused.to_string())?;
            if *order == culprit && !failed {
                failed = true;
                let _ = tell.send(());
                return Err("not yet".to_owned());
            }
            Ok(())
        });
        let run = run.unwrap();
        told.recv_timeout(LONG).expect("it reads ahead");
        // There is room only now.
        let mut seen = Vec::new();
        let until = Instant::now() + LONG;
        loop {
            let is_over = run.ended().is_some();
            let mut batch = tape.poll(Duration::from_millis(5)).unwrap().unwrap();
            let came = batch.len();
            seen.extend((&mut batch).into_iter().map(|(order, _)| *order).filter(|order| *order != u64::MAX));
            if came == 0 && (is_over || Instant::now() > until) {
                break;
            }
        }
        assert!(matches!(run.ended(), Some(TransformEnd::Finished)), "{run:?}");
        assert!(seen.iter().copied().eq(0..ORDERS), "{seen:?}");
    }
}
