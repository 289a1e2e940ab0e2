//! The scenarios, and their topologies as `--help` draws them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A shape of work: who publishes, who consumes, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// One producer, one consumer
    Spsc,
    /// The multi-producer ring with one active producer
    #[value(name = "mpsc-1")]
    #[serde(rename = "mpsc-1")]
    MpscOne,
    /// The multi-producer ring with two producers
    #[value(name = "mpsc-2")]
    #[serde(rename = "mpsc-2")]
    MpscTwo,
    /// Many producers (--producers, 2 by default), one consumer
    Mpsc,
    /// One producer, consumers that each see every event
    Fanout,
    /// One producer, then three stages behind one another
    Pipeline,
    /// One producer, two stages side by side, one stage behind both
    Diamond,
    /// One producer, workers that share the events among them
    WorkSharing,
    /// A request through one ring, its answer through another
    PingPong,
    /// A consumer asleep on an idle ring is woken by one event
    IdleWake,
    /// A message each 10 microseconds by a schedule; latency from its intended time (peers only)
    #[value(name = "open-100k")]
    #[serde(rename = "open-100k")]
    OpenSlow,
    /// The same with a message each microsecond (peers only)
    #[value(name = "open-1m")]
    #[serde(rename = "open-1m")]
    OpenFast,
    /// The work of spsc through the engine: a topic and a subscriber
    Topic,
    /// The same through a topic that takes many producers (peers only)
    TopicMulti,
    /// Messages of 128 bytes with a key, through a topic of four partitions (peers only)
    Message,
    /// One producer, and a group of one member, which commits each batch
    Group,
    /// Rings between processes: all that follow here with `shared` in their names (peers only)
    Shared,
    /// A producer and a consumer in a process each (peers only)
    SharedSpsc,
    /// The same through a ring that takes several producers (peers only)
    #[value(name = "shared-mpsc-1")]
    #[serde(rename = "shared-mpsc-1")]
    SharedMpscOne,
    /// Two producers and a consumer in a process each (peers only)
    #[value(name = "shared-mpsc-2")]
    #[serde(rename = "shared-mpsc-2")]
    SharedMpscTwo,
    /// Three producers and a consumer in a process each (peers only)
    #[value(name = "shared-mpsc-3")]
    #[serde(rename = "shared-mpsc-3")]
    SharedMpscThree,
    /// A request to another process, and its answer (peers only)
    SharedPingPong,
    /// A durable topic (a command of its own: journal)
    Journal,
    /// Consume, transform, produce (a command of its own: transform)
    Transform,
}

