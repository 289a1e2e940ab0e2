//! The contenders: our rings and topics, the rivals, and the floor.

use super::floor;
use super::link::{Link, NoFigure, Round, Shape, Work, measure};
use super::ours;
use super::waiting::{Native, Spin, WaitClass, Yield};
use crate::scenario::Scenario;

/// The sizes of a message, in words: 8, 64 and 256 bytes.
pub const WORDS: [usize; 3] = [1, 8, 32];

/// The origin of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The contender belongs to this project.
    Ours,
    /// The contender belongs to another project.
    Rival,
    /// The contender does only the least that a ring must do, for comparison.
    Floor,
}

/// Measures one round of a scenario.
pub type Measure = fn(Scenario, &Work) -> Result<Round, NoFigure>;

/// A contender: a row of a table.
#[derive(Clone)]
pub struct Contender {
    /// Its name in tables and in `peers.json`.
    pub name: String,
    /// The name in `--with` that includes it. Contenders with another name (`ours`, `ring`, `java`, `floor`) are always
    /// included.
    pub group: &'static str,
    /// Its origin.
    pub family: Family,
    /// Measures one round.
    pub run: Measure,
}

impl Contender {
    pub fn new(name: &str, group: &'static str, family: Family, run: Measure) -> Self {
        Self { name: name.to_owned(), group, family, run }
    }
}

/// Calls a function with the number of words as a constant.
macro_rules! by_words {
    ($words:expr, $call:ident $(:: < $($types:ty),* >)? ( $($argument:expr),* )) => {
        match $words {
            1 => $call::<$($($types,)*)? 1>($($argument),*),
            8 => $call::<$($($types,)*)? 8>($($argument),*),
            _ => $call::<$($($types,)*)? 32>($($argument),*),
        }
    };
}

pub(crate) use by_words;

/// The traffic pattern of a scenario over a channel with one consumer; `None` if the scenario needs several stages.
pub fn shape(scenario: Scenario) -> Option<Shape> {
    match scenario {
        Scenario::Spsc
        | Scenario::MpscOne
        | Scenario::MpscTwo
        | Scenario::Topic
        | Scenario::TopicMulti
        | Scenario::Group
        | Scenario::SharedSpsc
        | Scenario::SharedMpscOne
        | Scenario::SharedMpscTwo
        | Scenario::SharedMpscThree => Some(Shape::Stream),
        Scenario::PingPong | Scenario::SharedPingPong => Some(Shape::PingPong),
        Scenario::IdleWake => Some(Shape::IdleWake),
        Scenario::OpenSlow | Scenario::OpenFast => Some(Shape::OpenLoop),
        _ => None,
    }
}

/// Measures one round on a link.
pub fn on_link<L: Link<1> + Link<8> + Link<32>>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    let Some(shape) = shape(scenario) else {
        return Err(NoFigure::NotApplicable("hands each message to one consumer, has no stages"));
    };
    if scenario == Scenario::MpscOne && !<L as Link<1>>::MANY_PRODUCERS {
        return Err(NoFigure::NotApplicable("takes one producer only"));
    }
    by_words!(work.words, measure::<L>(shape, work))
}

#[cfg(feature = "rivals")]
fn native<L: Link<1> + Link<8> + Link<32>>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    on_link::<L>(scenario, &Work { waiting: WaitClass::Native, ..work.clone() })
}

/// Measures a number's round trip in two cache lines.
pub fn line(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    if !matches!(scenario, Scenario::PingPong | Scenario::SharedPingPong) {
        return Err(NoFigure::NotApplicable("a bare line holds one number"));
    }
    match work.waiting {
        WaitClass::Spin => floor::bare_line::<Spin>(work),
        WaitClass::Yield => floor::bare_line::<Yield>(work),
        WaitClass::Native => floor::bare_line::<Native>(work),
    }
}

#[cfg(feature = "rivals")]
fn disruptor(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    use super::disruptor::{Polled, managed};
    match scenario {
        Scenario::PingPong | Scenario::OpenSlow | Scenario::OpenFast => on_link::<Polled>(scenario, work),
        Scenario::IdleWake => Err(NoFigure::NotApplicable("has no receive that sleeps")),
        _ => by_words!(work.words, managed(scenario, work)),
    }
}

#[cfg(feature = "rivals")]
fn disruptor_polled(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    if scenario != Scenario::Spsc {
        // Only spsc is measured both ways: `disruptor` has event pollers where latencies are measured, and managed
        // handlers elsewhere.
        return Err(NoFigure::NotApplicable("measured as `disruptor` here"));
    }
    on_link::<super::disruptor::Polled>(scenario, work)
}

