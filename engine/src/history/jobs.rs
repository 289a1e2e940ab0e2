//! Workers of a queue. Their leases are acked, nacked, renewed or dropped, run out, or are left and resumed, also in a
//! later life. After too many attempts messages become dead letters, which are redriven or purged.

use super::{Actor, LONG, Step, broken, ensure, ensure_all, power, publish, read_all, settle};
use crate::{
    Engine, Level, Producer, Receipt, Topic,
    clock::{Clock, ManualClock, Timestamp},
    dead_letter::DeadLetter,
    queue::{Lease, LeaseError, Order, Queue, QueueBuilder, Ticket, Worker},
};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PARTITIONS: u64 = 2;
const VISIBILITY: Duration = Duration::from_millis(150);

pub(super) struct Jobs {
    topic: &'static str,
    order: Order,
    /// The number of attempts after which a message becomes a dead letter; `None` if there is no limit.
    attempts: Option<u32>,
    clock: ManualClock,
    life: Option<Life>,
    next: u64,
    known: Known,
    left: Vec<(u64, Timestamp, Ticket)>,
}

/// The promises that the queue has made, which each message that it gives out is checked against. Messages are named by
/// their numbers.
#[derive(Default)]
struct Known {
    /// Messages whose publish was acknowledged as durable.
    sent: BTreeSet<u64>,
    /// Messages whose ack was accepted.
    done: BTreeSet<u64>,
    /// Messages that may be acked or purged: this was asked for in time, but a fault may have prevented it.
    perhaps: BTreeSet<u64>,
    /// For each leased or delayed message, the time before which no worker may receive it again.
    until: BTreeMap<u64, Timestamp>,
    attempts: BTreeMap<u64, u32>,
    /// The dead letters that were seen in this life, and not redriven or purged since.
    letters: BTreeSet<u64>,
}

struct Life {
    topic: Topic<u64>,
    producer: Producer<u64>,
    worker: Worker<u64>,
    pending: Vec<(u64, Receipt)>,
    leases: Vec<(u64, Timestamp, Lease<u64>)>,
}

fn ensure_open(topic: &Topic<u64>) -> Step {
    topic.closed().map_or(Ok(()), |reason| Err(power(reason)))
}

/// True if the queue has accepted a call for a lease, false if it has refused the call. An accepted call is a broken
/// promise if the lease had run out (`lasts` is false); a refused one, if it had not.
fn taken(number: u64, lasts: bool, what: &str, told: Result<(), LeaseError>) -> Step<bool> {
    match told {
        Ok(()) => {
            ensure(lasts, || format!("message {number}: {what} was accepted after its lease ran out")).map(|()| true)
        }
        Err(refused @ LeaseError::Unknown { .. }) => Err(power(refused)),
        Err(refused) => {
            ensure(!lasts, || format!("message {number}: {what} was refused in time: {refused}")).map(|()| false)
        }
    }
}

impl Known {
    fn given(&mut self, lease: &Lease<u64>, order: Order, most: Option<u32>, now: Timestamp) -> Step {
        let (number, attempt) = (*lease.message(), lease.attempt());
        ensure(!self.done.contains(&number), || format!("message {number} was acked, and is given out again"))?;
        let until = self.until.insert(number, now.plus(lease.left()));
        let is_free = until.is_none_or(|until| until <= now);
        ensure(is_free, || format!("message {number} has two holders: one until {until:?}, and it is {now}"))?;
        let before = self.attempts.insert(number, attempt).unwrap_or(0);
        ensure(attempt > before, || format!("message {number}: attempt {attempt} comes after {before}"))?;
        ensure(!self.letters.contains(&number), || format!("message {number} is a dead letter, and is given out"))?;
        ensure(most.is_none_or(|most| attempt <= most), || format!("message {number}: attempt {attempt} of {most:?}"))?;
        let earlier = |other: &&u64| (**other % PARTITIONS == number % PARTITIONS) && !self.is_over(**other);
        let first = self.sent.range(..number).find(earlier);
        // With a limit of attempts an earlier message may be a dead letter without this actor knowing it, because a
        // fault may have ended an attempt before any worker got the lease. So the order is checked only without a
        // limit.
        let in_order = order == Order::Relaxed || most.is_some() || first.is_none();
        ensure(in_order, || format!("message {number} is given out out of order: {first:?} is not done with"))
    }

    fn is_over(&self, number: u64) -> bool {
        self.done.contains(&number) || self.perhaps.contains(&number)
    }

    fn ack(&mut self, number: u64, lasts: bool, lease: Lease<u64>) -> Step {
        if lasts {
            self.perhaps.insert(number);
            self.until.remove(&number);
        }
        if taken(number, lasts, "an ack", lease.ack())? {
            self.done.insert(number);
        }
        Ok(())
    }
}

impl Jobs {
    pub(super) fn new(topic: &'static str, order: Order, attempts: Option<u32>, clock: &ManualClock) -> Self {
        let (clock, known) = (clock.clone(), Known::default());
        Self { topic, order, attempts, clock, life: None, next: 0, known, left: Vec::new() }
    }

