//! `slipring shm`: shows and removes the rings between processes of this user, and reads their events.

mod tail;
mod top;

use crate::failure::{Done, FAILED, Failure};
use crate::output::{Table, cells, plain, print_json, size};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use slipring_ring::shared::{self, Participant, RawRing, Role, SharedError};
use std::io::Write;

/// Shows and removes the rings between processes of this user, and reads their events.
///
/// The rings are files in `/dev/shm/slipring-UID`. The commands read what a ring's header says of its events, and need no
/// program that uses the ring.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  slipring shm ls
  slipring shm stat quotes --json
  slipring shm tail quotes -f
  slipring shm rm quotes --dry-run

Exit codes:
  0  done
  1  it could not be done: no such ring, somebody uses the ring that is to be removed
  2  the command line was not understood
  3  the file is damaged, or is no ring of this user
  5  a newer program made it";

#[derive(Subcommand)]
enum Command {
    /// List the rings with their sizes, positions and counts of participants
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show a ring's events, sizes, positions and participants
    #[command(visible_alias = "describe")]
    Stat(Stat),
    /// Show all rings and their consumers as they change
    Top(top::Top),
    /// Remove a ring that nobody uses, with the positions that are held in it; this cannot be undone
    #[command(after_help = EXAMPLES)]
    Rm(Rm),
    /// Print the last events that a ring keeps, and new ones with --follow
    Tail(tail::Tail),
}

#[derive(Args)]
struct Ls {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Stat {
    /// The ring's name
    ring: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Rm {
    /// The ring's name
    ring: String,
    /// Remove it although participants are alive, or although the file is damaged
    #[arg(long)]
    force: bool,
    /// Print who uses the ring, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    match &arguments.command {
        Command::Ls(arguments) => ls(arguments),
        Command::Stat(arguments) => stat(arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Rm(arguments) => rm(arguments),
        Command::Tail(arguments) => tail::run(arguments),
    }
}

/// A ring as it was at one moment.
struct Look {
    name: String,
    /// The error if the ring could not be opened.
    ring: Result<RawRing, SharedError>,
    /// The next sequence to be published; 0 without a ring. The handle of a ring tells the present one.
    published: u64,
    /// The next sequence to be claimed, as `published`.
    claimed: u64,
    participants: Vec<Participant>,
}

impl Look {
    fn at(name: String) -> Self {
        let ring = RawRing::open(&name);
        let participants = ring.as_ref().map(RawRing::participants).unwrap_or_default();
        let published = ring.as_ref().map_or(0, |ring| ring.published().0);
        let claimed = ring.as_ref().map_or(0, |ring| ring.claimed().0);
        Self { name, ring, published, claimed, participants }
    }

    /// All rings of this user. A ring that is removed meanwhile is left out.
    fn all() -> Result<Vec<Self>, SharedError> {
        let looks = shared::names()?.into_iter().map(Self::at);
        Ok(looks.filter(|it| !matches!(it.ring, Err(SharedError::NotFound { .. }))).collect())
    }

    fn alive(&self, role: Role) -> usize {
        self.participants.iter().filter(|it| it.role == role && it.is_alive).count()
    }

    /// Count of held positions whose process has gone.
    fn held(&self) -> usize {
        self.participants.iter().filter(|it| it.is_held && !it.is_alive).count()
    }

    /// The largest lag of a consumer.
    fn lag(&self) -> u64 {
        self.participants.iter().map(|it| it.lag).max().unwrap_or(0)
    }
}

/// `open`, or why the ring has ended.
fn state(ring: &RawRing) -> String {
    ring.ended().map_or_else(|| "open".to_owned(), |ended| ended.to_string())
}

fn role(of: &Participant) -> &'static str {
    match of.role {
        Role::Joining => "joining",
        Role::Consumer => "consumer",
        Role::Producer => "producer",
        _ => "other",
    }
}

/// `alive`, `held` or `dead`.
fn life(of: &Participant) -> &'static str {
    match (of.is_alive, of.is_held) {
        (true, _) => "alive",
        (false, true) => "held",
        (false, false) => "dead",
    }
}

/// The next sequence that a consumer reads, or the claim of one of several producers, with its end.
fn position(of: &Participant) -> String {
    match (of.position, &of.claim) {
        (Some(position), _) => position.0.to_string(),
        (None, Some(claim)) => format!("{}..{}", claim.first.0, claim.next().0),
        (None, None) => "-".to_owned(),
    }
}

