//! Tests of whole histories: producers, transactions, workers of queues and members of groups work on a simulated disk
//! that fails again and again. After each failure a checker compares the promises that they got with the journal.
//!
//! A history has several lives: in each, an engine opens the journal and the actors work until the disk fails or the
//! life is over. Some tests turn on a fault of the engine itself, and expect that the checker finds it. Users cannot
//! turn on these faults, so the tests are inside the crate.

mod bank;
mod jobs;
mod managed;
mod members;
mod senders;

use crate::{
    Engine, EngineError, Level, Producer, Receipt, Topic, clock::ManualClock, group::Delivery, queue::Order,
    replay::Replay,
};
use fastrand::Rng;
use slipring_journal::simulated::{Fault, SimulatedDisk};
use slipring_journal::{Options, Sabotage};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

/// The description of a broken promise.
type Violation = String;

/// Why a step of an actor failed. `Power`: the engine refused a call because of the disk's fault, which ends the life.
/// `Broken`: a promise was broken, which ends the history as failed.
enum Stop {
    Power(String),
    Broken(Violation),
    /// An answer has less than it must have. If the disk's fault has happened by then, this ends the life as `Power`
    /// does, because the engine may have been unable to read the rest; otherwise it is a broken promise.
    Less(Violation),
}

type Step<T = ()> = Result<T, Stop>;

/// The failure of a step by a refused call, which only a fault of the disk may cause.
fn power(refused: impl Display) -> Stop {
    Stop::Power(refused.to_string())
}

fn broken(what: impl Into<String>) -> Stop {
    Stop::Broken(what.into())
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Step {
    if holds { Ok(()) } else { Err(broken(what())) }
}

/// As [`ensure`], for the completeness of an answer: with [`Stop::Less`] instead of a broken promise.
fn ensure_all(holds: bool, what: impl FnOnce() -> String) -> Step {
    if holds { Ok(()) } else { Err(Stop::Less(what())) }
}

/// A participant of a history. It remembers over all lives the promises that it got.
trait Actor {
    /// Begins a new life: opens the actor's topics, producers and readers.
    fn begin(&mut self, engine: &Engine) -> Step;
    /// Does one random step.
    fn act(&mut self, dice: &mut Rng) -> Step;
    /// Does all remaining work, in the last life, which has no fault of the disk.
    fn finish(&mut self) -> Step;
    /// Ends the life: drops everything that belongs to the engine.
    fn end(&mut self);
    /// Checks the actor's promises against the journal. `finished`: all its work was done, so nothing may be missing.
    fn audit(&self, engine: &Engine, finished: bool) -> Step;
}

fn engine(disk: &SimulatedDisk, clock: &ManualClock, sabotage: Sabotage) -> Result<Engine, EngineError> {
    let options = Options { segment_size: 1 << 18, sabotage, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).clock(clock.clone()).build()
}

/// Calls `each` with all durable events of the topic.
fn read_all<E: Send + Sync + 'static>(topic: &Topic<E>, mut each: impl FnMut(&E, crate::subscriber::At)) -> Step {
    let mut replay: Replay<E> = topic.replay("auditor").open().map_err(power)?;
    loop {
        let live = replay.is_live();
        match replay.read(Duration::ZERO, &mut each).map_err(power)? {
            Some(0) if live => return Ok(()),
            None => return Err(power("the topic has ended")),
            Some(_) => {}
        }
    }
}

/// Publishes the number `next` and increments it, so that no number is used twice, even if the publish fails.
fn publish(next: &mut u64, partitions: u64, producer: &mut Producer<u64>, pending: &mut Vec<(u64, Receipt)>) -> Step {
    let number = *next;
    *next += 1;
    let receipt = producer.publish_to((number % partitions) as u32, |event| *event = number).map_err(power)?;
    pending.push((number, receipt));
    Ok(())
}

/// Waits until the pending events are durable, and moves their numbers to `acknowledged`.
fn settle(pending: &mut Vec<(u64, Receipt)>, acknowledged: &mut BTreeSet<u64>) -> Step {
    for (number, receipt) in pending.drain(..) {
        receipt.wait(Level::Durable).map_err(power)?;
        acknowledged.insert(number);
    }
    Ok(())
}

