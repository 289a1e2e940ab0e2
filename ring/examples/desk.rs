//! A trading desk whose processes are killed again and again, and which loses and doubles nothing.
//!
//! Two gateways publish quotes into one ring in shared memory, a strategy answers some of them with orders in a second
//! ring, and a recorder writes both down. Each is a process of its own, which this program starts, kills with `kill -9` at
//! random moments, and starts again. At the end it reads what was recorded, and asserts that every quote that a gateway
//! called published is there, whole and in its order, and that each quote which asks for an order has exactly one.
//!
//!     cargo run --release -p slipring-ring --example desk
//!     cargo run --release -p slipring-ring --example desk -- 500 7        # kills, and a seed for the moments
//!
//! What makes it exact:
//! - The strategy and the recorder are *held* consumers: a successor reads on where the dead one's last batch ended.
//! - What they did in their last batch, their successors find where it was done: the recorder in its files, the strategy in
//!   the last order of the ring, which retains it.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

use slipring_ring::shared::{Ended, Event, SharedConsumer, SharedRing, Size, as_bytes, read_from_bytes};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Done<T = ()> = Result<T, Box<dyn Error>>;

slipring_ring::shared_event! {
    struct Quote {
        /// The number of the gateway's process, and its count of quotes before this one.
        gateway: u64,
        count: u64,
        px: i64,
        qty: u64,
    }
}

slipring_ring::shared_event! {
    struct Order {
        /// The sequence of the quote that it answers.
        quote: u64,
        px: i64,
    }
}

impl Quote {
    fn of(gateway: u64, count: u64) -> Self {
        let px = 10_000 + (gateway.wrapping_mul(31) ^ count.wrapping_mul(0x9e37_79b9)) as i64 % 100;
        Self { gateway, count, px, qty: px as u64 ^ count }
    }

    fn is_whole(&self) -> bool {
        let whole = Self::of(self.gateway, self.count);
        (self.px, self.qty) == (whole.px, whole.qty)
    }

    /// True if the strategy answers it.
    fn asks(&self) -> bool {
        self.px % 8 == 0
    }
}

/// The rings' names, and the folder of the recorder's files.
struct Desk {
    quotes: String,
    orders: String,
    folder: PathBuf,
}

impl Desk {
    fn at(folder: &Path) -> Done<Self> {
        let name = folder.file_name().and_then(|name| name.to_str()).ok_or("the folder has no name")?;
        Ok(Self { quotes: format!("{name}-quotes"), orders: format!("{name}-orders"), folder: folder.to_owned() })
    }

    fn quotes(&self) -> Done<SharedRing<Quote>> {
        Ok(SharedRing::open_or_create(&self.quotes, Size::slots(1024).multi_producer())?)
    }

    fn orders(&self) -> Done<SharedRing<Order>> {
        Ok(SharedRing::open_or_create(&self.orders, Size::slots(256).retain(1))?)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Publishes quotes until the file `stop` is there, and notes how many.
fn gateway(desk: &Desk, number: u64) -> Done {
    let ring = desk.quotes()?;
    let mut out = ring.multi_producer_named(&format!("gateway-{number}"))?;
    let (mut random, mut count) = (fastrand::Rng::with_seed(number), 0);
    let noted = desk.file(&format!("gateway-{number}"));
    while !desk.file("stop").exists() {
        for _ in 0..64 {
            let mut claim = out.claim(random.usize(1..5))?;
            for (_, quote) in claim.iter_mut() {
                *quote = Quote::of(number, count);
                count += 1;
            }
            claim.commit()?;
        }
        // Published before it is noted: what is noted must be recorded.
        fs::write(&noted, count.to_ne_bytes())?;
    }
    Ok(())
}

/// Answers quotes with orders, each once, until there are no more quotes.
fn strategy(desk: &Desk) -> Done {
    let orders = desk.orders()?;
    let mut out = orders.producer()?;
    // The quote that the last order answers. Nobody else publishes orders now.
    let mut answered = None;
    let mut reader = orders.consumer("last-order").join()?;
    while reader.position() != orders.published() {
        let mut batch = reader.poll(256)?;
        answered = (&mut batch).into_iter().map(|(_, order)| order.quote).last();
    }
    drop(reader);
    let mut quotes = desk.quotes()?.consumer("strategy").hold().join()?;
    until_the_end(&mut quotes, |sequence, quote| {
        if quote.asks() && answered.is_none_or(|answered| sequence > answered) {
            out.publish(|order| *order = Order { quote: sequence, px: quote.px })?;
        }
        Ok(())
    })?;
    out.close();
    Ok(())
}

/// Writes all events of a ring to a file, each once with its sequence, until there are no more.
fn record<E: Event>(ring: &SharedRing<E>, path: &Path) -> Done {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    // The file tells what was recorded: whole records only, of which the last one has the last sequence.
    let size = 8 + size_of::<E>() as u64;
    let whole = file.metadata()?.len() / size;
    file.set_len(whole * size)?;
    let recorded = recorded::<E>(path)?.last().map(|(sequence, _)| *sequence);
    let mut reader = ring.consumer("recorder").hold().join()?;
    until_the_end(&mut reader, |sequence, event| {
        if recorded.is_none_or(|recorded| sequence > recorded) {
            // In one call: a record that a death cuts is at the end of the file, and goes.
            file.write_all(&[&sequence.to_ne_bytes(), as_bytes(std::slice::from_ref(event))].concat())?;
        }
        Ok(())
    })
}

/// The records of a file.
fn recorded<E: Event>(path: &Path) -> Done<Vec<(u64, E)>> {
    let bytes = fs::read(path)?;
    let records = bytes.chunks_exact(8 + size_of::<E>()).map(|record| {
        let (sequence, event) = record.split_at(8);
        Some((u64::from_ne_bytes(sequence.try_into().ok()?), read_from_bytes(event)?))
    });
    records.collect::<Option<_>>().ok_or_else(|| "a record is cut".into())
}

/// Hands all events to `book`. A batch that this process dies in is read again by its successor.
fn until_the_end<E: Event>(reader: &mut SharedConsumer<E>, mut book: impl FnMut(u64, &E) -> Done) -> Done {
    loop {
        match reader.poll_wait(64) {
            Ok(mut batch) => {
                for (sequence, event) in &mut batch {
                    book(sequence.0, event)?;
                }
            }
            // Another producer is about to come.
            Err(Ended::ProducerDied) => {}
            Err(Ended::Closed) => return Ok(()),
            Err(other) => return Err(other.into()),
        }
    }
}

fn start(folder: &Path, role: &str, number: u64) -> Done<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(folder).args([role, &number.to_string()]);
    Ok(command.stdin(Stdio::null()).spawn()?)
}

/// What runs: `quotes` and `orders` are recorded by a process each.
const ROLES: [&str; 5] = ["gateway", "gateway", "strategy", "quotes", "orders"];

/// Runs the desk, with `kills` deaths. Its processes end with this value at the latest.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run(desk: &Desk, kills: u64, seed: u64) -> Done {
    let mut random = fastrand::Rng::with_seed(seed);
    let (quotes, orders) = (desk.quotes()?, desk.orders()?);
    // Held positions are there before the first event is.
    drop((quotes.consumer("strategy").hold().join()?, quotes.consumer("recorder").hold().join()?));
    drop(orders.consumer("recorder").hold().join()?);
    let mut next = 0..;
    let mut begin = |role| start(&desk.folder, role, next.next().unwrap_or_default());
    let mut running = Running(ROLES.iter().map(|role| begin(role)).collect::<Done<_>>()?);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.u64(0..12_000)));
        let victim = random.usize(..ROLES.len());
        running.0[victim].kill()?;
        running.0[victim].wait()?;
        running.0[victim] = begin(ROLES[victim])?;
    }
    // The gateways end by themselves; then the others find the ends of their rings.
    fs::write(desk.file("stop"), [])?;
    for (role, child) in ROLES.iter().zip(&mut running.0) {
        let begun = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if begun.elapsed() > Duration::from_secs(60) => return Err(format!("{role} hangs").into()),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        assert!(status.success(), "{role} failed: {status}");
        if *role == "gateway" && quotes.participants().iter().all(|it| !it.is_alive || it.position.is_some()) {
            quotes.close();
        }
    }
    check(desk, kills)
}

