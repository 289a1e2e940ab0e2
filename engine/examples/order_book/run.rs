//! One run: the feed through the topics.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use slipring::{
    Engine, Producer, Topic, Wait,
    cores::{CorePlan, pin},
    producer::Single,
    subscriber::SubscriberBuilder,
};

use super::Output;
use super::feed::Feed;
use super::journal;
use super::order::{Order, OrderSlot, Quote};
use super::share;
use super::stages::{self, BookStage, DepthStage, SignalStage, TapeStage};
use super::station::{Clock, Lent, Station, Stopped};
use super::stats::{Consumer, Known, Report};

/// The consumers of topic `orders` that nothing runs behind.
const LAST_STAGES: u32 = 2;
/// Every thread of a run, in the order in which `--pin` names their cores.
const THREADS: [&str; 5] = ["publisher", "book", "depth", "signal", "tape"];

/// How fast the feed is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    Max,
    /// The feed's own gaps, divided by this.
    Times(u32),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let times = || text.strip_suffix('x')?.parse().ok().filter(|&times| times > 0);
        match text {
            "max" => Ok(Speed::Max),
            _ => times()
                .map(Speed::Times)
                .ok_or("neither `max` nor a whole number from 1 on and `x`, such as `100x`".into()),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Speed::Max => f.write_str("max"),
            Speed::Times(times) => write!(f, "{times}x"),
        }
    }
}

/// Which cores the threads are pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    Auto,
    None,
    Cores(Vec<usize>),
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cores = || -> Option<Vec<usize>> { text.split(',').map(|core| core.trim().parse().ok()).collect() };
        match text {
            "auto" => Ok(Pin::Auto),
            "none" => Ok(Pin::None),
            _ => cores().map(Pin::Cores).ok_or("neither `auto`, `none` nor core ids such as `0,1`".into()),
        }
    }
}

/// Something broken on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub stage: String,
    pub at: u64,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (stage, at) =
            text.strip_prefix("panic:").and_then(|rest| rest.split_once('@')).ok_or("expected panic:STAGE@N")?;
        if !THREADS[1..].contains(&stage) {
            return Err(format!("no stage `{stage}`; there are {}", THREADS[1..].join(", ")));
        }
        let at = at.parse().map_err(|_| format!("`{at}` is not a message's number"))?;
        Ok(Fault { stage: stage.into(), at })
    }
}

/// What a run is asked to do, checked.
#[derive(Debug)]
pub struct Plan {
    speed: Speed,
    wait: Wait,
    capacity: usize,
    fault: Option<Fault>,
    pin: Pin,
    /// One core for each of [`THREADS`], or none is pinned.
    cores: Option<[usize; THREADS.len()]>,
    allowed: usize,
    /// Where the rows are kept.
    pub journal: Option<PathBuf>,
    /// The ring to which the best prices are shared.
    pub share: Option<String>,
}

impl Plan {
    /// # Errors
    /// Says what can't be had.
    pub fn new(speed: Speed, wait: Wait, pin: Pin, capacity: usize, fault: Option<Fault>) -> Result<Self, String> {
        let allowed = pin::allowed_cores();
        let spread = |cores: &[usize]| std::array::from_fn(|thread| cores[thread % cores.len()]);
        let cores = match &pin {
            Pin::Cores(cores) if cores.len() > THREADS.len() => {
                let (asked, threads) = (cores.len(), THREADS.join(", "));
                return Err(format!("--pin: {asked} cores for {} threads: {threads}", THREADS.len()));
            }
            Pin::Cores(cores) => {
                if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
                    let allowed = allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
                    return Err(format!("--pin: core {core} is none of those that this process may use: {allowed}"));
                }
                Some(spread(cores))
            }
            // Pinned threads that share a core are slower than what the system would do.
            Pin::Auto if allowed.len() >= THREADS.len() => Some(spread(&allowed)),
            Pin::Auto | Pin::None => None,
        };
        Ok(Plan { speed, wait, capacity, fault, pin, cores, allowed: allowed.len(), journal: None, share: None })
    }

    fn core(&self, name: &str) -> Option<usize> {
        let thread = THREADS.iter().position(|thread| *thread == name)?;
        Some(self.cores?[thread])
    }

    fn fault_at(&self, name: &str) -> Option<u64> {
        self.fault.as_ref().filter(|fault| fault.stage == name).map(|fault| fault.at)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { speed, wait, capacity, .. } = self;
        write!(f, "speed {speed}, wait {wait}, capacity {capacity}; ")?;
        match (&self.cores, &self.pin) {
            (Some(cores), _) => {
                f.write_str("pinned")?;
                THREADS.iter().zip(cores).try_for_each(|(name, core)| write!(f, " {name}:{core}"))
            }
            (None, Pin::Auto) => {
                write!(f, "not pinned: {} threads share {} cores", THREADS.len(), self.allowed)
            }
            (None, _) => f.write_str("not pinned, as asked"),
        }?;
        let spinning = matches!(wait.to_string().as_str(), "busy-spin" | "spin");
        if spinning && self.allowed < THREADS.len() {
            f.write_str(
                "\nThreads that spin without giving way are slow where they share cores, most of all with few slots.",
            )?;
        }
        Ok(())
    }
}