impl Scenario {
    /// The name on the command line and in every result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spsc => "spsc",
            Self::MpscOne => "mpsc-1",
            Self::MpscTwo => "mpsc-2",
            Self::Mpsc => "mpsc",
            Self::Fanout => "fanout",
            Self::Pipeline => "pipeline",
            Self::Diamond => "diamond",
            Self::WorkSharing => "work-sharing",
            Self::PingPong => "ping-pong",
            Self::IdleWake => "idle-wake",
            Self::OpenSlow => "open-100k",
            Self::OpenFast => "open-1m",
            Self::Topic => "topic",
            Self::TopicMulti => "topic-multi",
            Self::Message => "message",
            Self::Group => "group",
            Self::Shared => "shared",
            Self::SharedSpsc => "shared-spsc",
            Self::SharedMpscOne => "shared-mpsc-1",
            Self::SharedMpscTwo => "shared-mpsc-2",
            Self::SharedMpscThree => "shared-mpsc-3",
            Self::SharedPingPong => "shared-ping-pong",
            Self::Journal => "journal",
            Self::Transform => "transform",
        }
    }

    /// The scenarios whose threads are in processes of their own: what [`Shared`](Self::Shared) stands for.
    pub const BETWEEN_PROCESSES: [Self; 5] =
        [Self::SharedSpsc, Self::SharedMpscOne, Self::SharedMpscTwo, Self::SharedMpscThree, Self::SharedPingPong];

    /// True if its producers and its consumer are in a process each.
    pub fn is_between_processes(self) -> bool {
        Self::BETWEEN_PROCESSES.contains(&self)
    }

    /// The stages of the ring, each with the stages that it reads after. A fanout has `consumers` stages.
    pub fn stages(self, consumers: usize) -> Vec<(String, &'static [&'static str])> {
        let stage = |name: &str, after: &'static [&'static str]| (name.to_owned(), after);
        match self {
            Self::Fanout => (0..consumers).map(|index| (format!("c{index}"), &[][..])).collect(),
            Self::Pipeline => vec![stage("a", &[]), stage("b", &["a"]), stage("c", &["b"])],
            Self::Diamond => vec![stage("a", &[]), stage("b", &[]), stage("c", &["a", "b"])],
            _ => vec![stage("a", &[])],
        }
    }

    /// The topology in ASCII.
    pub fn topology(self) -> &'static str {
        match self {
            Self::Spsc => {
                r"
    +----------+     +--------+     +----------+
    | producer |---->|  ring  |---->| consumer |
    +----------+     +--------+     +----------+
    core p           capacity N     core c

  One thread publishes, another reads every event. The producer is a
  single-producer ring: it uses no read-modify-write instruction."
            }
            Self::MpscOne => {
                r"
    +----------+     +----------------+     +----------+
    | producer |---->| multi-producer |---->| consumer |
    +----------+     |      ring      |     +----------+
                     +----------------+

  The ring takes many producers, one of them is active: the price of being
  ready for the others."
            }
            Self::MpscTwo | Self::Mpsc => {
                r"
    +------------+
    | producer 0 |---+     +----------------+     +----------+
    +------------+   +---->| multi-producer |---->| consumer |
    | producer 1 |---+     |      ring      |     +----------+
    +------------+         +----------------+

  Each producer's own order is verified by the consumer."
            }
            Self::Fanout => {
                r"
                                  +------------+
                             +--->| consumer 0 |
    +----------+   +------+  |    +------------+
    | producer |-->| ring |--+
    +----------+   +------+  |    +------------+
                             +--->| consumer 1 |
                                  +------------+

  Every consumer sees every event. The slowest one holds the producer back."
            }
            Self::Pipeline => {
                r"
    +----------+   +------+   +---------+   +---------+   +---------+
    | producer |-->| ring |-->| stage 0 |-->| stage 1 |-->| stage 2 |
    +----------+   +------+   +---------+   +---------+   +---------+

  Stages read the same slots, each behind the one before it. The latency of
  the last stage is reported."
            }
            Self::Diamond => {
                r"
                              +---------+
                         +--->| stage 0 |---+
    +----------+  +----+ |    +---------+   |    +---------+
    | producer |->|ring|-+                  +--->| stage 2 |
    +----------+  +----+ |    +---------+   |    +---------+
                         +--->| stage 1 |---+
                              +---------+

  Two stages side by side, the last one behind both. The latency of the last
  stage is reported."
            }
            Self::WorkSharing => {
                r"
                                  +----------+
                             +--->| worker 0 |  takes 1, 4, ...
    +----------+   +------+  |    +----------+
    | producer |-->| ring |--+
    +----------+   +------+  |    +----------+
                             +--->| worker 1 |  takes 2, 3, ...
                                  +----------+

  Each event goes to exactly one worker."
            }
            Self::PingPong => {
                r"
    +--------+   ring A   +--------+
    |        |----------->|        |
    | client |            | server |
    |        |<-----------|        |
    +--------+   ring B   +--------+

  One message is in flight at a time. A round trip runs from before the
  request's publication to the reading of the verified answer."
            }
            Self::IdleWake => {
                r"
    +----------+     +------+     +------------------+
    | producer |---->| ring |---->| consumer, asleep |
    +----------+     +------+     +------------------+
     one event, then silence for long enough to fall asleep

  From before publication to the reading by the woken consumer."
            }
            Self::OpenSlow | Self::OpenFast => {
                r"
    +----------+     +--------+     +----------+
    | producer |---->|  ring  |---->| consumer |
    +----------+     +--------+     +----------+
     by a schedule

  100,000 or a million messages a second. From the time at which a message
  was to be sent to its reading, also if the one before it held it up."
            }
            Self::Topic => {
                r"
    +----------+     +-----------------+     +------------+
    | producer |---->| engine: a topic |---->| subscriber |
    +----------+     +-----------------+     +------------+

  The work of spsc through the engine, so that its cost over the bare ring
  can be read off."
            }
            Self::TopicMulti => {
                r"
    +----------+     +-----------------+     +------------+
    | producer |---->| engine: a topic |---->| subscriber |
    +----------+     +-----------------+     +------------+

  The same through a topic that takes any number of producers, against the
  multi-producer ring with an idle producer beside the one that publishes."
            }
            Self::Message => {
                r"
                      +---------------------+
    +----------+     +---------------------+|     +------------+
    | producer |---->| topic, 4 partitions |+---->| subscriber |
    +----------+     +---------------------+      +------------+
     key, 128 bytes

  Copied into the slots of the partition that the key's hash names. The
  rival allocates a vector a message and sends it through one channel with
  as many slots in all."
            }
            Self::Group => {
                r"
    +----------+     +-----------------+     +----------------+
    | producer |---->| engine: a topic |---->| group, 1 member |
    +----------+     +-----------------+     +----------------+
                                              poll, read, commit

  The work of topic, read by the only member of a group, which commits each
  batch, so that its cost over a bare poll can be read off."
            }
            Self::Shared | Self::SharedSpsc | Self::SharedMpscOne => {
                r"
      process 1             memory of both         process 2
    +----------+     +-------------------------+     +----------+
    | producer |---->| ring, pipe, socket, ... |---->| consumer |
    +----------+     +-------------------------+     +----------+
    core p                                           core c

  The work of spsc between two processes, and between threads of one: the
  rows that begin with threads-. The consumer verifies every message."
            }
            Self::SharedMpscTwo | Self::SharedMpscThree => {
                r"
    +------------+
    | producer 0 |---+     +-------------+     +----------+
    +------------+   +---->| shared ring |---->| consumer |
    | producer 1 |---+     +-------------+     +----------+
    +------------+
     a process each                             a process

  Should one of the producers be killed in its claim, whoever waits for it
  skips the claim."
            }
            Self::SharedPingPong => {
                r"
     process 1                      process 2
    +--------+   ring, pipe, ...   +--------+
    |        |-------------------->|        |
    | client |                     | server |
    |        |<--------------------|        |
    +--------+   another one       +--------+

  One message is in flight at a time. A round trip runs from before the
  request's publication to the reading of the verified answer."
            }
            Self::Journal => "\n  A durable topic: `bench-harness journal`.",
            Self::Transform => "\n  Consume, transform, produce in one atomic frame: `bench-harness transform`.",
        }
    }

    /// A sentence about the scenario.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Spsc => "one producer, one consumer",
            Self::MpscOne => "the multi-producer ring with one active producer, one consumer",
            Self::MpscTwo => "two producers, one consumer",
            Self::Mpsc => "many producers (--producers), one consumer",
            Self::Fanout => "one producer, consumers (--consumers) that each see every event",
            Self::Pipeline => "one producer, three stages behind one another",
            Self::Diamond => "one producer, two stages side by side, one stage behind both",
            Self::WorkSharing => "one producer, workers (--consumers) that share the events",
            Self::PingPong => "a request through one ring, its answer through another",
            Self::IdleWake => "a sleeping consumer woken by one event",
            Self::OpenSlow => "100,000 messages a second by a schedule, one producer, one consumer",
            Self::OpenFast => "a million messages a second by a schedule, one producer, one consumer",
            Self::Topic => "one producer and one subscriber through the engine",
            Self::TopicMulti => "the same through a topic that takes many producers",
            Self::Message => "messages of 128 bytes with a key, through a topic of four partitions",
            Self::Group => "one producer and a group of one member, which commits each batch",
            Self::Shared => "rings between processes: all whose names begin with shared-",
            Self::SharedSpsc => "one producer, one consumer, each a process",
            Self::SharedMpscOne => "the multi-producer ring with one active producer, one consumer, each a process",
            Self::SharedMpscTwo => "two producers, one consumer, each a process",
            Self::SharedMpscThree => "three producers, one consumer, each a process",
            Self::SharedPingPong => "a request to another process, and its answer",
            Self::Journal => "a durable topic (`bench-harness journal`)",
            Self::Transform => "consume, transform, produce (`bench-harness transform`)",
        }
    }

    /// The command of its own that measures this scenario, in words; `None` if `run` or `peers` measures it.
    pub fn awaits(self) -> Option<&'static str> {
        match self {
            Self::Journal => Some("a command of its own, `bench-harness journal`"),
            Self::Transform => Some("a command of its own, `bench-harness transform`"),
            _ => None,
        }
    }
}

