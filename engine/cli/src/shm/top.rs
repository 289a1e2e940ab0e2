//! `slipring shm top`: all rings and their consumers as they change.

use super::{Look, as_json, life, position};
use crate::failure::{Done, FAILED, Failure};
use crate::output::{Table, plain, print_json};
use crate::top::{Shown, human, interval, rate, watch};
use serde_json::json;
use slipring_ring::shared::{Role, SharedError};
use std::io::{IsTerminal, Write};
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Top {
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Print one look as text, and exit (default if the output is not a terminal)
    #[arg(long)]
    once: bool,
    /// Print one look as JSON, and exit
    #[arg(long, conflicts_with = "once")]
    json: bool,
}

const RINGS: [&str; 5] = ["RING", "STATE", "PUBLISHED", "PER S", "CAPACITY"];
const CONSUMERS: [&str; 6] = ["RING", "CONSUMER", "STATE", "POSITION", "PER S", "LAG"];
/// Those of rings for several producers. A claim that others wait for, and that the look before has found as well, holds
/// the ring up.
const PRODUCERS: [&str; 5] = ["RING", "PRODUCER", "STATE", "CLAIM", "HOLDS UP"];

/// All rings at one moment.
struct Moment {
    rings: Vec<Look>,
    at: Instant,
}

fn look() -> Result<Moment, SharedError> {
    Ok(Moment { rings: Look::all()?, at: Instant::now() })
}

/// The tables. Rates are computed from the look before; if there is none, each is shown as `-`.
fn tables(now: &Moment, before: Option<&Moment>) -> Vec<Shown> {
    let seconds = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
    let (mut rings, mut consumers, mut producers) = (Vec::new(), Vec::new(), Vec::new());
    for of in &now.rings {
        let old = before.and_then(|before| before.rings.iter().find(|old| old.name == of.name));
        let Ok(ring) = &of.ring else {
            let dash = || "-".to_owned();
            rings.push(vec![plain(&of.name), "damaged".to_owned(), dash(), dash(), dash()]);
            continue;
        };
        rings.push(vec![
            plain(&of.name),
            if ring.ended().is_none() { "open" } else { "ended" }.to_owned(),
            human(of.published),
            rate(of.published, old.map(|old| old.published), seconds),
            human(ring.capacity() as u64),
        ]);
        for it in of.participants.iter().filter(|it| it.role == Role::Producer && ring.is_multi_producer()) {
            let has_same = |old: &Look| old.participants.iter().any(|old| old.pid == it.pid && old.claim == it.claim);
            let is_first = it.claim.as_ref().is_some_and(|claim| claim.first.0 == of.published);
            let holds_up = is_first && old.is_some_and(has_same);
            producers.push(vec![
                plain(&of.name),
                plain(&it.name),
                life(it).to_owned(),
                position(it),
                if holds_up { "yes" } else { "-" }.to_owned(),
            ]);
        }
        for it in &of.participants {
            let Some(position) = it.position else { continue };
            let old = old.and_then(|old| {
                let other = old.participants.iter().find(|other| other.name == it.name)?;
                Some(other.position?.0)
            });
            consumers.push(vec![
                plain(&of.name),
                plain(&it.name),
                life(it).to_owned(),
                human(position.0),
                rate(position.0, old, seconds),
                human(it.lag),
            ]);
        }
    }
    let mut tables =
        vec![Shown { head: &RINGS, names: 2, rows: rings }, Shown { head: &CONSUMERS, names: 3, rows: consumers }];
    if !producers.is_empty() {
        tables.push(Shown { head: &PRODUCERS, names: 3, rows: producers });
    }
    tables
}

fn as_text(now: &Moment) -> String {
    let tables = tables(now, None).into_iter().filter(|it| !it.rows.is_empty());
    let texts = tables.map(|Shown { head, names, rows }| {
        let mut table = Table::new(head, &[0, 1, 2][..names]);
        rows.into_iter().for_each(|row| table.row(row));
        table.to_string()
    });
    let text = texts.collect::<Vec<_>>().join("\n");
    if text.is_empty() { "no rings\n".to_owned() } else { text }
}

pub(super) fn run(arguments: &Top) -> Done {
    let first = look()?;
    if arguments.json {
        let rings: Vec<_> = first.rings.iter().map(as_json).collect();
        return print_json(&mut std::io::stdout().lock(), &json!({ "version": 1, "rings": rings }));
    }
    if arguments.once || !std::io::stdout().is_terminal() {
        return Ok(std::io::stdout().lock().write_all(as_text(&first).as_bytes())?);
    }
    let title = format!("slipring shm top  every {} s, q ends", arguments.interval);
    let (mut before, mut now) = (None, Some(first));
    watch(&title, arguments.interval, || {
        let latest = now.take().map_or_else(look, Ok)?;
        let shown = tables(&latest, before.as_ref());
        before = Some(latest);
        Ok(shown)
    })
    .map_err(|cause| Failure::new(FAILED, cause))
}