/// How long the consumers may take for what is in the rings once everything is published.
const DRAIN: Duration = Duration::from_secs(60);
/// How often progress is shown and lag is read.
const LOOK: Duration = Duration::from_millis(20);

/// Publishes the feed, waits until every stage has read it, and reports.
///
/// # Errors
/// What stopped the run, with the name of the stage.
pub fn run(
    feed: &Feed,
    known: Option<Known>,
    plan: &Plan,
    verbose: Option<&Output>,
    progress: bool,
) -> Result<Report, String> {
    // Whoever asks for more spinning threads than cores was warned above, and may want to see it.
    let mut builder = Engine::builder().cores(CorePlan::new().oversubscribe());
    if let Some(folder) = &plan.journal {
        builder = builder.journal(folder);
    }
    let engine = builder.build().map_err(text)?;
    let orders = engine.topic::<OrderSlot>("orders").capacity(plan.capacity).single_producer();
    let orders = orders.create().map_err(text)?;
    let quotes = engine.topic::<Quote>("quotes").capacity(plan.capacity).single_producer().create().map_err(text)?;
    let clock = Clock::start();
    let setup = Setup { plan, clock, verbose };

    let (mut lent, tape) = setup.station("tape", TapeStage::default());
    let started = setup.subscriber(&quotes, "tape").run(move |quote: &Quote, _| {
        let tape = lent.get();
        tape.receive(quote.index, quote)?;
        tape.stage.handle(quote);
        tape.done(quote.sent_ns);
        Ok::<_, Stopped>(())
    });
    started.map_err(text)?;

    let (mut lent, book) = setup.station("book", BookStage::default());
    let mut quoting = quotes.producer().create().map_err(text)?;
    quoting.set_wait(plan.wait.clone());
    let started = setup.subscriber(&orders, "book").run(move |slot: &OrderSlot, _| {
        let book = lent.get();
        book.receive(slot.order.index, slot)?;
        if let Some(quote) = book.stage.handle(slot) {
            quoting.publish(|place| *place = quote)?;
        }
        Ok::<_, Stopped>(())
    });
    started.map_err(text)?;

    let (mut lent, depth) = setup.station("depth", DepthStage::default());
    let started = setup
        .subscriber(&orders, "depth")
        .after(["book"])
        .run(move |slot: &OrderSlot, _| lent.get().behind_book(slot, LAST_STAGES, |depth| depth.handle(slot)));
    started.map_err(text)?;

    let (mut lent, signal) = setup.station("signal", SignalStage::default());
    let started = setup
        .subscriber(&orders, "signal")
        .after(["book"])
        .run(move |slot: &OrderSlot, _| lent.get().behind_book(slot, LAST_STAGES, |signal| signal.handle(slot)));
    started.map_err(text)?;

    if let Some(ring) = &plan.share {
        share::share(&engine, &quotes, ring)?;
    }

    let mut lags = Lags::default();
    let producer = orders.producer().create().map_err(text)?;
    let first_ns = clock.now_ns();
    let running = &engine;
    let published = std::thread::scope(|scope| {
        let (done, published) = mpsc::channel();
        let publisher = std::thread::Builder::new().name("publisher".into());
        publisher
            .spawn_scoped(scope, move || done.send(publish(running, feed, plan, clock, producer)))
            .map_err(text)?;
        lags.watch(&engine, feed.orders.len() as u64, progress, &published)
    });
    let ended = engine.shutdown(DRAIN);
    plan.share.iter().try_for_each(|ring| share::end(ring))?;
    // A quote that the tape did not take stops the book as well: the tape's cause comes first.
    let failures = ended.failures().map(|(topic, name, cause)| (topic != "quotes", name, cause));
    if let Some((_, name, cause)) = failures.min() {
        return Err(format!("stage `{name}` stopped the run: {cause}"));
    }
    published?;

    let mut tape = returned("tape", &tape)?;
    let mut book = returned("book", &book)?;
    let mut depth = returned("depth", &depth)?;
    let mut signal = returned("signal", &signal)?;
    let events = feed.orders.len() as u64;
    tape.watch.end(book.stage.quotes());
    for watch in [&mut book.watch, &mut depth.watch, &mut signal.watch] {
        watch.end(events);
    }
    let last_ns = tape.last_ns.max(depth.last_ns).max(signal.last_ns);
    let mut to_last_stage = depth.latency;
    to_last_stage.add(signal.latency).expect("both keep three digits of any value");
    let consumers = [
        ("book", "orders", book.watch),
        ("depth", "orders", depth.watch),
        ("signal", "orders", signal.watch),
        ("tape", "quotes", tape.watch),
    ];
    let consumers = consumers.map(|(name, topic, watch)| {
        let left = ended.topics.iter().flat_map(|topic| topic.consumer(name)).map(|consumer| consumer.left).sum();
        let (largest_lag, stalls) = lags.of(name);
        Consumer { name, topic, watch, left, largest_lag, stalls }
    });
    Ok(Report {
        known,
        events,
        snapshot: feed.snapshot,
        unpriced: feed.unpriced,
        empty: feed.empty,
        unknown_ids: book.stage.book.unknown,
        evicted: book.stage.book.evicted.len() as u64,
        batches: book.stage.batches,
        crossed: book.stage.crossed,
        quotes: book.stage.quotes(),
        disagreed: depth.stage.disagreed,
        overtaken: depth.overtaken + signal.overtaken,
        consumers: consumers.into(),
        last_two_sided: book.stage.last_two_sided,
        resting: book.stage.book.known_orders() as u64,
        near: depth.stage.near,
        most_levels: depth.stage.most_levels,
        imbalance_ppm: [signal.stage.imbalance_ppm, signal.stage.lowest_ppm, signal.stage.highest_ppm],
        state_hash: stages::state_hash(&book.stage, &depth.stage, &signal.stage, &tape.stage),
        elapsed: Duration::from_nanos(last_ns.saturating_sub(first_ns)),
        to_last_stage,
        to_tape: tape.latency,
    })
}

