//! Messages with keys in four partitions, read by a group of two members: each partition by one of them. One member
//! leaves, and the other goes on where it committed.
//!
//!     cargo run --example groups

use slipring::{Engine, Message, Record, group::Member};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

const ACCOUNTS: usize = 8;
const ORDERS: usize = 100;

/// How many orders of each account were read.
type Read = BTreeMap<Vec<u8>, usize>;

/// Reads what there is, and commits it.
fn read(name: &str, member: &mut Member<Message>, into: &mut Read) -> Result<(), Box<dyn Error>> {
    while let Some(batch) = member.poll(Duration::from_millis(100))? {
        if batch.is_empty() {
            break; // nothing came in time; `None` would say that the topic has ended
        }
        for (order, _) in batch.iter() {
            *into.entry(order.key().unwrap_or_default().to_vec()).or_default() += 1;
        }
        if let Some(partition) = batch.partition() {
            println!("{name} read {} of {partition}", batch.len());
        }
        batch.commit()?; // without it, a successor would read these again
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder().build()?;
    let orders = engine.topic::<Message>("orders").partitions(4).create()?;
    let mut first = orders.group("billing").join()?;
    let mut second = orders.group("billing").join()?;

    // Orders of one account have one key, so they are in one partition, in order.
    let mut producer = orders.producer().create()?;
    let mut send = |from: usize| -> Result<(), Box<dyn Error>> {
        for number in from..from + ORDERS / 2 {
            let key = format!("account-{}", number % ACCOUNTS);
            producer.send(Record::new(&format!("order {number}")).key(&key))?;
        }
        Ok(())
    };
    let mut sum = Read::new();
    send(0)?;
    read("first", &mut first, &mut sum)?;
    read("second", &mut second, &mut sum)?;
    println!("{}", engine.groups()[0]);

    // Its partitions go to the member that stays.
    second.leave();
    send(ORDERS / 2)?;
    read("first", &mut first, &mut sum)?;
    read("first", &mut first, &mut sum)?;

    assert_eq!((sum.len(), sum.values().sum::<usize>()), (ACCOUNTS, ORDERS), "each order once");
    println!("each of {ORDERS} orders was read once");
    Ok(())
}
