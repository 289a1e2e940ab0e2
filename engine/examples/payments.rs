//! A bank that is killed again and again, and never loses or doubles a payment.
//!
//! A teller publishes numbered transfers; a transform books each as two entries of a ledger, a partition for each account,
//! in one frame of the journal with how far it has read. The program starts itself as a child, kills that with `kill -9` at
//! random moments, looks into the journal after each, and starts it again, until all is booked. It asserts that
//! the accounts always have the same total, that each transfer is booked once and in order, and that none is gone that the
//! child had called booked.
//!
//!     cargo run --release --example payments
//!     cargo run --release --example payments -- --transfers 100000 --kills 50 --seed 7

use clap::Parser;
use slipring::journal::Options;
use slipring::{
    Engine, Level, Topic,
    subscriber::At,
    transaction::{Transaction, TransactionError},
    transform::Transform,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const ACCOUNTS: u64 = 4;
const OPENING: i64 = 1_000_000;
const LONG: Duration = Duration::from_secs(60);

type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct Transfer {
    number: u64,
    from: u64,
    to: u64,
    amount: i64,
}

/// One side of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct Entry {
    transfer: u64,
    change: i64,
}

#[derive(Parser)]
struct Arguments {
    /// Transfers to book
    #[arg(long, default_value_t = 20_000)]
    transfers: u64,
    /// How often the bank is killed, if it is not done before
    #[arg(long, default_value_t = 20)]
    kills: u64,
    /// For the moments; random unless told
    #[arg(long)]
    seed: Option<u64>,
    /// What the program starts itself with
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

fn main() -> Done {
    let arguments = Arguments::parse();
    match &arguments.child {
        Some(journal) => work(journal, arguments.transfers),
        None => supervise(&arguments),
    }
}

/// Any transfer that follows from its number, so that it can be checked.
fn transfer(number: u64) -> Transfer {
    let from = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62;
    let to = (from + 1 + number % (ACCOUNTS - 1)) % ACCOUNTS;
    Transfer { number, from, to, amount: (number % 997 + 1) as i64 }
}

struct Bank {
    engine: Engine,
    transfers: Topic<Transfer>,
    ledger: Topic<Entry>,
}

impl Bank {
    fn open(journal: &Path) -> Done<Self> {
        // Small segments: the journal changes from one to the next while it is killed.
        let options = Options { segment_size: 1 << 20, ..Options::default() };
        let engine = Engine::builder().journal(journal).journal_options(options).build()?;
        let transfers = engine.topic("transfers").durable().create()?;
        let ledger = engine.topic("ledger").partitions(ACCOUNTS as usize).durable().create()?;
        Ok(Self { engine, transfers, ledger })
    }

    fn book(&self, transfer: &Transfer, out: &mut Transaction) -> Result<(), TransactionError> {
        let Transfer { number, from, to, amount } = *transfer;
        out.publish_to(&self.ledger, from as u32, |entry| *entry = Entry { transfer: number, change: -amount })?;
        out.publish_to(&self.ledger, to as u32, |entry| *entry = Entry { transfer: number, change: amount })
    }