/// What every stage is set up with.
struct Setup<'r> {
    plan: &'r Plan,
    clock: Clock,
    verbose: Option<&'r Output>,
}

impl Setup<'_> {
    fn station<S>(&self, name: &'static str, stage: S) -> (Lent<S>, Receiver<Station<S>>) {
        let station = Station::new(name, stage, self.clock, self.verbose, self.plan.fault_at(name));
        let (home, back) = mpsc::channel();
        (Lent::new(station, home), back)
    }

    fn subscriber<E: Send + Sync + 'static>(
        &self,
        topic: &Topic<E, Single>,
        name: &'static str,
    ) -> SubscriberBuilder<E, Single> {
        let subscriber = topic.subscribe(name).wait(self.plan.wait.clone());
        match self.plan.core(name) {
            Some(core) => subscriber.pin(core),
            None => subscriber,
        }
    }
}

/// Stages come back when their handlers are dropped, which may be just after the engine's report.
fn returned<S>(name: &str, back: &Receiver<Station<S>>) -> Result<Station<S>, String> {
    back.recv_timeout(DRAIN).map_err(|_| format!("stage `{name}` did not end within {} s", DRAIN.as_secs()))
}

fn publish(
    engine: &Engine,
    feed: &Feed,
    plan: &Plan,
    clock: Clock,
    mut producer: Producer<OrderSlot, Single>,
) -> Result<(), String> {
    if let Some(core) = plan.core("publisher") {
        pin::pin_current(core).map_err(|error| format!("publisher: {error}"))?;
    }
    producer.set_wait(plan.wait.clone());
    let begun_ns = clock.now_ns();
    let begun_ms = feed.orders.first().map_or(0, |order| order.time_ms);
    let due_ns = |order: &Order| match plan.speed {
        Speed::Max => None,
        Speed::Times(times) => {
            let gap = order.time_ms.saturating_sub(begun_ms).saturating_mul(1_000_000) / u64::from(times);
            Some(begun_ns.saturating_add(gap))
        }
    };
    let pace = |order: &Order| due_ns(order).into_iter().for_each(|due_ns| wait_until(clock, due_ns));
    let mut forward = |order: &Order, due_ns: Option<u64>| {
        let published = producer.publish(|slot| {
            slot.order = *order;
            slot.sent_ns = due_ns.unwrap_or_else(|| clock.now_ns());
        });
        published.map(drop).map_err(text)
    };
    match &plan.journal {
        // Latency counts from the journal on: rows of an earlier run were due long ago.
        Some(_) => journal::through(engine, plan.capacity, feed, pace, |order| forward(order, None)),
        None => feed.orders.iter().try_for_each(|order| {
            pace(order);
            forward(order, due_ns(order))
        }),
    }
}