const LONG: Duration = Duration::from_secs(60);

/// Creates the actors of a history.
type Cast = fn(&ManualClock) -> Vec<Box<dyn Actor>>;

fn senders(_: &ManualClock) -> Vec<Box<dyn Actor>> {
    vec![Box::new(bank::Bank::default()), Box::new(senders::Named::default()), Box::new(senders::Ids::default())]
}

fn workers(clock: &ManualClock) -> Vec<Box<dyn Actor>> {
    vec![
        Box::new(jobs::Jobs::new("jobs", Order::Relaxed, None, clock)),
        Box::new(jobs::Jobs::new("lines", Order::Strict, None, clock)),
    ]
}

/// Workers of queues with a limit of attempts: messages become dead letters, which are redriven or purged.
fn undertakers(clock: &ManualClock) -> Vec<Box<dyn Actor>> {
    vec![
        Box::new(jobs::Jobs::new("jobs", Order::Relaxed, Some(2), clock)),
        Box::new(jobs::Jobs::new("lines", Order::Strict, Some(1), clock)),
    ]
}

fn groups(clock: &ManualClock) -> Vec<Box<dyn Actor>> {
    vec![
        Box::new(members::Members::new("read", None, clock)),
        Box::new(members::Members::new("passed", Some("on"), clock)),
    ]
}

fn managed(clock: &ManualClock) -> Vec<Box<dyn Actor>> {
    let member = |input, output, delivery| managed::Managed::new(input, output, delivery, clock);
    vec![
        Box::new(member("once", "once-out", Delivery::ExactlyOnce)),
        Box::new(member("most", "most-out", Delivery::AtMostOnce)),
        Box::new(member("least", "least-out", Delivery::AtLeastOnce)),
    ]
}

/// The faults of the disk of which each life but the last gets one at random; half of them are power cuts.
const FAULTS: [Fault; 6] = [Fault::PowerCut, Fault::PowerCut, Fault::PowerCut, Fault::Io, Fault::Full, Fault::Short];

/// Runs five lives in which a fault of the disk may come, and a last life without one. After each life, all actors
/// audit the journal. Returns how many lives were ended by a fault, or the first broken promise.
fn history(seed: u64, sabotage: Sabotage, cast: Cast) -> Result<u64, Violation> {
    let (clock, mut dice) = (ManualClock::new(), Rng::with_seed(seed));
    let actors = &mut *cast(&clock);
    let mut disk = SimulatedDisk::new();
    let mut cuts = 0;
    for life in 0..6 {
        let is_last = life == 5;
        let mut fault_at = u64::MAX;
        if !is_last {
            let fault = FAULTS[dice.usize(..FAULTS.len())];
            fault_at = disk.fail_after(3 + dice.u64(..60), fault);
        }
        let lived = live(&disk, &clock, sabotage, actors, &mut dice, is_last);
        let about = |what: &str| format!("seed {seed}, life {life}: {what}");
        match lived {
            Err(Stop::Less(_)) if disk.calls() >= fault_at => cuts += 1,
            Err(Stop::Broken(what) | Stop::Less(what)) => return Err(about(&what)),
            Err(Stop::Power(refused)) if is_last => return Err(about(&format!("refused without a cause: {refused}"))),
            Err(Stop::Power(_)) => cuts += 1,
            Ok(()) => {}
        }
        if !is_last {
            // Three times in four the power fails, and unsynced changes may be lost. Otherwise only the process ends,
            // and the disk keeps all changes.
            disk = if dice.u64(..4) == 0 { disk.copy() } else { disk.crash(dice.u64(..u64::MAX)) };
        }
        // Audited on a copy of the disk, so that the next life begins with exactly what the crash has left.
        let look = || -> Step {
            let engine = engine(&disk.copy(), &clock, Sabotage::default()).map_err(power)?;
            actors.iter().try_for_each(|actor| actor.audit(&engine, is_last))?;
            engine.shutdown(LONG);
            Ok(())
        };
        look().map_err(|stop| match stop {
            Stop::Broken(what) | Stop::Less(what) | Stop::Power(what) => about(&what),
        })?;
    }
    Ok(cuts)
}

