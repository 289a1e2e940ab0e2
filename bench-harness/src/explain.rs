//! `explain`: what a figure means and how it was measured.

use crate::failure::Failure;

const WORDS: &[(&str, &str)] = &[
    (
        "latency",
        "From the moment a message was meant to be sent to the moment the last consumer read it, in\n\
      nanoseconds, by the time-stamp counter. The clock is read once for each message on the consumer's side, right\n\
      before it is recorded. What that costs stands in the row `the harness itself`.",
    ),
    (
        "open loop",
        "The producer follows a schedule. If it is held up, messages are sent late but are still counted\n\
      from their intended times. So a stall of 5 ms at 100,000 messages a second is seen by 500 messages, not by one.",
    ),
    (
        "closed loop",
        "The producer sends the next message when the last one has arrived. While the consumer stands\n\
      still nothing is sent, so nothing waits, and a stall is seen by one message. This hides waiting (coordinated\n\
      omission). It is there to show what it hides: --loop both.",
    ),
    (
        "percentiles",
        "p99 is the value that 99 % of messages stayed below or at. A percentile is said only with at\n\
      least 100 messages at or above it: 200 for p50, 10,000 for p99, a million for p99.99. Otherwise it is n/a.\n\
      Values come from an HdrHistogram with three digits. Several runs are put into one histogram, and the spread\n\
      between runs is shown beside it.",
    ),
    ("max", "The largest single latency. It has one message behind it and says what did happen, not what will."),
    (
        "hiccup",
        "The same cores, no ring: a thread on each core keeps a schedule of a million times a second and\n\
      records how late it was. No ring can be better than that. If p99.9 of hiccups is near p99.9 of latencies, then\n\
      you measured the machine.",
    ),
    (
        "rate",
        "Messages sent in measured time over the time the sending took. If the producers needed more than 1 %\n\
      longer than asked, the rate was missed and the run is INVALID: its latencies belong to another rate.",
    ),
    (
        "valid",
        "Every message arrived once, in its producer's order, with every word intact, and the rate was reached.\n\
      INVALID says which of these does not hold; the exit code is 2.",
    ),
    ("drops", "With --full drop: messages that found the ring full. They have no latency and are counted apart."),
    (
        "knee",
        "In a sweep: the highest rate that was reached with a p99 of at most ten times the lowest p99 of the\n\
      walk. Beyond it, queues grow faster than they are read.",
    ),
    (
        "ratio",
        "In peers: ours against the other, for each round in which both ran, and the median of these. Above 1\n\
      ours is better. The interval holds 95 % of 2,000 bootstrap samples over the rounds. ahead and behind are said\n\
      only when the whole interval is on one side of 1.",
    ),
    (
        "rounds",
        "In peers: all contenders run in turn, A B C, B C A, and so on. What the machine does to one it does to\n\
      all. The figure is the median; the lowest and highest round stand beside it.",
    ),
    ("one by one", "Messages are published one at a time. A consumer may read what has gathered."),
    (
        "batch",
        "Messages are published in groups of --batch and read in groups. Contenders that can't publish a group at\n\
      once are N/A there: batching one side only would be cheating.",
    ),
    (
        "floor",
        "bare-ring is slots and two positions; bare-line is one number passed to and fro. They are not usable as\n\
      rings (no closing, no gates, no stages, no parking) and show what any ring has to pay. +pause adds our\n\
      consumers' short-batch pause.",
    ),
    ("rtrb+pause", "rtrb's own chunks with our consumers' short-batch pause: what is left is the ring's own share."),
    (
        "waiting",
        "spin: the processor's PAUSE. yield: spin a little, then give the core away; chosen when there are more\n\
      threads than cores. native: the contender's own blocking calls. All contenders of a table wait alike.",
    ),
    (
        "idle-wake",
        "One message after a silence that is long enough to fall asleep; from before its publication to the\n\
      reading by the woken consumer.",
    ),
    ("n/a", "Too few messages are behind this percentile. Run longer, or at a higher rate."),
];

/// Runs `explain`.
///
/// # Errors
///
/// [`Failure::Usage`] with the words that can be explained.
pub fn command(word: Option<&str>) -> Result<(), Failure> {
    let wanted = word.map(str::to_lowercase);
    let mut found = false;
    for (name, text) in WORDS {
        let hit = match wanted.as_deref() {
            None => true,
            Some(wanted) if wanted.starts_with('p') && wanted[1..].starts_with(char::is_numeric) => {
                *name == "percentiles"
            }
            Some(wanted) => name.contains(wanted),
        };
        if hit {
            found = true;
            let text: Vec<&str> = text.lines().map(str::trim).collect();
            println!("{name}\n  {}\n", text.join("\n  "));
        }
    }
    if found {
        return Ok(());
    }
    let names: Vec<&str> = WORDS.iter().map(|(name, _)| *name).collect();
    Err(Failure::usage(format!(
        "nothing is known about `{}`; there are: {}",
        word.unwrap_or_default(),
        names.join(", ")
    )))
}
