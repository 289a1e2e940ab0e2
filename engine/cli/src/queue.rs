//! `slipring queue`: shows and changes the queues of a journal.

use crate::failure::{Done, FAILED, Failure};
use crate::inspected::{Directory, Inspected, Listing};
use crate::output::{Table, cells, now, plain, print_json, put_bytes, tell, time};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use slipring::clock::Timestamp;
use slipring::dead_letter::DeadLetter;
use slipring::journal::{Journal, PartitionId, Writer};
use slipring::queue::recorded::{ChangeError, MessageState, RecordedMessage, RecordedQueue, find, queues};
use slipring::{Message, text};
use std::io::Write;

/// Shows and changes the queues of a journal: messages that are leased, delayed or dead.
///
/// `ls`, `describe` and `peek` also work while a program has the journal open, and show what that program has written
/// so far. `purge` and `redrive` need a journal that no program has open; a running program calls the methods of its
/// `Queue` instead. They act at once; with `--dry-run` they print what they would do.
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
  slipring queue purge ./journal jobs resize --dead --dry-run
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
    /// List the queues with their counts of unread, leased, waiting, dying and dead messages
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show a queue's settings, its next offset in each partition, and its unfinished messages
    Describe(Describe),
    /// Print the messages without a lease, or the dead letters, and leave them in place
    #[command(after_help = EXAMPLES)]
    Peek(Peek),
    /// Delete the messages without a lease, or the dead letters; this cannot be undone
    #[command(after_help = EXAMPLES)]
    Purge(Purge),
    /// Send dead letters back to their queue, the oldest first, with their attempts counted from 0
    #[command(after_help = EXAMPLES)]
    Redrive(Redrive),
}

/// The arguments that name a queue of a journal.
#[derive(Args)]
struct Named {
    #[command(flatten)]
    directory: Directory,
    /// The queue's topic
    topic: String,
    /// The queue's name
    queue: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Describe {
    #[command(flatten)]
    of: Named,
    /// The most messages to print
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    limit: usize,
}

#[derive(Args)]
struct Peek {
    #[command(flatten)]
    of: Named,
    /// Print the dead letters instead of the messages
    #[arg(long)]
    dead: bool,
    /// The most messages to print
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    limit: usize,
}

#[derive(Args)]
struct Purge {
    #[command(flatten)]
    of: Named,
    /// Delete the dead letters and keep the messages
    #[arg(long)]
    dead: bool,
    /// Print how many would be deleted, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct Redrive {
    #[command(flatten)]
    of: Named,
    /// The most dead letters to send back (default: all)
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,
    /// Print how many would be sent back, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    match &arguments.command {
        Command::Ls(arguments) => ls(arguments),
        Command::Describe(arguments) => describe(arguments),
        Command::Peek(arguments) => peek(arguments),
        Command::Purge(arguments) => purge(arguments),
        Command::Redrive(arguments) => redrive(arguments),
    }
}

impl Named {
    fn find(&self, inspected: &Inspected) -> Result<RecordedQueue, Failure> {
        let state = inspected.state();
        find(state, &self.topic, &self.queue).ok_or_else(|| {
            let known: Vec<_> = queues(state).iter().map(|it| format!("{}/{}", it.topic.name, it.name)).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            let cause = format!("the journal has no queue {:?} of topic {:?}: {known}", self.queue, self.topic);
            Failure::new(FAILED, cause)
        })
    }

    /// Changes the queue in a journal that no other program has open. Prints `what` with the count that `change`
    /// returns.
    fn change(
        &self,
        what: &str,
        change: impl FnOnce(&RecordedQueue, &mut Writer, u64) -> Result<u64, ChangeError>,
    ) -> Done {
        let inspected = self.directory.inspect()?;
        self.find(&inspected)?;
        let changed = inspected.change(|writer| {
            let queue = find(writer.state(), &self.topic, &self.queue);
            let queue = queue.ok_or_else(|| Failure::new(FAILED, "the queue was deleted meanwhile"))?;
            Ok(change(&queue, writer, now().as_nanos())?)
        })?;
        self.print(what, changed, false)
    }

    /// Prints `what` with the count of messages that `count` finds, and that nothing was changed. `count` gets the same queue
    /// as a change would.
    fn rehearse(&self, what: &str, count: impl FnOnce(&RecordedQueue, &Journal) -> Result<u64, ChangeError>) -> Done {
        let inspected = self.directory.inspect()?;
        let counted = count(&self.find(&inspected)?, &inspected.journal())?;
        self.print(what, counted, true)?;
        inspected.end()
    }