fn live(
    disk: &SimulatedDisk,
    clock: &ManualClock,
    sabotage: Sabotage,
    actors: &mut [Box<dyn Actor>],
    dice: &mut Rng,
    is_last: bool,
) -> Step {
    let engine = engine(disk, clock, sabotage).map_err(power)?;
    let lived = (|| {
        actors.iter_mut().try_for_each(|actor| actor.begin(&engine))?;
        for _ in 0..40 + dice.u64(..80) {
            let who = dice.usize(..actors.len());
            actors[who].act(dice)?;
            clock.advance(Duration::from_millis(dice.u64(..20)));
        }
        if is_last { actors.iter_mut().try_for_each(|actor| actor.finish()) } else { Ok(()) }
    })();
    actors.iter_mut().for_each(|actor| actor.end());
    // The last life and about a third of the others end with a shutdown; the rest just drop the engine.
    if is_last || dice.u64(..3) == 0 {
        engine.shutdown(LONG);
    }
    lived
}

/// Runs the history of each seed. Returns how many lives were ended by a fault of the disk in all, or the first broken
/// promise.
fn histories(seeds: std::ops::Range<u64>, sabotage: Sabotage, cast: Cast) -> Result<u64, Violation> {
    seeds.map(|seed| history(seed * 7919 + 1, sabotage, cast)).sum()
}

/// Runs `seeds` histories, and panics at the first broken promise, or if faults of the disk have ended no more than two
/// lives per history on average. The environment variable `SLIPRING_HISTORIES` replaces the number of histories; a soak
/// test runs 1,000.
fn hold(cast: Cast, seeds: u64) {
    let seeds = std::env::var("SLIPRING_HISTORIES").map_or(seeds, |seeds| seeds.parse().unwrap());
    let cuts = histories(0..seeds, Sabotage::default(), cast).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(cuts > seeds * 2, "{cuts} cuts in {seeds} histories");
}

#[test]
fn what_was_promised_holds_through_every_history() {
    hold(senders, 25);
}

#[test]
fn what_queues_promise_holds_through_every_history() {
    hold(workers, 25);
}

#[test]
fn what_queues_promise_of_dead_letters_holds_through_every_history() {
    hold(undertakers, 25);
}

#[test]
fn what_managed_members_promise_holds_through_every_history() {
    hold(managed, 10);
}

#[test]
fn what_groups_promise_holds_through_every_history() {
    hold(groups, 25);
}

/// The first broken promise names one of `by`.
fn is_found(cast: Cast, sabotage: Sabotage, by: &[&str]) {
    let found = histories(0..400, sabotage, cast).expect_err("a fault that nobody found");
    assert!(by.iter().any(|by| found.contains(by)), "{found}");
}

#[test]
fn an_input_that_is_committed_before_its_outputs_is_found() {
    is_found(senders, Sabotage { commit_before_frame: true, ..Sabotage::default() }, &["booked"]);
}

#[test]
fn a_commit_whose_epoch_nobody_looks_at_is_found() {
    is_found(senders, Sabotage { no_epoch_check: true, ..Sabotage::default() }, &["fenced"]);
}

#[test]
fn a_commit_of_a_fenced_member_is_found() {
    is_found(groups, Sabotage { no_epoch_check: true, ..Sabotage::default() }, &["a fenced member"]);
}

#[test]
fn a_commit_of_a_fenced_managed_member_is_found() {
    is_found(managed, Sabotage { no_epoch_check: true, ..Sabotage::default() }, &["passed on"]);
}

#[test]
fn an_ack_that_is_accepted_after_its_lease_ran_out_is_found() {
    // If a fault of the disk hides the outcome of such an ack, it shows as a message that nobody gets.
    let by = ["was accepted after its lease ran out", "were never given out: lost"];
    is_found(workers, Sabotage { accept_late_acks: true, ..Sabotage::default() }, &by);
}

#[test]
fn sequences_that_are_not_restored_are_found() {
    is_found(senders, Sabotage { forget_producers: true, ..Sabotage::default() }, &["sequence"]);
}

#[test]
fn ids_that_are_not_restored_are_found() {
    is_found(senders, Sabotage { forget_ids: true, ..Sabotage::default() }, &["id "]);
}
