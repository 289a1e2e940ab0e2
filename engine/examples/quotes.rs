//! Quotes by symbol: a table of the last quotes, a slow screen that gets the newest of each, a journal that is compacted by
//! symbol, and a restart that begins with what the journal has.

use slipring::journal::{Options, simulated::SimulatedDisk};
use slipring::{Engine, Level, Topic, topic::Compaction};
use std::collections::BTreeMap;
use std::time::Duration;

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    pub struct Quote { pub symbol: u64, pub bid: u64, pub ask: u64 }
}

const LIMIT: Duration = Duration::from_secs(60);
const QUOTES: u64 = 10_000;

fn open(disk: &SimulatedDisk) -> Result<(Engine, Topic<Quote>), Box<dyn std::error::Error>> {
    let options = Options { segment_size: 64 << 10, ..Options::default() };
    let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).build()?;
    let by_symbol = Compaction::by_field("symbol");
    let quotes = engine.topic("quotes").capacity(256).durable().compact(by_symbol).create()?;
    Ok((engine, quotes))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let disk = SimulatedDisk::new();
    let mut expected = BTreeMap::new();
    let mut last = 0;
    {
        let (engine, quotes) = open(&disk)?;
        let table = quotes.table(|quote| quote.symbol).open()?;
        let mut screen = quotes.subscribe("screen").conflate(|quote: &Quote| quote.symbol).start()?;
        let mut feed = quotes.producer().create()?;
        for number in 0..QUOTES {
            let quote = Quote { symbol: number % 5, bid: 100 + number, ask: 101 + number };
            let receipt = feed.publish(|place| *place = quote)?;
            last = receipt.offset;
            expected.insert(quote.symbol, quote);
            if number + 1 == QUOTES {
                receipt.wait(Level::Durable)?;
            }
        }

        // The screen looks for the first time: the newest quotes that were gathered by now, at most one of each symbol.
        let shown = screen.poll(LIMIT)?.ok_or("the topic is open")?;
        assert!((1..=5).contains(&shown.len()));
        println!("the screen: {} symbols, {} quotes left out", shown.len(), shown.left_out());

        assert!(table.wait_for(0, last, LIMIT)?);
        assert_eq!(table.get(&3)?, expected.get(&3).copied());

        // The engine does this by itself, once a minute if enough was written.
        let compacted = engine.compact()?;
        println!("the journal: {} of {QUOTES} quotes removed", compacted.removed);
        assert!(compacted.removed > QUOTES / 4);
        drop((table, screen, feed, quotes));
        assert!(engine.shutdown(LIMIT).is_complete());
    }

    // The next process: the table begins with the compacted journal and goes on with new quotes.
    let (engine, quotes) = open(&disk)?;
    let mut tape = quotes.replay("tape").open()?;
    let (mut read, mut next) = (0, 0);
    while next <= last {
        tape.read(LIMIT, |_, at| (read, next) = (read + 1, at.offset + 1))?;
    }
    println!("the next process: {read} quotes are left, up to offset {last}");
    assert!(read < QUOTES * 3 / 4);
    let table = quotes.table(|quote| quote.symbol).open()?;
    assert!(table.wait_for(0, last, LIMIT)?);
    let restored: BTreeMap<_, _> = table.view()?.iter().map(|row| (*row.key, *row.event)).collect();
    assert_eq!(restored, expected);

    let mut changes = table.changes();
    changes.read(LIMIT, |row| println!("symbol {}: bid {}, ask {}", row.key, row.event.bid, row.event.ask))?;
    let new = Quote { symbol: 7, bid: 1, ask: 2 };
    let receipt = quotes.producer().create()?.publish(|place| *place = new)?;
    assert!(table.wait_for(0, receipt.offset, LIMIT)?);
    let mut seen = Vec::new();
    changes.read(LIMIT, |row| seen.push(*row.event))?;
    assert_eq!(seen, [new]);
    drop((table, changes, tape, quotes));
    assert!(engine.shutdown(LIMIT).is_complete());
    Ok(())
}