    fn print(&self, what: &str, count: u64, dry_run: bool) -> Done {
        let mut out = std::io::stdout().lock();
        if self.json {
            let what = what.replace(' ', "_");
            let document =
                json!({ "version": 1, "topic": self.topic, "queue": self.queue, "dry_run": dry_run, what: count });
            return print_json(&mut out, &document);
        }
        tell(&mut out, &format!("{what}: {count}"), dry_run)
    }
}

fn unread(queue: &RecordedQueue, journal: &Journal) -> u64 {
    (0..queue.topic.partitions).map(|partition| queue.unread_messages(journal, partition)).sum()
}

/// The number of a queue's dead letters.
fn letters(queue: &RecordedQueue, journal: &Journal) -> Result<u64, ChangeError> {
    Ok(queue.dead_letters(journal)?.try_fold(0, |count, letter| letter.map(|_| count + 1))?)
}

fn ls(arguments: &Listing) -> Done {
    let inspected = arguments.directory.inspect()?;
    let journal = inspected.journal();
    let listed = queues(inspected.state());
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed = listed.iter().map(|queue| {
            json!({
                "topic": queue.topic.name, "queue": queue.name, "unread": unread(queue, &journal),
                "leased": queue.leased(), "waiting": queue.waiting(), "dying": queue.dying(),
                "dead_letters": letters(queue, &journal).ok(),
            })
        });
        print_json(&mut out, &json!({ "version": 1, "queues": listed.collect::<Vec<_>>() }))?;
        return inspected.end();
    }
    let mut table = Table::new(&["topic", "queue", "unread", "leased", "waiting", "dying", "dead"], &[0, 1]);
    for queue in &listed {
        let dead = letters(queue, &journal).map_or_else(|_| "?".to_owned(), |dead| dead.to_string());
        let (unread, leased, waiting, dying) =
            (unread(queue, &journal), queue.leased(), queue.waiting(), queue.dying());
        table.row(cells![plain(&queue.topic.name), plain(&queue.name), unread, leased, waiting, dying, dead]);
    }
    write!(out, "{table}")?;
    inspected.end()
}

/// The name of a message's state, the time at which the state ends (`None` if it does not end by time), and the reason
/// (`None` unless the message is dying).
fn state(of: &MessageState) -> (&'static str, Option<Timestamp>, Option<&str>) {
    match of {
        MessageState::Leased(until) => ("leased", Some(*until), None),
        MessageState::Waiting(due) => ("waiting", Some(*due), None),
        MessageState::Dying(reason) => ("dying", None, Some(reason)),
        MessageState::Unread => ("unread", None, None),
        _ => ("unknown", None, None),
    }
}

fn until(at: Option<Timestamp>) -> String {
    match at {
        Some(at) if at <= now() => "due".to_owned(),
        Some(at) if at.as_nanos() == u64::MAX => "for ever".to_owned(),
        Some(at) => time(at.as_nanos()),
        None => String::new(),
    }
}

fn as_json(message: &RecordedMessage) -> Value {
    let (state, at, reason) = state(&message.state);
    let RecordedMessage { partition, offset, attempts, .. } = message;
    json!({
        "partition": partition, "offset": offset, "attempts": attempts, "state": state,
        "until_ns": at.map(Timestamp::as_nanos), "reason": reason,
    })
}