/// Sleeps while the time is far off, for a sleep ends late; then gives way until it has come.
fn wait_until(clock: Clock, due_ns: u64) {
    const NEAR_NS: u64 = 200_000;
    loop {
        match due_ns.saturating_sub(clock.now_ns()) {
            0 => return,
            1..=NEAR_NS => std::thread::yield_now(),
            left => std::thread::sleep(Duration::from_nanos(left - NEAR_NS)),
        }
    }
}

/// What was seen of each consumer while the run went on: the largest lag, and the stalls so far.
#[derive(Default)]
struct Lags(Vec<(String, u64, u64)>);

impl Lags {
    /// Shows progress and reads lags until the publisher is done; gives what it says.
    fn watch<T>(
        &mut self,
        engine: &Engine,
        total: u64,
        progress: bool,
        published: &Receiver<Result<T, String>>,
    ) -> Result<T, String> {
        let bar = if progress { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let style = "{bar:40} {human_pos} of {human_len} events, {per_sec}";
        bar.set_style(ProgressStyle::with_template(style).expect("a template without errors"));
        let result = loop {
            let result = published.recv_timeout(LOOK);
            let metrics = engine.metrics();
            for consumer in metrics.topics.iter().flat_map(|topic| &topic.consumers) {
                self.see(&consumer.name, consumer.lag, consumer.stalls);
            }
            let signal = metrics.topic("orders").and_then(|orders| orders.consumer("signal"));
            bar.set_position(signal.map_or(0, |signal| signal.consumed));
            match result {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(result) => break result,
                Err(RecvTimeoutError::Disconnected) => break Err("the publisher broke".into()),
            }
        };
        bar.finish_and_clear();
        result
    }

    fn see(&mut self, name: &str, lag: u64, stalls: u64) {
        match self.0.iter_mut().find(|seen| seen.0 == name) {
            Some(seen) => *seen = (name.to_owned(), lag.max(seen.1), stalls),
            None => self.0.push((name.to_owned(), lag, stalls)),
        }
    }

    fn of(&self, name: &str) -> (u64, u64) {
        self.0.iter().find(|seen| seen.0 == name).map_or((0, 0), |seen| (seen.1, seen.2))
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("100x".parse(), Ok(Speed::Times(100)));
        for bad in ["", "x", "0x", "-1x", "1.5x", "100"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
        assert_eq!("auto".parse(), Ok(Pin::Auto));
        assert_eq!("0,3".parse(), Ok(Pin::Cores(vec![0, 3])));
        assert!("0,".parse::<Pin>().is_err());
        let fault = Fault { stage: "depth".into(), at: 7 };
        assert_eq!("panic:depth@7".parse(), Ok(fault));
        for bad in ["depth@7", "panic:depth", "panic:publisher@1", "panic:depth@x"] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }

    #[test]
    fn few_cores_are_shared_in_turn() {
        let plan = |pin| Plan::new(Speed::Max, Wait::spin_yield(), pin, 2, None);
        let allowed = pin::allowed_cores();
        let (first, last) = (allowed[0], allowed[allowed.len() - 1]);
        let shared = plan(Pin::Cores(vec![first, last])).unwrap();
        let cores = THREADS.map(|name| shared.core(name).unwrap());
        assert_eq!(cores, [first, last, first, last, first]);
        assert!(plan(Pin::Cores(vec![first, 99_999])).unwrap_err().contains("core 99999 is none of those"));
        assert!(plan(Pin::Cores(vec![0; 6])).unwrap_err().contains("6 cores for 5 threads"));
        assert_eq!(plan(Pin::None).unwrap().core("book"), None);
    }
}
