//! `slipring queue`: what queues have in a journal, and mending them.

use super::journal::records::{message, put_bytes};
use super::journal::{Directory, Done, Failure, Looked, ended, plain, print_json, time};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use slipring::dead_letter::DeadLetter;
use slipring::journal::{Journal, Options, Writer, open};
use slipring::queue::recorded::{ChangeError, RecordedMessage, RecordedQueue, Standing, find, queues};
use slipring::text;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Looks at the queues of a journal, and mends them: what is leased, delayed, dead.
///
/// `ls`, `describe` and `peek` read beside a program that has the journal open: what that has not written yet they do not
/// see. `purge` and `redrive` need the journal for themselves; a program that runs has the same as methods of its `Queue`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  slipring queue ls ./journal
  slipring queue describe ./journal jobs resize --json
  slipring queue peek ./journal jobs resize --dead -n 3
  slipring queue redrive ./journal jobs resize -n 100
  slipring queue purge ./journal jobs resize --dead

A value that is text is printed in one line, with \\\\ for a backslash and escapes such as \\n or \\u{1b} for characters that a
terminal would obey or hide; any other value as 0x and hexadecimal digits. Text that begins with 0x has \\u{30} for its zero.

Exit codes:
  0  done
  1  it could not be done: no such queue, no journal there, a program has it open, the disk fails
  2  the command line was not understood
  3  the journal is damaged
  5  a newer program wrote it";

#[derive(Subcommand)]
enum Command {
    /// List the queues: how many messages are unread, leased, waiting, dying, dead
    Ls(Ls),
    /// Show a queue's settings, where it stands in each partition, and the messages that are out
    Describe(Describe),
    /// Print messages that nobody has a lease on, or the dead letters, and leave them where they are
    #[command(after_help = EXAMPLES)]
    Peek(Peek),
    /// Delete the messages that nobody has a lease on, or the dead letters. There is no way back
    #[command(after_help = EXAMPLES)]
    Purge(Purge),
    /// Send dead letters back to their queue, the oldest first, their attempts counted anew
    #[command(after_help = EXAMPLES)]
    Redrive(Redrive),
}

