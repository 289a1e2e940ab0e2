//! A diamond with a reader that comes later and one that may be overtaken.
//!
//! ```text
//!              +--> book --+
//!  check (mut) |           +--> audit        late: joins while the ring runs, behind check
//!              +--> risk --+                 gauge: a lossy ring, for whoever wants the newest price only
//! ```
//!
//! cargo run -p slipring-ring --example diamond

use slipring_ring::{Builder, LossyRing, OnError, Stage, Start, Wait};
use std::time::Duration;

#[derive(Default)]
struct Order {
    id: u64,
    price: i64,
    valid: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut gauge, prices) = LossyRing::<i64>::single(64)?;

    let mut builder = Builder::multi(1 << 10, Order::default);
    builder.retain(100).huge_pages(true);
    builder.run_mut("check", || {
        |order: &mut Order, _, _| {
            order.valid = order.price > 0;
        }
    });
    builder.run(Stage::new("book").after(["check"]).wait(Wait::spin_yield()), move || {
        move |order: &Order, _, _| {
            if order.valid {
                gauge.write(&order.price);
            }
        }
    });
    builder.run(Stage::new("risk").after(["check"]).on_error(OnError::Skip), || {
        |order: &Order, _, _| if order.valid { Ok(()) } else { Err(format!("order {} has no price", order.id)) }
    });
    builder.poll(Stage::new("audit").after(["book", "risk"]));
    let (producer, ring) = builder.build()?;
    println!("memory: {}", ring.memory());

    let producers: Vec<_> = (0..3)
        .map(|number| {
            let mut producer = producer.clone();
            std::thread::spawn(move || {
                for count in 0..10_000 {
                    let sent = producer.publish(|order| {
                        *order = Order { id: number * 10_000 + count, price: count as i64, valid: false };
                    });
                    if let Err(closed) = sent {
                        return eprintln!("producer {number}: {closed}");
                    }
                }
            })
        })
        .collect();
    drop(producer);

    let reader = std::thread::spawn({
        let mut audit = ring.consumer("audit")?;
        move || {
            let mut read = 0;
            while let Ok(mut batch) = audit.poll_wait(256) {
                read += (&mut batch).into_iter().count();
            }
            read
        }
    });
    match ring.join(Stage::new("late").after(["check"]).start(Start::Earliest)) {
        Ok(mut late) => {
            let mut read = 0;
            while let Ok(mut batch) = late.poll_wait(256) {
                read += (&mut batch).into_iter().count();
            }
            println!("late came at {} and read {read}", late.first());
        }
        Err(refused) => println!("late came too late: {refused}"),
    }
    for producer in producers {
        producer.join().map_err(|_| "a producer panicked")?;
    }
    println!("audit read {}", reader.join().map_err(|_| "the reader panicked")?);
    println!("{}", ring.shutdown(Duration::from_secs(5)));

    let mut newest = prices.reader(Start::Earliest);
    while let Ok(Some((_, price))) = newest.read() {
        if newest.lag() == 0 {
            println!("the newest price: {price}, of {}", prices.written());
        }
    }
    Ok(())
}
