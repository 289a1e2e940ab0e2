//! Managed members of groups, which copy each event of an input topic to an output topic, with each kind of delivery.
//! Their handlers fail, panic, or take so long that the member is fenced.

use super::{Actor, LONG, Step, broken, ensure, power, publish, read_all, settle};
use crate::{
    Engine, Producer, Receipt, Topic,
    clock::ManualClock,
    group::{Delivery, GroupRun, MemberEnd},
    subscriber::OnError,
    transaction::Transaction,
};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PARTITIONS: u64 = 2;
const DEADLINE: Duration = Duration::from_millis(300);

pub(super) struct Managed {
    input: &'static str,
    output: &'static str,
    delivery: Delivery,
    clock: ManualClock,
    life: Option<Life>,
    next: u64,
    acknowledged: BTreeSet<u64>,
    /// How often each event was handled, in all lives.
    handled: Arc<Mutex<BTreeMap<u64, u32>>>,
}

struct Life {
    input: Topic<u64>,
    output: Topic<u64>,
    producer: Producer<u64>,
    runs: Vec<GroupRun>,
    pending: Vec<(u64, Receipt)>,
}

/// Judges the end of a member. Stopped or finished: `Ok`. Refused, or failed with a closed output: the disk's fault, so
/// the life ends. Anything else is a broken promise.
fn ended(end: MemberEnd, output: &Topic<u64>) -> Step {
    match end {
        MemberEnd::Finished | MemberEnd::Stopped => Ok(()),
        MemberEnd::Refused(refused) => Err(power(refused)),
        // The handler failed because it could not publish into the closed output.
        failed if output.closed().is_some() => Err(power(failed)),
        failed => Err(broken(format!("a managed member {failed}"))),
    }
}

impl Managed {
    pub(super) fn new(input: &'static str, output: &'static str, delivery: Delivery, clock: &ManualClock) -> Self {
        let (clock, acknowledged, handled) = (clock.clone(), BTreeSet::new(), Arc::default());
        Self { input, output, delivery, clock, life: None, next: 0, acknowledged, handled }
    }

    fn topics(&self, engine: &Engine) -> Step<(Topic<u64>, Topic<u64>)> {
        let open = |name: &str| {
            let topic = engine.topic(name).partitions(PARTITIONS as usize).capacity(32);
            topic.durable().create().map_err(power)
        };
        Ok((open(self.input)?, open(self.output)?))
    }

    /// Adds a member. Its handler fails, panics or stalls only when an event is handled for the first time, so a
    /// repeated event is copied.
    fn run(&mut self) -> Step {
        let Some(life) = &mut self.life else { return Ok(()) };
        let (handled, clock, output) = (Arc::clone(&self.handled), self.clock.clone(), life.output.clone());
        let group = life.input.group("managed").deadline(DEADLINE).limit(3).spill(true).delivery(self.delivery);
        let policy = if self.delivery == Delivery::AtMostOnce { OnError::Skip } else { OnError::Retry(3) };
        let run = group.on_error(policy).run_into(move |number, at, out: &mut Transaction| {
            let times = *handled.lock().unwrap().entry(*number).and_modify(|times| *times += 1).or_insert(1);
            let is_first = |every, rest| times == 1 && number % every == rest;
            if is_first(5, 4) {
                clock.advance(DEADLINE);
            }
            let published = out.publish_to(&output, at.partition, |event| *event = *number);
            published.map_err(|refused| refused.to_string())?;
            if is_first(11, 5) {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            if is_first(7, 3) { Err("on purpose".to_owned()) } else { Ok(()) }
        });
        life.runs.push(run.map_err(power)?);
        Ok(())
    }

    /// Checks that no member has ended.
    fn look(&self) -> Step {
        let Some(life) = &self.life else { return Ok(()) };
        life.runs.iter().filter_map(GroupRun::ended).try_for_each(|end| {
            ended(end.clone(), &life.output)?;
            Err(broken(format!("a managed member {end}, and nobody told it to")))
        })
    }

    fn times(&self) -> u32 {
        self.handled.lock().unwrap().values().sum()
    }

    /// Waits until the members have handled an event, but not for long, then checks that none has ended.
    fn wait(&self) -> Step {
        let before = self.times();
        for _ in 0..1000 {
            if self.times() > before {
                break;
            }
            std::thread::yield_now();
        }
        self.look()
    }

    fn settle(&mut self) -> Step {
        self.life.as_mut().map_or(Ok(()), |life| settle(&mut life.pending, &mut self.acknowledged))
    }
}

impl Actor for Managed {
    fn begin(&mut self, engine: &Engine) -> Step {
        let (input, output) = self.topics(engine)?;
        let producer = input.producer().create().map_err(power)?;
        let (runs, pending) = (Vec::new(), Vec::new());
        self.life = Some(Life { input, output, producer, runs, pending });
        self.run()
    }