#[derive(Args)]
struct Ls {
    #[command(flatten)]
    directory: Directory,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A queue of a journal.
#[derive(Args)]
struct Named {
    #[command(flatten)]
    directory: Directory,
    /// Its topic
    topic: String,
    /// Its name
    queue: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Describe {
    #[command(flatten)]
    of: Named,
    /// Print no more than so many of the messages that are out
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    limit: usize,
}

#[derive(Args)]
struct Peek {
    #[command(flatten)]
    of: Named,
    /// The dead letters
    #[arg(long)]
    dead: bool,
    /// Print no more than so many
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    limit: usize,
}

#[derive(Args)]
struct Purge {
    #[command(flatten)]
    of: Named,
    /// The dead letters, and not the messages
    #[arg(long)]
    dead: bool,
}

#[derive(Args)]
struct Redrive {
    #[command(flatten)]
    of: Named,
    /// No more than so many
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    ended(match &arguments.command {
        Command::Ls(arguments) => ls(arguments),
        Command::Describe(arguments) => describe(arguments),
        Command::Peek(arguments) => peek(arguments),
        Command::Purge(arguments) => purge(arguments),
        Command::Redrive(arguments) => redrive(arguments),
    })
}

impl From<ChangeError> for Failure {
    fn from(cause: ChangeError) -> Self {
        match cause {
            ChangeError::Read(cause) => cause.into(),
            cause => Self::new(1, cause),
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn journal_of(looked: &Looked) -> Journal {
    looked.survey.journal(Arc::clone(&looked.storage))
}

impl Named {
    fn find(&self, looked: &Looked) -> Result<RecordedQueue, Failure> {
        let state = looked.survey.state();
        find(state, &self.topic, &self.queue).ok_or_else(|| {
            let known: Vec<_> = queues(state).iter().map(|it| format!("{}/{}", it.topic.name, it.name)).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            Failure::new(1, format!("the journal has no queue {:?} of topic {:?}: {known}", self.queue, self.topic))
        })
    }

    /// Changes the queue in a journal that nobody else has open. How many messages that was for.
    fn change(
        &self,
        what: &str,
        change: impl FnOnce(&RecordedQueue, &mut Writer, u64) -> Result<u64, ChangeError>,
    ) -> Done {
        let looked = self.directory.look(false, &mut |_| {})?;
        self.find(&looked)?;
        let segment_size = looked.survey.segments().last().map_or(64 << 20, |last| last.header.size);
        let storage = Arc::clone(&looked.storage);
        // What is damaged is for `slipring journal repair`.
        looked.end()?;
        let (mut writer, recovered) = open(storage, Options { segment_size, ..Options::default() })?;
        let queue = find(&recovered.state, &self.topic, &self.queue);
        let queue = queue.ok_or_else(|| Failure::new(1, "the queue was deleted meanwhile"))?;
        let changed = change(&queue, &mut writer, now());
        writer.close(now()).map_err(|cause| Failure::new(1, cause))?;
        let changed = changed?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let what = what.replace(' ', "_");
            let document = json!({ "version": 1, "topic": self.topic, "queue": self.queue, what: changed });
            print_json(&mut out, &document)?;
        } else {
            writeln!(out, "{what}: {changed}")?;
        }
        Ok(())
    }
}

fn unread(queue: &RecordedQueue, journal: &Journal) -> u64 {
    (0..queue.topic.partitions).map(|partition| queue.unread_messages(journal, partition)).sum()
}

fn letters(queue: &RecordedQueue, journal: &Journal) -> Option<usize> {
    queue.dead_letters(journal, usize::MAX).ok().map(|letters| letters.len())
}

fn ls(arguments: &Ls) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let journal = journal_of(&looked);
    let listed = queues(looked.survey.state());
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed: Vec<_> = listed
            .iter()
            .map(|queue| {
                json!({
                    "topic": queue.topic.name, "queue": queue.name, "unread": unread(queue, &journal),
                    "leased": queue.leased(), "waiting": queue.waiting(), "dying": queue.dying(),
                    "dead_letters": letters(queue, &journal),
                })
            })
            .collect();
        print_json(&mut out, &json!({ "version": 1, "queues": listed }))?;
        return looked.end();
    }
    let titles = ["topic", "queue", "unread", "leased", "waiting", "dying", "dead"];
    let [topic, name, unread_title, leased, waiting, dying, dead] = titles;
    writeln!(out, "{topic:<20} {name:<20} {unread_title:>10} {leased:>8} {waiting:>8} {dying:>6} {dead:>8}")?;
    for queue in &listed {
        let dead = letters(queue, &journal).map_or_else(|| "?".to_owned(), |dead| dead.to_string());
        let (left, leased, waiting, dying) = (unread(queue, &journal), queue.leased(), queue.waiting(), queue.dying());
        let (topic, name) = (plain(&queue.topic.name), plain(&queue.name));
        writeln!(out, "{topic:<20} {name:<20} {left:>10} {leased:>8} {waiting:>8} {dying:>6} {dead:>8}")?;
    }
    looked.end()
}

/// What a message waits for, and until when.
fn standing(of: &Standing) -> (&'static str, Option<u64>, Option<&str>) {
    match of {
        Standing::Leased(until) => ("leased", Some(until.as_nanos()), None),
        Standing::Waiting(due) => ("waiting", Some(due.as_nanos()), None),
        Standing::Dying(reason) => ("dying", None, Some(reason)),
        Standing::Unread => ("unread", None, None),
        _ => ("unknown", None, None),
    }
}

fn until(at: Option<u64>) -> String {
    match at {
        Some(at) if at <= now() => "due".to_owned(),
        Some(u64::MAX) => "for ever".to_owned(),
        Some(at) => time(at),
        None => String::new(),
    }
}

fn as_json(message: &RecordedMessage) -> Value {
    let (state, at, reason) = standing(&message.standing);
    let RecordedMessage { partition, offset, attempts, .. } = message;
    json!({
        "partition": partition, "offset": offset, "attempts": attempts, "state": state, "until_ns": at, "reason": reason,
    })
}

fn describe(arguments: &Describe) -> Done {
    let looked = arguments.of.directory.look(false, &mut |_| {})?;
    let (queue, journal) = (arguments.of.find(&looked)?, journal_of(&looked));
    let mut out = std::io::stdout().lock();
    let out_of = queue.messages.iter().take(arguments.limit);
    let places = (0..queue.topic.partitions)
        .map(|partition| (partition, queue.unread(&journal, partition), queue.unread_messages(&journal, partition)));
    let visibility = queue.visibility;
    if arguments.of.json {
        let places: Vec<_> = places
            .map(|(partition, (next, end), unread)| {
                json!({ "partition": partition, "next": next, "end": end, "unread": unread })
            })
            .collect();
        let document = json!({
            "version": 1, "topic": queue.topic.name, "queue": queue.name,
            "visibility_ms": u64::try_from(visibility.as_millis()).unwrap_or(u64::MAX),
            "max_attempts": queue.max_attempts, "order": if queue.strict { "strict" } else { "relaxed" },
            "max_outstanding": queue.max_outstanding, "dead_letter_topic": queue.dead_topic,
            "partitions": places, "leased": queue.leased(), "waiting": queue.waiting(), "dying": queue.dying(),
            "dead_letters": letters(&queue, &journal), "messages": out_of.map(as_json).collect::<Vec<_>>(),
        });
        print_json(&mut out, &document)?;
        return looked.end();
    }
    let attempts = queue.max_attempts.map_or_else(|| "unlimited".to_owned(), |attempts| attempts.to_string());
    let order = if queue.strict { "strict" } else { "relaxed" };
    writeln!(out, "queue        {} of topic {}", plain(&queue.name), plain(&queue.topic.name))?;
    writeln!(
        out,
        "opened with  leases of {visibility:?}, {attempts} attempts, {order} order, at most {} out",
        queue.max_outstanding
    )?;
    let dead = letters(&queue, &journal).map_or_else(|| "not in this journal".to_owned(), |dead| dead.to_string());
    writeln!(out, "dead letters {dead}, in topic {}", plain(&queue.dead_topic))?;
    writeln!(out, "out          {} leased, {} waiting, {} dying", queue.leased(), queue.waiting(), queue.dying())?;
    let [partition, next, end, unread] = ["partition", "next", "end", "unread"];
    writeln!(out, "\n{partition:>9} {next:>12} {end:>12} {unread:>12}")?;
    for (partition, (next, end), unread) in places {
        writeln!(out, "{partition:>9} {next:>12} {end:>12} {unread:>12}")?;
    }
    if !queue.messages.is_empty() {
        let [partition, offset, attempts, state] = ["partition", "offset", "attempts", "state"];
        writeln!(out, "\n{partition:>9} {offset:>12} {attempts:>8}  {state:<8} until")?;
    }
    for message in out_of {
        let (state, at, reason) = standing(&message.standing);
        let RecordedMessage { partition, offset, attempts, .. } = message;
        let until = reason.map_or_else(|| until(at), plain);
        writeln!(out, "{partition:>9} {offset:>12} {attempts:>8}  {state:<8} {until}")?;
    }
    looked.end()
}

/// Key and value, where the topic's events are messages; else all bytes.
fn parts(is_message: bool, bytes: &[u8]) -> (Option<Vec<u8>>, Vec<u8>) {
    match message(bytes).filter(|_| is_message) {
        Some((key, _, value)) => (key, value),
        None => (None, bytes.to_vec()),
    }
}

fn with_value(mut line: Value, key: Option<&[u8]>, value: &[u8]) -> Value {
    if let Value::Object(line) = &mut line {
        key.into_iter().for_each(|key| put_bytes(line, "key", key));
        put_bytes(line, "value", value);
    }
    line
}

fn key_and_value(key: Option<&[u8]>, value: &[u8]) -> String {
    let key = key.map_or_else(String::new, |key| format!("{} = ", text::value(key)));
    format!("{key}{}", text::value(value))
}

fn peek(arguments: &Peek) -> Done {
    let looked = arguments.of.directory.look(false, &mut |_| {})?;
    let (queue, journal) = (arguments.of.find(&looked)?, journal_of(&looked));
    let mut out = std::io::stdout().lock();
    let json = arguments.of.json;
    if arguments.dead {
        for letter in queue.dead_letters(&journal, arguments.limit)? {
            let DeadLetter { partition, offset, attempts, reason, message, .. } = letter;
            if json {
                let line = json!({ "partition": partition, "offset": offset, "attempts": attempts, "reason": reason });
                let line = with_value(line, message.key(), message.value());
                print_json(&mut out, &line)?;
            } else {
                let (reason, shown) = (plain(&reason), key_and_value(message.key(), message.value()));
                writeln!(out, "{partition}@{offset} after {attempts} attempts, {reason}: {shown}")?;
            }
        }
        return looked.end();
    }
    let is_message = queue.topic.max_message > 0;
    let (mut left, mut failed) = (arguments.limit, None);
    queue.peek(&journal, |message, bytes| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let (key, value) = parts(is_message, bytes);
        let written = if json {
            let line = with_value(as_json(message), key.as_deref(), &value);
            print_json(&mut out, &line)
        } else {
            let (state, at, _) = standing(&message.standing);
            let RecordedMessage { partition, offset, attempts, .. } = message;
            let (until, shown) = (until(at), key_and_value(key.as_deref(), &value));
            writeln!(out, "{partition}@{offset} {state} {until} after {attempts} attempts: {shown}")
        };
        failed = written.err();
        failed.is_none() && left > 0
    })?;
    failed.map_or(Ok(()), |cause| Err(cause.into())).and_then(|()| looked.end())
}

fn purge(arguments: &Purge) -> Done {
    arguments.of.change("purged", |queue, writer, time| match arguments.dead {
        true => queue.purge_dead_letters(writer, time),
        false => queue.purge(writer, time),
    })
}

fn redrive(arguments: &Redrive) -> Done {
    let limit = arguments.limit.unwrap_or(u64::MAX);
    arguments.of.change("sent back", |queue, writer, time| queue.redrive(writer, limit, time))
}
