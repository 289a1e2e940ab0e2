//! Members of a group that join, leave, and stall until they are fenced and commit too late.

use super::{Actor, LONG, Step, broken, ensure, power, publish, read_all, settle};
use crate::transaction::TransactionError;
use crate::{
    Engine, Producer, Receipt, Topic,
    clock::ManualClock,
    group::{CommitError, GroupBatch, GroupError, Member},
};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PARTITIONS: u64 = 3;
const DEADLINE: Duration = Duration::from_millis(300);

/// What a commit of a batch includes: nothing more, the wait until it is durable, or a transaction with output events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Nothing,
    Sync,
    Outputs,
}

pub(super) struct Members {
    topic: &'static str,
    /// The output topic, if each commit is a transaction that copies the batch to it; otherwise `None`.
    outputs: Option<&'static str>,
    clock: ManualClock,
    life: Option<Life>,
    next: u64,
    acknowledged: BTreeSet<u64>,
    known: Known,
}

#[derive(Default)]
struct Known {
    /// Events whose commit was acknowledged as durable.
    done: BTreeSet<u64>,
    /// Events whose commit may be durable, or may become so.
    perhaps: BTreeSet<u64>,
    /// Events that were committed in this life, durably or not.
    here: BTreeSet<u64>,
}

struct Life {
    engine: Engine,
    input: Topic<u64>,
    output: Option<Topic<u64>>,
    producer: Producer<u64>,
    members: Vec<Member<u64>>,
    pending: Vec<(u64, Receipt)>,
}

impl Known {
    /// Returns the numbers of a batch's events. A broken promise if an event was committed before, the events are not
    /// in order, or an earlier acknowledged event of the partition was skipped.
    fn read(&self, batch: &GroupBatch<'_, u64>, acknowledged: &BTreeSet<u64>) -> Step<Vec<u64>> {
        let numbers: Vec<u64> = batch.iter().map(|(number, _)| *number).collect();
        let again = numbers.iter().find(|number| self.done.contains(number) || self.here.contains(number));
        ensure(again.is_none(), || format!("event {again:?} was committed, and is read again"))?;
        ensure(numbers.is_sorted(), || format!("a partition is not in order: {numbers:?}"))?;
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(numbers) };
        let is_over = |number| [&self.done, &self.perhaps, &self.here].iter().any(|set| set.contains(number));
        let mut before = acknowledged.range(..*last).filter(|number| *number % PARTITIONS == first % PARTITIONS);
        let lost = before.find(|number| !numbers.contains(number) && !is_over(number));
        ensure(lost.is_none(), || format!("event {lost:?} was passed over: {numbers:?} are read, and it is lost"))?;
        Ok(numbers)
    }
}

/// Commits a batch. Returns false if the member was fenced.
fn commit(batch: GroupBatch<'_, u64>, with: With, engine: &Engine, output: Option<&Topic<u64>>) -> Step<bool> {
    match (with, output) {
        (With::Outputs, Some(output)) => {
            let mut out = engine.transaction().map_err(power)?;
            for (number, at) in &batch {
                out.publish_to(output, at.partition, |event| *event = *number).map_err(power)?;
            }
            match batch.commit_with(out) {
                Ok(_) => Ok(true),
                Err(TransactionError::Member(_)) => Ok(false),
                Err(refused) => Err(power(refused)),
            }
        }
        (With::Sync, _) => match batch.commit_durable() {
            Ok(()) => Ok(true),
            Err(CommitError::Fenced(_)) => Ok(false),
            Err(refused) => Err(power(refused)),
        },
        _ => Ok(batch.commit().is_ok()),
    }
}

impl Life {
    fn join(&mut self) -> Step {
        let group = self.input.group("readers").deadline(DEADLINE).limit(3).spill(true);
        self.members.push(group.join().map_err(power)?);
        Ok(())
    }
}

/// The member's next batch, empty if no event comes within `limit`; `None` if the member was fenced.
fn poll(member: &mut Member<u64>, limit: Duration) -> Step<Option<GroupBatch<'_, u64>>> {
    match member.poll(limit) {
        Ok(Some(batch)) => Ok(Some(batch)),
        Ok(None) => Err(power("the topic has ended")),
        Err(GroupError::Fenced(_)) => Ok(None),
        Err(refused) => Err(power(refused)),
    }
}

impl Members {
    pub(super) fn new(topic: &'static str, outputs: Option<&'static str>, clock: &ManualClock) -> Self {
        let (clock, known, acknowledged) = (clock.clone(), Known::default(), BTreeSet::new());
        Self { topic, outputs, clock, life: None, next: 0, acknowledged, known }
    }

    fn topics(&self, engine: &Engine) -> Step<(Topic<u64>, Option<Topic<u64>>)> {
        let open = |name: &str| {
            let topic = engine.topic(name).partitions(PARTITIONS as usize).capacity(32);
            topic.durable().create().map_err(power)
        };
        Ok((open(self.topic)?, self.outputs.map(open).transpose()?))
    }

    fn with(&self, dice: &mut Rng) -> With {
        match self.outputs {
            Some(_) => With::Outputs,
            None if dice.bool() => With::Nothing,
            None => With::Sync,
        }
    }

    /// Lets a member read a batch and commit it; a fenced member is replaced by a new one instead. Returns false if the
    /// batch was empty.
    fn work(&mut self, index: usize, limit: Duration, with: With) -> Step<bool> {
        let Self { life: Some(life), known, acknowledged, .. } = self else { return Ok(false) };
        let Life { engine, output, members, .. } = life;
        let Some(batch) = poll(&mut members[index], limit)? else {
            members.swap_remove(index);
            life.join()?;
            return Ok(true);
        };
        let numbers = known.read(&batch, acknowledged)?;
        let added: Vec<u64> = numbers.iter().copied().filter(|number| known.perhaps.insert(*number)).collect();
        if commit(batch, with, engine, output.as_ref())? {
            known.here.extend(&numbers);
            if with != With::Nothing {
                known.done.extend(&numbers);
            }
        } else {
            added.iter().for_each(|number| _ = known.perhaps.remove(number));
        }
        Ok(!numbers.is_empty())
    }

