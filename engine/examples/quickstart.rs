use slipring::Engine;
use std::{error::Error, time::Duration};

#[derive(Default)]
struct Trade {
    price: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder().build()?;
    let trades = engine.topic::<Trade>("trades").capacity(1024).create()?;

    let print = |trade: &Trade, at: slipring::subscriber::At| {
        println!("trade {} at price {}", at.offset, trade.price);
    };
    trades.subscribe("print").run(print)?;

    let mut producer = trades.producer().create()?;
    for price in 100..110 {
        producer.publish(|trade| trade.price = price)?;
    }
    println!("{}", engine.shutdown(Duration::from_secs(5)));
    Ok(())
}