fn describe(arguments: &Describe) -> Done {
    let inspected = arguments.of.directory.inspect()?;
    let (queue, journal) = (arguments.of.find(&inspected)?, inspected.journal());
    let mut out = std::io::stdout().lock();
    let listed = queue.messages.iter().take(arguments.limit);
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
            "dead_letters": letters(&queue, &journal).ok(), "messages": listed.map(as_json).collect::<Vec<_>>(),
        });
        print_json(&mut out, &document)?;
        return inspected.end();
    }
    let attempts = queue.max_attempts.map_or_else(|| "unlimited".to_owned(), |attempts| attempts.to_string());
    let order = if queue.strict { "strict" } else { "relaxed" };
    writeln!(out, "queue        {} of topic {}", plain(&queue.name), plain(&queue.topic.name))?;
    writeln!(
        out,
        "opened with  leases of {visibility:?}, {attempts} attempts, {order} order, at most {} out",
        queue.max_outstanding
    )?;
    let dead = match letters(&queue, &journal) {
        Ok(dead) => dead.to_string(),
        Err(ChangeError::NoLetters { .. }) => "not in this journal".to_owned(),
        Err(cause) => format!("unreadable ({})", text::line(&cause)),
    };
    writeln!(out, "dead letters {dead}, in topic {}", plain(&queue.dead_topic))?;
    writeln!(out, "out          {} leased, {} waiting, {} dying", queue.leased(), queue.waiting(), queue.dying())?;
    let mut table = Table::new(&["partition", "next", "end", "unread"], &[]);
    for (partition, (next, end), unread) in places {
        table.row(cells![partition, next, end, unread]);
    }
    write!(out, "\n{table}")?;
    if !queue.messages.is_empty() {
        let mut table = Table::new(&["partition", "offset", "attempts", "state", "until"], &[3, 4]);
        for message in listed {
            let (state, at, reason) = state(&message.state);
            let RecordedMessage { partition, offset, attempts, .. } = message;
            table.row(cells![partition, offset, attempts, state, reason.map_or_else(|| until(at), plain)]);
        }
        write!(out, "\n{table}")?;
    }
    inspected.end()
}

/// The key and the value of a message. For any other event, `None` and all bytes.
fn parts(is_message: bool, bytes: &[u8]) -> (Option<Vec<u8>>, Vec<u8>) {
    match Message::decode(bytes).filter(|_| is_message) {
        Some(message) => (message.key().map(<[u8]>::to_vec), message.value().to_vec()),
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
    let inspected = arguments.of.directory.inspect()?;
    let (queue, journal) = (arguments.of.find(&inspected)?, inspected.journal());
    let mut out = std::io::stdout().lock();
    let json = arguments.of.json;
    if arguments.dead {
        for letter in queue.dead_letters(&journal)?.take(arguments.limit) {
            let DeadLetter { partition, offset, attempts, reason, message, .. } = letter?;
            if json {
                let line = json!({ "partition": partition, "offset": offset, "attempts": attempts, "reason": reason });
                let line = with_value(line, message.key(), message.value());
                print_json(&mut out, &line)?;
            } else {
                let (reason, shown) = (plain(&reason), key_and_value(message.key(), message.value()));
                writeln!(out, "{partition}@{offset} after {attempts} attempts, {reason}: {shown}")?;
            }
        }
        return inspected.end();
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
            let (state, at, _) = state(&message.state);
            let RecordedMessage { partition, offset, attempts, .. } = message;
            let (until, shown) = (until(at), key_and_value(key.as_deref(), &value));
            writeln!(out, "{partition}@{offset} {state} {until} after {attempts} attempts: {shown}")
                .map_err(Failure::from)
        };
        failed = written.err();
        failed.is_none() && left > 0
    })?;
    failed.map_or_else(|| inspected.end(), Err)
}

fn purge(arguments: &Purge) -> Done {
    if arguments.dry_run {
        return arguments.of.rehearse("purged", |queue, journal| {
            if arguments.dead {
                return letters(queue, journal);
            }
            let mut purged = 0;
            queue.peek(journal, |_, _| {
                purged += 1;
                true
            })?;
            Ok(purged)
        });
    }
    arguments.of.change("purged", |queue, writer, time| match arguments.dead {
        true => queue.purge_dead_letters(writer, time),
        false => queue.purge(writer, time),
    })
}

fn redrive(arguments: &Redrive) -> Done {
    let limit = arguments.limit.unwrap_or(u64::MAX);
    if arguments.dry_run {
        return arguments.of.rehearse("sent back", |queue, journal| {
            // The rest stays behind a letter whose message the topic no longer keeps.
            let is_kept = |letter: &DeadLetter| {
                let of = PartitionId { topic: queue.topic.number, partition: letter.partition };
                journal.extent(of).is_none_or(|extent| letter.offset >= extent.start)
            };
            let letters = queue.dead_letters(journal)?.take(usize::try_from(limit).unwrap_or(usize::MAX));
            let mut sent = 0;
            for letter in letters {
                if !is_kept(&letter?) {
                    break;
                }
                sent += 1;
            }
            Ok(sent)
        });
    }
    arguments.of.change("sent back", |queue, writer, time| queue.redrive(writer, limit, time))
}