fn check(desk: &Desk, kills: u64) -> Done {
    let quotes = recorded::<Quote>(&desk.file("quotes"))?;
    let orders = recorded::<Order>(&desk.file("orders"))?;
    let mut counts = BTreeMap::<u64, u64>::new();
    let mut last = None;
    for (sequence, quote) in &quotes {
        assert!(
            quote.is_whole() && last.is_none_or(|last| *sequence > last),
            "the quote at {sequence} is torn or double"
        );
        let count = counts.entry(quote.gateway).or_default();
        assert_eq!(quote.count, *count, "a quote of gateway {} is lost", quote.gateway);
        *count += 1;
        last = Some(*sequence);
    }
    let mut gateways = 0;
    for entry in fs::read_dir(&desk.folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.strip_prefix("gateway-")) else { continue };
        let mut noted = fs::read(entry.path())?;
        // Killed while it noted.
        noted.resize(8, 0);
        let noted = u64::from_ne_bytes(noted.try_into().map_err(|_| "a note has another size")?);
        let count = counts.get(&number.parse()?).copied().unwrap_or(0);
        assert!(noted <= count, "gateway {number} has published {noted} quotes, and {count} are recorded");
        gateways += 1;
    }
    let asked: Vec<u64> = quotes.iter().filter(|(_, quote)| quote.asks()).map(|(sequence, _)| *sequence).collect();
    let answered: Vec<u64> = orders.iter().map(|(_, order)| order.quote).collect();
    assert!(asked == answered, "{} quotes ask for orders, and there are {}", asked.len(), answered.len());
    let skipped = last.map_or(0, |last| last + 1 - quotes.len() as u64);
    println!(
        "{kills} kills: {} quotes of {gateways} gateways and {} orders, each once; {skipped} slots of the dead skipped",
        quotes.len(),
        orders.len()
    );
    Ok(())
}

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [folder, role, number] = &words[..] {
        let desk = Desk::at(Path::new(folder))?;
        return match role.as_str() {
            "gateway" => gateway(&desk, number.parse()?),
            "strategy" => strategy(&desk),
            "quotes" => record(&desk.quotes()?, &desk.file("quotes")),
            _ => record(&desk.orders()?, &desk.file("orders")),
        };
    }
    if !cfg!(target_os = "linux") {
        println!("rings between processes need Linux");
        return Ok(());
    }
    let kills = words.first().map_or(Ok(60), |kills| kills.parse())?;
    let seed = words.get(1).map_or_else(|| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    println!("seed {seed}");
    let folder = std::env::temp_dir().join(format!("desk-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let desk = Desk::at(&folder)?;
    let result = run(&desk, kills, seed);
    SharedRing::<Quote>::remove_forced(&desk.quotes)?;
    SharedRing::<Order>::remove_forced(&desk.orders)?;
    if result.is_ok() {
        fs::remove_dir_all(&folder)?;
    } else {
        eprintln!("what was recorded is in {}", folder.display());
    }
    result
}
