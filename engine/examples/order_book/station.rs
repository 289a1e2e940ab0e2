//! What surrounds a stage while it runs: the check of order, the clock, `--verbose`, `--fault`.

use std::fmt::Display;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::Output;
use super::order::OrderSlot;
use super::stages::Watch;
use super::stats::{self, Latency};

/// Nanoseconds since the run began.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Clock(Instant::now())
    }

    pub fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Why a handler stops its topic.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("can't write the output: {0}")]
    Output(#[from] std::io::Error),
    #[error("can't publish a quote: {0}")]
    Quotes(#[from] slipring::producer::PublishError),
}

/// A stage in a consumer.
pub struct Station<S> {
    pub name: &'static str,
    pub stage: S,
    pub watch: Watch,
    /// Events that came before the book stage had finished them.
    pub overtaken: u64,
    pub latency: Latency,
    /// When the newest message was done.
    pub last_ns: u64,
    clock: Clock,
    verbose: Option<Output>,
    fault_at: Option<u64>,
}

impl<S> Station<S> {
    pub fn new(name: &'static str, stage: S, clock: Clock, verbose: Option<&Output>, fault_at: Option<u64>) -> Self {
        Station {
            name,
            stage,
            watch: Watch::default(),
            overtaken: 0,
            latency: stats::latency(),
            last_ns: 0,
            clock,
            verbose: verbose.cloned(),
            fault_at,
        }
    }

    /// Takes a message in: by its own number, and with its text for `--verbose`.
    ///
    /// # Errors
    /// When the output is closed.
    ///
    /// # Panics
    /// When `--fault` asks for it.
    pub fn receive(&mut self, index: u64, message: &dyn Display) -> Result<(), Stopped> {
        let name = self.name;
        assert!(self.fault_at != Some(index), "{name} broke on purpose at message {index}");
        if let Some(output) = &self.verbose {
            output.line(format_args!("{name} received {message}"))?;
        }
        self.watch.see(index);
        Ok(())
    }

    /// Takes in an order behind the book stage; of the `last` stages that nothing runs behind, whoever
    /// is done last counts the time.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn behind_book(&mut self, slot: &OrderSlot, last: u32, handle: impl FnOnce(&mut S)) -> Result<(), Stopped> {
        self.receive(slot.order.index, slot)?;
        self.overtaken += u64::from(!slot.effect.belongs_to(&slot.order));
        handle(&mut self.stage);
        if slot.effect.finish(last) {
            self.done(slot.sent_ns);
        }
        Ok(())
    }

    /// Counts the time since `sent_ns`.
    pub fn done(&mut self, sent_ns: u64) {
        self.last_ns = self.clock.now_ns();
        self.latency.saturating_record(self.last_ns.saturating_sub(sent_ns));
    }
}

/// A station that is sent back when its handler is dropped: when the stage has ended, in whatever way.
pub struct Lent<S> {
    station: Option<Station<S>>,
    home: Sender<Station<S>>,
}

impl<S> Lent<S> {
    pub fn new(station: Station<S>, home: Sender<Station<S>>) -> Self {
        Lent { station: Some(station), home }
    }

    pub fn get(&mut self) -> &mut Station<S> {
        self.station.as_mut().expect("it leaves in drop alone")
    }
}

impl<S> Drop for Lent<S> {
    fn drop(&mut self) {
        if let Some(station) = self.station.take() {
            // A run that has given up waits for nobody.
            let _ = self.home.send(station);
        }
    }
}
