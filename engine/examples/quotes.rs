//! Quotes by symbol: a table of the last quotes, a slow screen that gets the newest of each, and a restart that begins
//! with what the journal has.

use slipring::{Engine, Topic, journal::simulated::SimulatedDisk};
use std::collections::BTreeMap;
use std::time::Duration;

/// A symbol's number, its bid and its ask.
type Quote = [u64; 3];

const LIMIT: Duration = Duration::from_secs(60);

fn open(disk: &SimulatedDisk) -> Result<(Engine, Topic<Quote>), Box<dyn std::error::Error>> {
    let engine = Engine::builder().journal_in(disk.clone()).build()?;
    let quotes = engine.topic("quotes").capacity(256).durable().create()?;
    Ok((engine, quotes))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let disk = SimulatedDisk::new();
    let mut expected = BTreeMap::new();
    let mut last = 0;
    {
        let (engine, quotes) = open(&disk)?;
        let table = quotes.table(|quote| quote[0]).open()?;
        let mut screen = quotes.subscribe("screen").conflate(|quote: &Quote| quote[0]).start()?;
        let mut feed = quotes.producer().create()?;
        for number in 0..10_000 {
            let quote = [number % 5, 100 + number, 101 + number];
            last = feed.publish(|place| *place = quote)?.offset;
            expected.insert(quote[0], quote);
        }

        // The screen looks for the first time: the newest quotes that were gathered by now, at most one of each symbol.
        let shown = screen.poll(LIMIT)?.ok_or("the topic is open")?;
        assert!((1..=5).contains(&shown.len()));
        println!("the screen: {} symbols, {} quotes left out", shown.len(), shown.left_out());

        assert!(table.wait_for(0, last, LIMIT)?);
        assert_eq!(table.get(&3)?, expected.get(&3).copied());
        drop((table, screen, feed, quotes));
        assert!(engine.shutdown(LIMIT).is_complete());
    }

    // The next process: the table begins with the journal and goes on with new quotes.
    let (engine, quotes) = open(&disk)?;
    let table = quotes.table(|quote| quote[0]).open()?;
    assert!(table.wait_for(0, last, LIMIT)?);
    let restored: BTreeMap<_, _> = table.view()?.iter().map(|row| (*row.key, *row.event)).collect();
    assert_eq!(restored, expected);

    let mut changes = table.changes();
    changes.read(LIMIT, |row| println!("symbol {}: bid {}, ask {}", row.key, row.event[1], row.event[2]))?;
    let receipt = quotes.producer().create()?.publish(|place| *place = [7, 1, 2])?;
    assert!(table.wait_for(0, receipt.offset, LIMIT)?);
    let mut seen = Vec::new();
    changes.read(LIMIT, |row| seen.push(*row.event))?;
    assert_eq!(seen, [[7, 1, 2]]);
    drop((table, changes, quotes));
    assert!(engine.shutdown(LIMIT).is_complete());
    Ok(())
}