    fn act(&mut self, dice: &mut Rng) -> Step {
        self.look()?;
        let Some(life) = &mut self.life else { return Ok(()) };
        match dice.u64(..10) {
            0..4 => {
                for _ in 0..1 + dice.u64(..3) {
                    publish(&mut self.next, PARTITIONS, &mut life.producer, &mut life.pending)?;
                }
            }
            4 => self.settle()?,
            5 if life.runs.len() < 3 => self.run()?,
            6 if life.runs.len() > 1 => {
                let run = life.runs.swap_remove(dice.usize(..life.runs.len()));
                run.stop();
                match run.wait_for(LONG).ok_or_else(|| broken("a managed member does not stop"))? {
                    // After a stop a failed event is not retried here; another member reads it.
                    MemberEnd::Failed { .. } => {}
                    end => ended(end, &life.output)?,
                }
            }
            _ => self.wait()?,
        }
        Ok(())
    }

    fn finish(&mut self) -> Step {
        self.settle()?;
        let Some(life) = &mut self.life else { return Ok(()) };
        life.input.close();
        for run in life.runs.drain(..) {
            let end = run.wait_for(LONG).ok_or_else(|| broken("a managed member finds no end"))?;
            ended(end.clone(), &life.output)?;
            ensure(end == MemberEnd::Finished, || format!("a managed member {end} before all was read"))?;
        }
        Ok(())
    }

    fn end(&mut self) {
        if let Some(life) = self.life.take() {
            life.runs.iter().for_each(GroupRun::stop);
            // The next life must not begin before the members have ended: they would still change `handled`.
            let is_over = life.runs.iter().all(|run| run.wait_for(LONG).is_some());
            assert!(is_over, "a managed member does not stop");
        }
    }

    fn audit(&self, engine: &Engine, finished: bool) -> Step {
        let (input, output) = self.topics(engine)?;
        let (mut there, mut passed, mut last, mut disorder) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new(), None);
        read_all(&input, |number, _| _ = there.insert(*number))?;
        read_all(&output, |number, at| {
            *passed.entry(*number).or_insert(0) += 1;
            if last.insert(at.partition, *number).is_some_and(|before| before > *number) {
                disorder = Some(*number);
            }
        })?;
        let lost = self.acknowledged.iter().find(|number| !there.contains(number));
        ensure(lost.is_none(), || format!("event {lost:?} was acknowledged, and is lost"))?;
        if self.delivery != Delivery::AtLeastOnce {
            let twice = passed.iter().find(|(_, times)| **times > 1);
            ensure(twice.is_none(), || format!("{:?}: event {twice:?} was passed on twice", self.delivery))?;
        }
        match self.delivery {
            Delivery::AtMostOnce => {
                let handled = self.handled.lock().unwrap();
                let twice = handled.iter().find(|(_, times)| **times > 1);
                ensure(twice.is_none(), || format!("event {twice:?} was handled twice, at most once"))?;
            }
            Delivery::AtLeastOnce => {
                let lost = there.iter().find(|number| !passed.contains_key(number));
                ensure(!finished || lost.is_none(), || format!("event {lost:?} is never passed on, at least once"))?;
            }
            Delivery::ExactlyOnce => {
                ensure(disorder.is_none(), || format!("event {disorder:?} was passed on out of order"))?;
                let odd = passed.keys().find(|number| !there.contains(number));
                ensure(odd.is_none(), || format!("event {odd:?} was passed on, and is lost itself"))?;
                let lost = there.iter().find(|number| !passed.contains_key(number));
                ensure(!finished || lost.is_none(), || format!("event {lost:?} is never passed on, exactly once"))?;
            }
        }
        Ok(())
    }
}
