//! A ring alone: graphs of many layers, and producers that take turns.

use slipring_ring::{Builder, MultiProducer, Ring, Single, SingleProducer, Stage, Wait};

use super::bound::Bound;
use super::cost::{median, nanos_a_call, thread_nanos};
use super::row::{Row, Unit};
use crate::failure::Failure;

pub const ROWS: &[Row] = &[
    Row {
        name: "layers-build",
        cost: "building a graph, a layer of it",
        of: "layers of two stages, each behind both before",
        unit: Unit::Nanos,
        quick: &[4, 16, 64],
        full: &[4, 16, 64, 256],
        target: Bound::Linear,
        today: None,
        before: "exponential",
        measure: build,
    },
    Row {
        name: "layers-drop",
        cost: "dropping a consumer of the last layer",
        of: "layers of two stages, each behind both before",
        unit: Unit::Nanos,
        quick: &[4, 16, 64],
        full: &[4, 16, 64, 256],
        target: Bound::Linear,
        today: None,
        before: "14 ms at 20, 2.67 s at 28",
        measure: leave,
    },
    Row {
        name: "turns",
        cost: "an event of two clones of a producer in turns, by one of one producer",
        of: "events",
        unit: Unit::Times,
        quick: &[20_000],
        full: &[200_000],
        target: Bound::AtMost(2.0),
        today: None,
        before: "1,690 ns instead of 11: 154 x",
        measure: turns,
    },
];

/// A ring with layers of two stages `a` and `b`, each of which reads after both stages of the layer before. The stage
/// `last`, which may change events, reads after the last layer.
fn graph(layers: usize) -> Result<(SingleProducer<u64>, Ring<u64, Single>), Failure> {
    let mut builder = Builder::single(8, u64::default);
    let name = |layer: usize, side: char| format!("{layer}-{side}");
    let above = |layer: usize| layer.checked_sub(1).map(|above| [name(above, 'a'), name(above, 'b')]);
    for layer in 0..layers {
        for side in ['a', 'b'] {
            builder.poll(Stage::new(name(layer, side)).after(above(layer).into_iter().flatten().collect::<Vec<_>>()));
        }
    }
    builder.poll_mut(Stage::new("last").after(above(layers).into_iter().flatten().collect::<Vec<_>>()));
    builder.build().map_err(Failure::refused)
}

fn build(layers: usize) -> Result<f64, Failure> {
    median(5, || Ok(thread_nanos(|| graph(layers))?.1 / layers as f64))
}

fn leave(layers: usize) -> Result<f64, Failure> {
    median(5, || {
        let (_producer, ring) = graph(layers)?;
        drop(ring.consumer_mut("last").map_err(Failure::refused)?);
        let consumer = ring.consumer(&format!("{}-a", layers - 1)).map_err(Failure::refused)?;
        let ((), nanos) = thread_nanos(|| {
            drop(consumer);
            Ok(())
        })?;
        Ok(nanos)
    })
}

fn turns(events: usize) -> Result<f64, Failure> {
    let producer = || -> Result<MultiProducer<u64>, Failure> {
        let (mut producer, _) = Builder::multi(1024, u64::default).build().map_err(Failure::refused)?;
        producer.set_wait(Wait::spin());
        Ok(producer)
    };
    let mut one = producer()?;
    let alone = nanos_a_call(events, || one.publish(|event| *event = 1).map(drop).map_err(Failure::refused))?;
    let mut first = producer()?;
    let mut second = first.clone();
    let both = nanos_a_call(events, || {
        first.publish(|event| *event = 1).map_err(Failure::refused)?;
        std::mem::swap(&mut first, &mut second);
        Ok(())
    })?;
    Ok(both / alone)
}