    fn topic(&self, engine: &Engine) -> Step<Topic<u64>> {
        let topic = engine.topic(self.topic).partitions(PARTITIONS as usize).capacity(32);
        topic.durable().create().map_err(power)
    }

    fn receive(&mut self, limit: Duration) -> Step<Option<(u64, Timestamp, Lease<u64>)>> {
        let Some(life) = &mut self.life else { return Ok(None) };
        let Some(lease) = life.worker.receive(limit).map_err(power)? else { return Ok(None) };
        let now = self.clock.wall();
        self.known.given(&lease, self.order, self.attempts, now)?;
        Ok(Some((*lease.message(), now.plus(lease.left()), lease)))
    }

    fn settle(&mut self) -> Step {
        self.life.as_mut().map_or(Ok(()), |life| settle(&mut life.pending, &mut self.known.sent))
    }

    fn handle(&mut self, (number, until, mut lease): (u64, Timestamp, Lease<u64>), dice: &mut Rng) -> Step {
        let (now, known) = (self.clock.wall(), &mut self.known);
        let lasts = now < until;
        let later = Duration::from_millis(dice.u64(..300));
        match dice.u64(..8) {
            0..3 => known.ack(number, lasts, lease)?,
            3 => {
                if lasts {
                    known.until.remove(&number);
                }
                let is_last = self.attempts == Some(lease.attempt());
                if taken(number, lasts, "a nack", lease.nack(later, "later"))? && !is_last {
                    known.until.insert(number, now.plus(later));
                }
            }
            4 | 5 => {
                if lasts {
                    // Until the renewal is confirmed, the lease may end at the old or at the new time: the earlier of
                    // both is noted.
                    known.until.insert(number, until.min(now.plus(later)));
                }
                if taken(number, lasts, "a renewal", lease.renew(later))? {
                    known.until.insert(number, now.plus(later));
                    if let Some(life) = &mut self.life {
                        life.leases.push((number, now.plus(later), lease));
                    }
                }
            }
            6 => {
                if lasts {
                    known.until.remove(&number);
                }
                drop(lease);
            }
            _ => self.left.push((number, until, lease.leave())),
        }
        Ok(())
    }

    fn queue(&self, topic: &Topic<u64>) -> QueueBuilder<u64> {
        let queue = topic.queue("workers").visibility(VISIBILITY).order(self.order).acknowledge(Level::Durable);
        match self.attempts {
            Some(attempts) => queue.max_attempts(attempts),
            None => queue.unlimited_attempts(),
        }
    }

    /// The numbers of the dead letters, in their order.
    fn letters(&self, topic: &Topic<u64>, queue: &Queue<u64>) -> Step<Vec<u64>> {
        // If the journal has failed, the list may be incomplete, so the life ends here.
        let letters = queue.dead_letters().collect::<Result<Vec<_>, _>>().map_err(power)?;
        ensure_open(topic)?;
        let mut numbers = Vec::new();
        for DeadLetter { message, attempts, .. } in &letters {
            let number = message.value().try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
            ensure(!self.known.done.contains(&number), || format!("message {number} was acked, and is a dead letter"))?;
            ensure(!numbers.contains(&number), || format!("message {number} is a dead letter twice"))?;
            ensure(Some(*attempts) == self.attempts, || format!("message {number} died after {attempts} attempts"))?;
            numbers.push(number);
        }
        Ok(numbers)
    }