/// A queue that has one form for one producer and one for several.
#[cfg(feature = "rivals")]
fn queue<One, Many>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure>
where
    One: Link<1> + Link<8> + Link<32>,
    Many: Link<1> + Link<8> + Link<32>,
{
    match scenario {
        Scenario::MpscOne | Scenario::MpscTwo => on_link::<Many>(scenario, work),
        _ => on_link::<One>(scenario, work),
    }
}

/// The groups that `--with` takes beside `native`.
pub const GROUPS: [&str; 14] = [
    "all",
    "none",
    "crossbeam",
    "crossfire",
    "rtrb",
    "disruptor",
    "gil",
    "kanal",
    "nexus",
    "flume",
    "std",
    "pipe",
    "socket",
    "iceoryx2",
];

/// The contenders of `scenario`, ours first, the floor last. A topic or a group has only the parts under it as rivals,
/// messages only a channel of vectors; these scenarios have no floor.
///
/// `groups` are names of [`GROUPS`] or `native`, which adds the channels' own blocking calls.
pub fn contenders(scenario: Scenario, groups: &[String]) -> Vec<Contender> {
    #[cfg(target_os = "linux")]
    if scenario.is_between_processes() {
        return super::shared::contenders(scenario, groups);
    }
    let mut all = Vec::new();
    all.extend(
        ours::contenders(scenario).into_iter().map(|(name, run)| Contender::new(name, "ours", Family::Ours, run)),
    );
    all.extend(ours::below(scenario).into_iter().map(|(name, run)| Contender::new(name, "ring", Family::Rival, run)));
    if matches!(scenario, Scenario::Topic | Scenario::TopicMulti | Scenario::Group) {
        // A topic is compared with its ring only. The ring is compared with the rivals in its own scenarios.
        return all;
    }
    #[cfg(feature = "rivals")]
    if scenario == Scenario::Message {
        let picked = groups.iter().any(|name| name == "all" || name == "crossbeam");
        let vectors = Contender::new("crossbeam+vec", "crossbeam", Family::Rival, super::messages::vectors);
        all.extend(picked.then_some(vectors));
    }
    if scenario == Scenario::Message {
        return all;
    }
    #[cfg(feature = "rivals")]
    {
        use super::channels::{Crossbeam, Crossfire, Flume, Kanal, Std};
        use super::queues::{GilMany, GilOne, NexusMany, NexusOne};
        use super::rtrb::Rtrb;
        let rival = |name, group, run| Contender::new(name, group, Family::Rival, run);
        let picked = |group: &str| groups.iter().any(|name| name == "all" || name == group);
        let rivals: [Contender; 16] = [
            rival("rtrb", "rtrb", on_link::<Rtrb<false>>),
            rival("rtrb+pause", "rtrb", on_link::<Rtrb<true>>),
            rival("disruptor", "disruptor", disruptor),
            rival("disruptor-poll", "disruptor", disruptor_polled),
            rival("nexus-queue", "nexus", queue::<NexusOne, NexusMany>),
            rival("gil", "gil", queue::<GilOne, GilMany>),
            rival("crossfire", "crossfire", on_link::<Crossfire>),
            rival("crossbeam", "crossbeam", on_link::<Crossbeam>),
            rival("kanal", "kanal", on_link::<Kanal>),
            rival("flume", "flume", on_link::<Flume>),
            rival("std", "std", on_link::<Std>),
            rival("crossbeam+block", "native", native::<Crossbeam>),
            rival("crossfire+block", "native", native::<Crossfire>),
            rival("kanal+block", "native", native::<Kanal>),
            rival("flume+block", "native", native::<Flume>),
            rival("std+block", "native", native::<Std>),
        ];
        all.extend(rivals.into_iter().filter(|contender| match contender.group {
            "native" => groups.iter().any(|name| name == "native"),
            group => picked(group),
        }));
    }
    #[cfg(not(feature = "rivals"))]
    let _ = groups;
    if super::java::is_prepared() {
        all.push(Contender::new("lmax-java", "java", Family::Rival, super::java::round));
    }
    let floor = |name, run| Contender::new(name, "floor", Family::Floor, run);
    if scenario == Scenario::PingPong {
        all.push(floor("bare-line", line));
    }
    if matches!(scenario, Scenario::OpenSlow | Scenario::OpenFast) {
        all.push(floor("bare-hiccups", |_, work| super::open_loop::hiccups(work)));
    }
    all.push(floor("bare-ring", on_link::<floor::BareRing<false>>));
    all.push(floor("bare-ring+pause", on_link::<floor::BareRing<true>>));
    all
}
