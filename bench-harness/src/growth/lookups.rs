//! Lookups of topics by name, and producers of topics with many partitions.

use slipring::producer::Multi;

use super::bound::Bound;
use super::cost::{in_memory, nanos_a_call, partitioned, topics};
use super::row::{Row, Unit};
use crate::failure::Failure;

pub const ROWS: &[Row] = &[
    Row {
        name: "get",
        cost: "Engine::get",
        of: "topics",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[64, 256, 1024, 4096],
        target: Bound::Constant,
        today: None,
        before: "linear",
        measure: get,
    },
    Row {
        name: "producer-create",
        cost: "making and dropping a producer",
        of: "partitions",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[16, 64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "linear",
        measure: create,
    },
];

fn get(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let _topics = topics(&engine, n)?;
    let last = format!("topic-{}", n - 1);
    nanos_a_call(200, || engine.get::<u64, Multi>(&last).map(drop).map_err(Failure::refused))
}

fn create(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topic = partitioned(&engine, n)?;
    nanos_a_call(20, || topic.producer().create().map(drop).map_err(Failure::refused))
}