    /// Checks the dead letters, then redrives some of them, purges all, or does nothing more.
    fn bury(&mut self, dice: &mut Rng) -> Step {
        let Some((topic, queue)) = self.life.as_ref().map(|life| (life.topic.clone(), life.worker.queue())) else {
            return Ok(());
        };
        let now = self.clock.wall();
        let letters = self.letters(&topic, &queue)?;
        let held = letters.iter().find(|number| self.known.until.get(number).is_some_and(|until| *until > now));
        ensure(held.is_none(), || format!("message {held:?} is a dead letter, and has a holder"))?;
        let gone = self.known.letters.iter().find(|number| !letters.contains(number));
        ensure_all(gone.is_none(), || format!("message {gone:?} was a dead letter, and is none any more: lost"))?;
        self.known.letters = letters.iter().copied().collect();
        match dice.u64(..6) {
            0..4 => self.redrive(&topic, &queue, &letters[..letters.len().min(1 + dice.usize(..3))])?,
            4 => {
                self.known.perhaps.extend(&letters);
                self.known.letters.clear();
                let purged = queue.purge_dead_letters();
                ensure_open(&topic)?;
                ensure_all(purged == letters.len() as u64, || format!("{purged} of {letters:?} were forgotten"))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Redrives these dead letters, which are the first ones, while the worker receives and acks messages.
    fn redrive(&mut self, topic: &Topic<u64>, queue: &Queue<u64>, letters: &[u64]) -> Step {
        let count = letters.len() as u64;
        for number in letters {
            self.known.letters.remove(number);
            self.known.attempts.remove(number);
            self.known.until.remove(number);
        }
        let sent = std::thread::scope(|scope| -> Step<u64> {
            let sends = scope.spawn(|| queue.redrive(count));
            for _ in letters {
                if let Some((number, until, lease)) = self.receive(Duration::ZERO)? {
                    self.known.ack(number, self.clock.wall() < until, lease)?;
                }
            }
            Ok(sends.join().unwrap_or_default())
        })?;
        ensure_open(topic)?;
        ensure_all(sent == count, || format!("{sent} of {letters:?} were sent back"))
    }

    fn resume(&mut self, dice: &mut Rng) -> Step {
        let Some(life) = self.life.as_mut().filter(|_| !self.left.is_empty()) else { return Ok(()) };
        let queue: Queue<u64> = life.worker.queue();
        let (number, until, ticket) = self.left.swap_remove(dice.usize(..self.left.len()));
        let lasts = self.clock.wall() < until;
        match queue.resume(&ticket) {
            Ok(lease) => {
                taken(number, lasts, "a ticket", Ok(()))?;
                life.leases.push((number, until, lease));
            }
            Err(refused) => _ = taken(number, lasts, "a ticket", Err(refused))?,
        }
        Ok(())
    }
}

impl Actor for Jobs {
    fn begin(&mut self, engine: &Engine) -> Step {
        let topic = self.topic(engine)?;
        let producer = topic.producer().create().map_err(power)?;
        let worker = self.queue(&topic).join().map_err(power)?;
        self.life = Some(Life { topic, producer, worker, pending: Vec::new(), leases: Vec::new() });
        Ok(())
    }

    fn act(&mut self, dice: &mut Rng) -> Step {
        match dice.u64(..10) {
            0..2 => {
                let Some(life) = &mut self.life else { return Ok(()) };
                publish(&mut self.next, PARTITIONS, &mut life.producer, &mut life.pending)?;
            }
            2 => self.settle()?,
            3..5 => {
                if let Some(given) = self.receive(Duration::ZERO)?
                    && let Some(life) = &mut self.life
                {
                    life.leases.push(given);
                }
            }
            5..8 => {
                if let Some(life) = self.life.as_mut().filter(|life| !life.leases.is_empty()) {
                    let any = dice.usize(..life.leases.len());
                    let given = life.leases.swap_remove(any);
                    self.handle(given, dice)?;
                }
            }
            8 if self.attempts.is_some() && dice.bool() => self.bury(dice)?,
            8 => self.resume(dice)?,
            _ => self.clock.advance(VISIBILITY / 2),
        }
        Ok(())
    }

    fn finish(&mut self) -> Step {
        self.settle()?;
        let Some(life) = &mut self.life else { return Ok(()) };
        let mut missing = BTreeSet::new();
        read_all(&life.topic, |number, _| _ = missing.insert(*number))?;
        missing.retain(|number| !self.known.is_over(*number));
        life.leases.drain(..).for_each(|(.., lease)| _ = lease.leave());
        // All leases run out, and all delays are over.
        self.clock.advance(LONG);
        if self.attempts.is_some() {
            let Some((topic, queue)) = self.life.as_ref().map(|life| (life.topic.clone(), life.worker.queue())) else {
                return Ok(());
            };
            let letters = self.letters(&topic, &queue)?;
            self.redrive(&topic, &queue, &letters)?;
            missing.retain(|number| !self.known.is_over(*number));
        }
        while !missing.is_empty() {
            let Some((number, until, lease)) = self.receive(LONG)? else {
                return Err(broken(format!("messages {missing:?} were never given out: lost")));
            };
            self.known.ack(number, self.clock.wall() < until, lease)?;
            missing.remove(&number);
        }
        Ok(())
    }

    fn end(&mut self) {
        self.known.letters.clear();
        if let Some(life) = self.life.take() {
            // The leases are left, as by a process that has crashed; dropped leases would be given back.
            self.left.extend(life.leases.into_iter().map(|(number, until, lease)| (number, until, lease.leave())));
        }
    }

    fn audit(&self, engine: &Engine, finished: bool) -> Step {
        let (mut there, mut last, mut disorder) = (BTreeSet::new(), BTreeMap::new(), None);
        let topic = self.topic(engine)?;
        read_all(&topic, |number, at| {
            let before = last.insert(at.partition, *number);
            if !there.insert(*number) || before.is_some_and(|before| before > *number) {
                disorder = Some(*number);
            }
        })?;
        ensure(disorder.is_none(), || format!("message {disorder:?} is not in its order"))?;
        let lost = self.known.sent.iter().chain(&self.known.done).find(|number| !there.contains(number));
        ensure(lost.is_none(), || format!("message {lost:?} was acknowledged, and is lost"))?;
        if self.attempts.is_some() {
            self.letters(&topic, &self.queue(&topic).open().map_err(power)?)?;
        }
        let left = self.known.sent.iter().find(|number| !self.known.is_over(**number));
        ensure(!finished || left.is_none(), || format!("message {left:?} is not done with in the end: lost"))
    }
}