fn as_json(look: &Look) -> Value {
    let ring = match &look.ring {
        Ok(ring) => ring,
        Err(error) => return json!({ "ring": look.name, "error": error.to_string() }),
    };
    let participants = look.participants.iter().map(|it| {
        json!({
            "name": it.name, "role": role(it), "alive": it.is_alive, "held": it.is_held, "pid": it.pid,
            "generation": it.generation, "position": it.position.map(|at| at.0), "lag": it.lag,
            "claim": it.claim.as_ref().map(|claim| json!({ "first": claim.first.0, "len": claim.len })),
        })
    });
    json!({
        "ring": look.name, "layout": ring.layout().to_string(), "event_size": ring.layout().size(),
        "capacity": ring.capacity(), "retained": ring.retained(), "bytes": ring.file_size(),
        "producers": if ring.is_multi_producer() { "several" } else { "one" }, "published": look.published,
        "claimed": look.claimed, "state": state(ring), "participants": participants.collect::<Vec<_>>(),
    })
}

fn ls(arguments: &Ls) -> Done {
    let rings = Look::all()?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let rings: Vec<_> = rings.iter().map(as_json).collect();
        return print_json(&mut out, &json!({ "version": 1, "rings": rings }));
    }
    let titles = ["ring", "state", "bytes", "capacity", "published", "producers", "consumers", "held", "lag"];
    let mut table = Table::new(&titles, &[0, 1]);
    for look in &rings {
        match &look.ring {
            Ok(ring) => table.row(cells![
                plain(&look.name),
                if ring.ended().is_none() { "open" } else { "ended" },
                size(ring.file_size()),
                ring.capacity(),
                look.published,
                look.alive(Role::Producer),
                look.alive(Role::Consumer),
                look.held(),
                look.lag(),
            ]),
            Err(_) => table.row(cells![plain(&look.name), "damaged", "-", "-", "-", "-", "-", "-", "-"]),
        }
    }
    write!(out, "{table}")?;
    for look in rings.iter().filter(|look| look.ring.is_err()) {
        if let Err(error) = &look.ring {
            writeln!(out, "{}: {}", plain(&look.name), plain(&error.to_string()))?;
        }
    }
    Ok(())
}

fn stat(arguments: &Stat) -> Done {
    let look = Look::at(arguments.ring.clone());
    if arguments.json && look.ring.is_ok() {
        let mut document = as_json(&look);
        document["version"] = json!(1);
        return print_json(&mut std::io::stdout().lock(), &document);
    }
    let ring = look.ring?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ring       {}", plain(ring.name()))?;
    writeln!(out, "state      {}", plain(&state(&ring)))?;
    writeln!(out, "events     {}", plain(&ring.layout().to_string()))?;
    writeln!(
        out,
        "slots      {}, of which {} are retained; {} in all",
        ring.capacity(),
        ring.retained(),
        size(ring.file_size())
    )?;
    writeln!(out, "published  {}", look.published)?;
    if ring.is_multi_producer() {
        writeln!(out, "claimed    {}, by several producers", look.claimed)?;
    }
    if look.participants.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["name", "role", "state", "position", "lag", "process"], &[0, 1, 2]);
    for it in &look.participants {
        table.row(cells![plain(&it.name), role(it), life(it), position(it), it.lag, it.pid]);
    }
    Ok(write!(out, "\n{table}")?)
}

fn rm(arguments: &Rm) -> Done {
    let Rm { ring: name, force, dry_run, json } = arguments;
    let look = Look::at(name.clone());
    let users: Vec<&str> = look.participants.iter().filter(|it| it.is_alive).map(|it| it.name.as_str()).collect();
    match &look.ring {
        // A damaged file of this name has no participants that could be asked.
        Err(SharedError::Mismatch { path, .. }) if *force && path.file_name().is_some_and(|it| it == name.as_str()) => {
            if !dry_run {
                std::fs::remove_file(path)?;
            }
        }
        Err(SharedError::Mismatch { .. }) => {
            let cause = look.ring.err().map(|cause| cause.to_string()).unwrap_or_default();
            return Err(Failure::new(crate::failure::DAMAGED, format!("{cause}; --force removes the file")));
        }
        Err(_) => return look.ring.map(drop).map_err(Failure::from),
        Ok(_) if *dry_run => {
            if !users.is_empty() && !force {
                let cause = format!("the ring {name:?} is in use by {users:?}: stop them, or say --force");
                return Err(Failure::new(FAILED, cause));
            }
        }
        Ok(_) if *force => RawRing::remove_forced(name)?,
        Ok(_) => RawRing::remove(name)?,
    }
    let mut out = std::io::stdout().lock();
    let held = look.held();
    if *json {
        let document = json!({ "version": 1, "ring": name, "dry_run": dry_run, "in_use_by": users, "held": held });
        return print_json(&mut out, &document);
    }
    let what = if *dry_run { "would be removed" } else { "was removed" };
    writeln!(out, "{} {what}: {} participants were alive, {held} positions were held", plain(name), users.len())?;
    if *dry_run {
        writeln!(out, "nothing was changed")?;
    }
    Ok(())
}
