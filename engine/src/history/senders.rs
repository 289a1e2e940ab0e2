//! Producers with sequences, and with ids, over several partitions.

use super::{Actor, Step, broken, ensure, power, read_all};
use crate::{
    Engine, Level, Message, Producer, Receipt, Record, Topic,
    producer::{IdempotenceError, IdempotentProducer},
    topic::Deduplication,
};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

const PARTITIONS: u64 = 3;

/// An idempotent producer that publishes some sequences again. Earlier producers of its name, which it has fenced, try
/// to publish too.
#[derive(Default)]
pub(super) struct Named {
    life: Option<NamedLife>,
    /// All sequences below this one were acknowledged as durable.
    acknowledged: u64,
    receipts: Vec<(u64, Receipt)>,
}

/// The topic, the present producer of the name, and the earlier ones of this life, which are fenced.
type NamedLife = (Topic<u64>, IdempotentProducer<u64>, Vec<IdempotentProducer<u64>>);

fn to(number: u64) -> u32 {
    (number / 2 * 5 % PARTITIONS) as u32
}

fn numbers(engine: &Engine) -> Step<Topic<u64>> {
    engine.topic("numbers").partitions(PARTITIONS as usize).capacity(32).durable().create().map_err(power)
}

fn send(producer: &mut IdempotentProducer<u64>, number: u64) -> Result<Receipt, IdempotenceError> {
    producer.publish_to(number, to(number), |event| *event = number)
}

impl Actor for Named {
    fn begin(&mut self, engine: &Engine) -> Step {
        let topic = numbers(engine)?;
        let producer = topic.producer().idempotent("gateway").map_err(power)?;
        let resumes = producer.resume().map_or(0, |last| last + 1);
        let acknowledged = self.acknowledged;
        ensure(resumes >= acknowledged, || {
            format!("sequence {resumes} is next, all below {acknowledged} was acknowledged")
        })?;
        self.life = Some((topic, producer, Vec::new()));
        Ok(())
    }

    fn act(&mut self, dice: &mut Rng) -> Step {
        let Some((topic, producer, fenced)) = &mut self.life else { return Ok(()) };
        let next = producer.resume().map_or(0, |last| last + 1);
        match dice.u64(..8) {
            0..4 => {
                // Up to three sequences that were published before are published again.
                let from = next.saturating_sub(dice.u64(..4));
                for number in from..next + 1 + dice.u64(..3) {
                    let receipt = send(producer, number).map_err(power)?;
                    let right = receipt.partition == to(number);
                    ensure(right, || format!("sequence {number} has another one's receipt: {receipt:?}"))?;
                    self.receipts.push((number, receipt));
                }
            }
            4 | 5 => {
                for (number, receipt) in self.receipts.drain(..) {
                    receipt.wait(Level::Durable).map_err(power)?;
                    self.acknowledged = self.acknowledged.max(number + 1);
                }
            }
            6 => {
                let successor = topic.producer().idempotent("gateway").map_err(power)?;
                fenced.push(std::mem::replace(producer, successor));
            }
            _ => {
                if let Some(old) = fenced.last_mut() {
                    let sent = send(old, next);
                    ensure(sent.is_err(), || format!("a fenced producer has published {next}"))?;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Step {
        let Some((_, producer, _)) = &mut self.life else { return Ok(()) };
        let next = producer.resume().map_or(0, |last| last + 1);
        for number in next..next + 10 {
            send(producer, number).map_err(power)?.wait(Level::Durable).map_err(power)?;
        }
        self.acknowledged = next + 10;
        Ok(())
    }

    fn end(&mut self) {
        self.life = None;
        self.receipts.clear();
    }

    fn audit(&self, engine: &Engine, finished: bool) -> Step {
        let (mut there, mut last, mut disorder) = (BTreeSet::new(), BTreeMap::new(), None);
        read_all(&numbers(engine)?, |number, at| {
            if !there.insert(*number) {
                disorder = Some(format!("sequence {number} is there twice"));
            } else if last.insert(at.partition, *number).is_some_and(|before| before > *number) {
                disorder = Some(format!("sequence {number} is behind a later one in partition {}", at.partition));
            }
        })?;
        if let Some(disorder) = disorder {
            return Err(broken(disorder));
        }
        let lost = (0..self.acknowledged).find(|number| !there.contains(number));
        ensure(lost.is_none(), || format!("sequence {lost:?} was acknowledged, and is gone"))?;
        let whole = there.iter().copied().eq(0..there.len() as u64);
        ensure(!finished || whole, || format!("a sequence is missing in the end: {there:?}"))
    }
}

/// Sends messages with ids, and some of them again.
#[derive(Default)]
pub(super) struct Ids {
    life: Option<(Topic<Message>, Producer<Message>)>,
    next: u64,
    sent: Vec<(u64, Receipt)>,
    acknowledged: BTreeSet<u64>,
}

fn messages(engine: &Engine) -> Step<Topic<Message>> {
    let topic = engine.topic("messages").max_message(64).partitions(2).capacity(32);
    topic.deduplicate(Deduplication::last(1000)).durable().create().map_err(power)
}

impl Actor for Ids {
    fn begin(&mut self, engine: &Engine) -> Step {
        let topic = messages(engine)?;
        let producer = topic.producer().create().map_err(power)?;
        self.life = Some((topic, producer));
        Ok(())
    }

    fn act(&mut self, dice: &mut Rng) -> Step {
        let Some((_, producer)) = &mut self.life else { return Ok(()) };
        if dice.u64(..4) == 0 {
            for (id, receipt) in self.sent.drain(..) {
                receipt.wait(Level::Durable).map_err(power)?;
                self.acknowledged.insert(id);
            }
            return Ok(());
        }
        // One message in two has a new id; the other has an id of the past.
        let is_new = self.next == 0 || dice.bool();
        let id = if is_new { self.next } else { dice.u64(..self.next) };
        self.next = self.next.max(id + 1);
        let (key, value) = (dice.u64(..9).to_le_bytes(), id.to_le_bytes());
        let receipt = producer.send(Record::new(&value).key(&key).id(&value)).map_err(power)?;
        self.sent.push((id, receipt));
        Ok(())
    }

    fn finish(&mut self) -> Step {
        Ok(())
    }

    fn end(&mut self) {
        self.life = None;
        self.sent.clear();
    }

    fn audit(&self, engine: &Engine, _: bool) -> Step {
        let (mut there, mut twice) = (BTreeSet::new(), None);
        read_all(&messages(engine)?, |message, _| {
            let id = message.id().and_then(|id| id.try_into().ok()).map(u64::from_le_bytes).unwrap_or(u64::MAX);
            if !there.insert(id) {
                twice = Some(id);
            }
        })?;
        ensure(twice.is_none(), || format!("id {twice:?} is there twice"))?;
        let lost = self.acknowledged.iter().find(|id| !there.contains(id));
        ensure(lost.is_none(), || format!("id {lost:?} was acknowledged, and is gone"))
    }
}