    /// Lets a member read a batch, and commit it only after its deadline has passed and perhaps a new member has read
    /// on. That commit must be refused.
    fn stall(&mut self, dice: &mut Rng) -> Step {
        let with = self.with(dice);
        let Some(life) = &mut self.life else { return Ok(()) };
        let mut stalled = life.members.swap_remove(dice.usize(..life.members.len()));
        life.join()?;
        let Some(batch) = poll(&mut stalled, Duration::ZERO)? else { return Ok(()) };
        let numbers = self.known.read(&batch, &self.acknowledged)?;
        if numbers.is_empty() {
            return Ok(());
        }
        self.clock.advance(DEADLINE);
        // All other members are replaced by a single new one, which gets the partition. Its commits count.
        let reads_on = dice.u64(..3);
        if reads_on > 0 {
            life.members.clear();
            life.join()?;
            for _ in 0..reads_on {
                self.work(0, Duration::ZERO, with)?;
            }
        }
        let Some(life) = &self.life else { return Ok(()) };
        let late = commit(batch, with, &life.engine, life.output.as_ref())?;
        ensure(!late, || format!("a fenced member has committed {numbers:?}"))
    }

    fn settle(&mut self) -> Step {
        self.life.as_mut().map_or(Ok(()), |life| settle(&mut life.pending, &mut self.acknowledged))
    }
}

impl Actor for Members {
    fn begin(&mut self, engine: &Engine) -> Step {
        let (input, output) = self.topics(engine)?;
        let producer = input.producer().create().map_err(power)?;
        let (members, pending) = (Vec::new(), Vec::new());
        let mut life = Life { engine: engine.clone(), input, output, producer, members, pending };
        life.join()?;
        life.join()?;
        self.life = Some(life);
        Ok(())
    }

    fn act(&mut self, dice: &mut Rng) -> Step {
        let with = self.with(dice);
        let Some(life) = &mut self.life else { return Ok(()) };
        match dice.u64(..10) {
            0..3 => {
                for _ in 0..1 + dice.u64(..3) {
                    publish(&mut self.next, PARTITIONS, &mut life.producer, &mut life.pending)?;
                }
            }
            3 => self.settle()?,
            4..8 => {
                let any = dice.usize(..life.members.len());
                self.work(any, Duration::ZERO, with)?;
            }
            8 if life.members.len() > 1 && dice.bool() => {
                life.members.swap_remove(dice.usize(..life.members.len())).leave();
            }
            8 if life.members.len() < 4 => life.join()?,
            _ => self.stall(dice)?,
        }
        Ok(())
    }

    fn finish(&mut self) -> Step {
        self.settle()?;
        let with = if self.outputs.is_some() { With::Outputs } else { With::Sync };
        let Some(life) = &mut self.life else { return Ok(()) };
        life.members.clear();
        life.join()?;
        loop {
            let Some(life) = &self.life else { return Ok(()) };
            let mut missing = BTreeSet::new();
            read_all(&life.input, |number, _| _ = missing.insert(*number))?;
            match &life.output {
                // The output shows exactly which events were committed.
                Some(output) => read_all(output, |number, _| _ = missing.remove(number))?,
                None => missing.retain(|number| !self.known.perhaps.contains(number)),
            }
            if missing.is_empty() {
                return Ok(());
            }
            let came = self.work(0, LONG, with)?;
            ensure(came, || format!("events {missing:?} are never read: lost"))?;
        }
    }

    fn end(&mut self) {
        self.life = None;
        self.known.here.clear();
    }

    fn audit(&self, engine: &Engine, finished: bool) -> Step {
        let (input, output) = self.topics(engine)?;
        let all = |topic: &Topic<u64>| -> Step<BTreeSet<u64>> {
            let (mut there, mut last, mut disorder) = (BTreeSet::new(), BTreeMap::new(), None);
            read_all(topic, |number, at| {
                let before = last.insert(at.partition, *number);
                if !there.insert(*number) || before.is_some_and(|before| before > *number) {
                    disorder = Some(*number);
                }
            })?;
            let what = || broken(format!("event {disorder:?} of {} is there twice, or not in order", topic.name()));
            if disorder.is_some() { Err(what()) } else { Ok(there) }
        };
        let there = all(&input)?;
        let lost = self.acknowledged.iter().find(|number| !there.contains(number));
        ensure(lost.is_none(), || format!("event {lost:?} was acknowledged, and is lost"))?;
        // A commit without output does not wait until its events are durable: a member reads them in the ring, perhaps
        // before they are written. So committed events may be lost, and the checks below need an output.
        let Some(output) = output else { return Ok(()) };
        let lost = self.known.done.iter().find(|number| !there.contains(number));
        ensure(lost.is_none(), || format!("event {lost:?} was passed on, and is lost itself"))?;
        let passed = all(&output)?;
        let lost = self.known.done.iter().find(|number| !passed.contains(number));
        ensure(lost.is_none(), || format!("event {lost:?} was passed on and acknowledged, and is lost"))?;
        let odd = passed.iter().find(|number| !self.known.perhaps.contains(number));
        ensure(odd.is_none(), || format!("event {odd:?} was passed on by a fenced member, or by nobody"))?;
        ensure(!finished || passed == there, || format!("{passed:?} of {there:?} are passed on in the end"))
    }
}
