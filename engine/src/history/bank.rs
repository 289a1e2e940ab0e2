//! A bank: a transform books each transfer of its input topic in two accounts, which are partitions of the output
//! topic. Transforms that a newer one of the same name has fenced still try to commit.

use super::{Actor, LONG, Step, broken, ensure, power, read_all};
use crate::{
    Engine, Level, Receipt, Topic,
    producer::IdempotentProducer,
    transform::{Transform, TransformError},
};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

const TRANSFERS: u64 = 60;
const ACCOUNTS: u64 = 3;

/// The transfer with this number: the account that pays, the account that gets the money, and the amount.
fn transfer(number: u64) -> (u64, u64, i64) {
    let from = number * 7 % ACCOUNTS;
    (from, (from + 1 + number % 2) % ACCOUNTS, number as i64 % 13 + 1)
}

#[derive(Default)]
pub(super) struct Bank {
    life: Option<Life>,
    /// How many transfers were published and acknowledged as durable.
    published: u64,
    /// How many transfers were booked, by acknowledged steps of the transform.
    booked: u64,
}

struct Life {
    transfers: Topic<u64>,
    /// The bookings, with a partition for each account. An event has the transfer's number and the change of the
    /// balance.
    ledger: Topic<[i64; 2]>,
    teller: IdempotentProducer<u64>,
    next: u64,
    last: Option<(u64, Receipt)>,
    holder: Transform<u64>,
    /// The earlier transforms of this life, which `holder` has fenced.
    fenced: Vec<Transform<u64>>,
    booked: u64,
}

fn topics(engine: &Engine) -> Step<(Topic<u64>, Topic<[i64; 2]>)> {
    let transfers = engine.topic("transfers").capacity(32).durable().create().map_err(power)?;
    let ledger = engine.topic("ledger").partitions(ACCOUNTS as usize).capacity(32).durable().create().map_err(power)?;
    Ok((transfers, ledger))
}

/// The bookings in the ledger: for each transfer's number, the accounts and the changes of their balances. An error if
/// an account's bookings are not in the order of the numbers.
fn sides(ledger: &Topic<[i64; 2]>) -> Step<BTreeMap<u64, Vec<(u64, i64)>>> {
    let (mut sides, mut order) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
    let mut disorder = None;
    read_all(ledger, |[number, change], at| {
        let before = order.insert(at.partition, *number);
        if before.is_some_and(|before| before >= *number) {
            disorder = Some(format!("account {}: transfer {number} is booked after {before:?}", at.partition));
        }
        sides.entry(*number as u64).or_default().push((u64::from(at.partition), *change));
    })?;
    disorder.map_or(Ok(sides), |disorder| Err(broken(disorder)))
}

impl Life {
    fn step(&mut self, fenced: Option<usize>, limit: Duration) -> Result<Option<usize>, TransformError> {
        let Self { holder, fenced: old, ledger, .. } = self;
        let transform = fenced.map_or(holder, |index| &mut old[index]);
        transform.step(limit, |number, _, out| {
            let (from, to, amount) = transfer(*number);
            out.publish_to(ledger, from as u32, |entry| *entry = [*number as i64, -amount])?;
            out.publish_to(ledger, to as u32, |entry| *entry = [*number as i64, amount])
        })
    }
}

impl Actor for Bank {
    fn begin(&mut self, engine: &Engine) -> Step {
        let (transfers, ledger) = topics(engine)?;
        let teller = transfers.producer().idempotent("teller").map_err(power)?;
        let holder = transfers.transform("bank").batch(4).open().map_err(power)?;
        let next = teller.resume().map_or(0, |last| last + 1);
        let booked = sides(&ledger)?.len() as u64;
        let (last, fenced) = (None, Vec::new());
        self.life = Some(Life { transfers, ledger, teller, next, last, holder, fenced, booked });
        Ok(())
    }

    fn act(&mut self, dice: &mut Rng) -> Step {
        let Some(life) = &mut self.life else { return Ok(()) };
        match dice.u64(..10) {
            0..4 if life.next < TRANSFERS => {
                let number = life.next;
                let receipt = life.teller.publish(number, |event| *event = number).map_err(power)?;
                life.last = Some((number, receipt));
                life.next += 1;
            }
            4 => {
                if let Some((number, receipt)) = life.last.take() {
                    receipt.wait(Level::Durable).map_err(power)?;
                    self.published = self.published.max(number + 1);
                }
            }
            5..8 => {
                if let Some(read) = life.step(None, Duration::ZERO).map_err(power)? {
                    life.booked += read as u64;
                    self.booked = self.booked.max(life.booked);
                }
            }
            8 => {
                let successor = life.transfers.transform("bank").batch(1 + dice.usize(..5)).open();
                life.fenced.push(std::mem::replace(&mut life.holder, successor.map_err(power)?));
            }
            _ if !life.fenced.is_empty() => {
                let old = dice.usize(..life.fenced.len());
                let stepped = life.step(Some(old), Duration::ZERO);
                ensure(!matches!(stepped, Ok(Some(read)) if read > 0), || "a fenced transform has committed".into())?;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Step {
        let Some(life) = &mut self.life else { return Ok(()) };
        for number in life.next..TRANSFERS {
            life.teller.publish(number, |event| *event = number).map_err(power)?;
        }
        life.transfers.close();
        while life.step(None, LONG).map_err(power)?.is_some() {}
        Ok(())
    }

    fn end(&mut self) {
        self.life = None;
    }

    fn audit(&self, engine: &Engine, finished: bool) -> Step {
        let (transfers, ledger) = topics(engine)?;
        let mut there = Vec::new();
        read_all(&transfers, |number, _| there.push(*number))?;
        let in_order = there.iter().copied().eq(0..there.len() as u64);
        ensure(in_order, || format!("a sequence is missing or there twice: {there:?}"))?;
        let kept = there.len() as u64 >= self.published;
        ensure(kept, || format!("{} transfers were acknowledged, {} are there", self.published, there.len()))?;
        let sides = sides(&ledger)?;
        let total: i64 = sides.values().flatten().map(|(_, change)| change).sum();
        ensure(total == 0, || format!("the total is off by {total}: not all booked"))?;
        for (expected, (number, sides)) in (0..).zip(&sides) {
            let (from, to, amount) = transfer(expected);
            let mut sides = sides.clone();
            sides.sort_unstable();
            let mut both = vec![(from, -amount), (to, amount)];
            both.sort_unstable();
            let right = *number == expected && sides == both;
            ensure(right, || format!("transfer {expected} is not booked once: {number} is, as {sides:?}"))?;
        }
        let booked = sides.len() as u64;
        ensure(booked >= self.booked, || format!("{} bookings were acknowledged, {booked} are there", self.booked))?;
        ensure(booked <= there.len() as u64, || format!("{booked} are booked of {}", there.len()))?;
        ensure(!finished || booked == TRANSFERS, || format!("{booked} of {TRANSFERS} are booked in the end"))
    }
}