/// The drawings of these scenarios, for a command's long help.
pub fn gallery(scenarios: &[Scenario]) -> String {
    let mut text = String::from("SCENARIOS\n");
    for scenario in scenarios {
        text.push_str(&format!("\n{}: {}\n{}\n", scenario.name(), scenario.summary(), scenario.topology()));
    }
    text
}

/// The scenario of this name, if the command `takes` it. `other` is the command that measures the scenarios that this one
/// does not.
///
/// # Errors
///
/// The command that measures this scenario, and the names that `command` takes.
pub fn scenario_of(
    name: &str,
    takes: impl Fn(Scenario) -> bool,
    command: &str,
    other: &str,
) -> Result<Scenario, String> {
    let found = Scenario::from_str(name, false).ok();
    if let Some(scenario) = found.filter(|scenario| takes(*scenario)) {
        return Ok(scenario);
    }
    let names: Vec<_> =
        Scenario::value_variants().iter().filter(|it| takes(**it)).map(|scenario| scenario.name()).collect();
    let why = match found.map(|scenario| (scenario, scenario.awaits())) {
        Some((_, Some(own))) => format!("it comes with {own}; "),
        Some((_, None)) => format!("use {other} for it; "),
        None => String::new(),
    };
    Err(format!("{why}{command} measures {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_scenario_names_its_command_and_those_that_there_are() {
        let takes = |scenario| matches!(scenario, Scenario::Spsc | Scenario::Group);
        let refused = |name| scenario_of(name, takes, "run", "peers").unwrap_err();
        assert_eq!(scenario_of("group", takes, "run", "peers"), Ok(Scenario::Group));
        assert_eq!(refused("nonsense"), "run measures spsc, group");
        assert_eq!(refused("message"), "use peers for it; run measures spsc, group");
        assert!(refused("journal").starts_with("it comes with a command of its own, `bench-harness journal`; run"));
    }
}