    /// Checks all entries that are there; how many transfers are booked.
    fn audit(&self) -> Done<u64> {
        let mut accounts = vec![Vec::new(); ACCOUNTS as usize];
        let mut auditor = self.ledger.replay("auditor").open()?;
        loop {
            // While it changes from the journal to the ring it may read nothing.
            let live = auditor.is_live();
            let read = auditor
                .read(Duration::ZERO, |entry, At { partition, .. }| accounts[partition as usize].push(*entry))?;
            if live && read == Some(0) {
                break;
            }
        }
        let balances = accounts.iter().map(|entries| OPENING + entries.iter().map(|entry| entry.change).sum::<i64>());
        assert_eq!(balances.sum::<i64>(), OPENING * ACCOUNTS as i64, "the total has changed");
        let mut sides: BTreeMap<u64, Vec<(u64, i64)>> = BTreeMap::new();
        for (account, entries) in (0..).zip(&accounts) {
            assert!(entries.is_sorted_by(|one, next| one.transfer < next.transfer), "account {account}: not in order");
            entries.iter().for_each(|entry| sides.entry(entry.transfer).or_default().push((account, entry.change)));
        }
        for (expected, (number, mut sides)) in (0..).zip(sides.clone()) {
            let Transfer { from, to, amount, .. } = transfer(expected);
            let mut both = [(from, -amount), (to, amount)];
            both.sort_unstable();
            sides.sort_unstable();
            assert_eq!((number, &sides[..]), (expected, &both[..]), "transfer {expected} is not booked once");
        }
        Ok(sides.len() as u64)
    }
}

/// The child: goes on where the last one was killed, and ends when all is booked.
fn work(journal: &Path, transfers: u64) -> Done {
    let bank = Bank::open(journal)?;
    let mut booking = bank.transfers.transform("bank").batch(64).open()?;
    std::thread::scope(|scope| -> Done {
        let teller = scope.spawn(|| -> Done {
            // Sent again or not: under this name each number is published once.
            let mut teller = bank.transfers.producer().idempotent("teller")?;
            let mut last = None;
            for number in teller.resume().map_or(0, |last| last + 1)..transfers {
                last = Some(teller.publish(number, |event| *event = transfer(number))?);
            }
            if let Some(last) = last {
                last.wait(Level::Durable)?;
            }
            bank.transfers.close();
            Ok(())
        });
        book_all(&bank, &mut booking)?;
        teller.join().map_err(|_| "the teller panicked")?
    })?;
    drop(booking);
    let report = bank.engine.shutdown(LONG);
    if report.is_complete() { Ok(()) } else { Err(report.to_string().into()) }
}

fn book_all(bank: &Bank, booking: &mut Transform<Transfer>) -> Done {
    let mut out = std::io::stdout().lock();
    let mut booked = 0;
    loop {
        let step = booking.step(LONG, |transfer, _, out| {
            booked = transfer.number + 1;
            bank.book(transfer, out)
        })?;
        if step.is_none() {
            return Ok(());
        }
        // It is durable: from here on it may be told.
        writeln!(out, "booked {booked}")?;
        out.flush()?;
    }
}

/// The parent: kills, checks, starts again.
fn supervise(arguments: &Arguments) -> Done {
    let folder = tempfile::tempdir()?;
    let journal = folder.path().join("journal");
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut kills, mut told) = (0, 0);
    loop {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--transfers", &arguments.transfers.to_string(), "--child"])
            .arg(&journal)
            .stdout(Stdio::piped())
            .spawn()?;
        let kill = kills < arguments.kills;
        // After so many lines, and a little later; or before the first.
        let (lines, later) = (random.u64(..16), Duration::from_micros(random.u64(..2048)));
        let mut killed = kill && lines == 0;
        if killed {
            std::thread::sleep(later);
            child.kill()?;
        }
        let stdout = child.stdout.take().ok_or("the child has no output")?;
        for (number, line) in (1..).zip(BufReader::new(stdout).lines()) {
            let booked = line?.strip_prefix("booked ").ok_or("the child says something else")?.parse()?;
            told = u64::max(told, booked);
            if kill && number == lines {
                std::thread::sleep(later);
                child.kill()?;
                killed = true;
            }
        }
        let done = child.wait()?.success();
        let bank = Bank::open(&journal)?;
        let booked = bank.audit()?;
        assert!(booked >= told, "{told} were called booked, {booked} are");
        assert!(bank.engine.shutdown(LONG).is_complete());
        if done {
            assert_eq!(booked, arguments.transfers, "all");
            println!("{booked} transfers booked once each, through {kills} kills; the total never changed");
            return Ok(());
        }
        if !killed {
            return Err("the child failed by itself".into());
        }
        kills += 1;
        println!("kill {kills}: {booked} booked, the total is right");
    }
}
