//! `slipring shm tail`: events of a ring as text or JSON, by the layout in its header.

use crate::failure::{Done, FAILED, Failure};
use crate::output::{plain, print_json};
use serde_json::{Map, Value, json};
use slipring::text;
use slipring_ring::Start;
use slipring_ring::shared::{Ended, EventLayout, LayoutField, NumberType, NumberValue, RawConsumer, RawRing};
use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

/// The command joins as a consumer, so producers wait for it: do not leave a terminal with it stopped. Events that were
/// kept for nobody are not there any more; `Size::retain` keeps some.
///
/// An array of `u8` that is text is printed as text, without the zeros at its end; JSON has all numbers.
#[derive(clap::Args)]
pub(crate) struct Tail {
    /// The ring's name
    ring: String,
    /// The most events to print of those that are there already
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    lines: usize,
    /// Go on with new events until the ring ends
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Count of events that are copied before they are printed, while producers go on.
const BATCH: usize = 256;

pub(super) fn run(arguments: &Tail) -> Done {
    let ring = RawRing::open(&arguments.ring)?;
    let name = format!("tail-{}", std::process::id());
    let mut reader = ring.consumer(name).start(Start::Earliest).join()?;
    let (layout, end) = (ring.layout(), ring.published().0);
    let mut out = BufWriter::new(std::io::stdout().lock());
    // Only the last ones are printed, and all are read, since a consumer begins where others stand.
    let mut last = VecDeque::new();
    while reader.position().0 < end {
        let wanted = usize::try_from(end - reader.position().0).unwrap_or(BATCH).min(BATCH);
        let Some(events) = next(&mut reader, layout, wanted, Duration::ZERO).map_err(failed)? else { break };
        last.extend(events);
        let surplus = last.len().saturating_sub(arguments.lines);
        last.drain(..surplus);
    }
    let print = |out: &mut BufWriter<_>, (sequence, event): Copied| -> Done {
        if arguments.json {
            let document = json!({ "sequence": sequence, "event": as_json(layout, &event) });
            return print_json(out, &document);
        }
        Ok(writeln!(out, "{sequence} {}", as_text(layout, &event))?)
    };
    last.into_iter().try_for_each(|event| print(&mut out, event))?;
    out.flush()?;
    if !arguments.follow {
        return Ok(());
    }
    let mut has_told = false;
    loop {
        match next(&mut reader, layout, BATCH, Duration::from_secs(1)) {
            Ok(events) => {
                has_told &= events.is_none();
                events.into_iter().flatten().try_for_each(|event| print(&mut out, event))?;
                out.flush()?;
            }
            Err(Ended::Closed) => return Ok(()),
            // A successor may come.
            Err(died @ Ended::ProducerDied) => {
                if !std::mem::replace(&mut has_told, true) {
                    eprintln!("slipring: {died}");
                }
            }
            Err(other) => return Err(failed(other)),
        }
    }
}

fn failed(ended: Ended) -> Failure {
    let code = if matches!(ended, Ended::Damaged { .. }) { crate::failure::DAMAGED } else { FAILED };
    Failure::new(code, ended)
}

/// A copy of an event, with its sequence.
type Copied = (u64, Vec<u8>);

/// Copies of the next events; `None` if there is none within `patience`.
fn next(
    reader: &mut RawConsumer,
    layout: &EventLayout,
    limit: usize,
    patience: Duration,
) -> Result<Option<Vec<Copied>>, Ended> {
    let mut batch = reader.poll_until(limit, Instant::now() + patience)?;
    if batch.is_empty() {
        return Ok(None);
    }
    let (first, (before, after)) = (batch.first().0, batch.events());
    let events = before.chunks_exact(layout.size()).chain(after.chunks_exact(layout.size()));
    let copied = (first..).zip(events.map(<[u8]>::to_vec)).collect();
    batch.consume(batch.len());
    Ok(Some(copied))
}

/// The numbers of a field.
fn numbers<'e>(field: &'e LayoutField, event: &'e [u8]) -> impl Iterator<Item = NumberValue> + 'e {
    (0..field.len().unwrap_or(1)).map_while(|index| field.number(event, index))
}

fn as_json(layout: &EventLayout, event: &[u8]) -> Value {
    let number = |number: NumberValue| match number {
        NumberValue::Unsigned(number) => json!(number),
        NumberValue::Signed(number) => json!(number),
        NumberValue::Float(number) => json!(number),
        NumberValue::Double(number) => json!(number),
    };
    let field = |field: &LayoutField| {
        let mut values = numbers(field, event).map(number);
        let value = if field.len().is_some() { values.collect() } else { values.next().unwrap_or_default() };
        (field.name().to_owned(), value)
    };
    Value::Object(layout.fields().iter().map(field).collect::<Map<_, _>>())
}

fn as_text(layout: &EventLayout, event: &[u8]) -> String {
    let field = |field: &LayoutField| {
        let bytes = field.len().and_then(|len| event.get(field.offset()..field.offset() + len));
        let bytes = bytes.filter(|_| field.number_type() == NumberType::U8);
        let chars = bytes.map(|bytes| &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)]);
        let value = match chars.and_then(text::as_text) {
            Some(chars) => text::value(chars.as_bytes()).to_string(),
            None => {
                let numbers = numbers(field, event).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
                if field.len().is_some() { format!("[{numbers}]") } else { numbers }
            }
        };
        format!("{}={value}", plain(field.name()))
    };
    layout.fields().iter().map(field).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_text_and_json_by_its_layout() {
        let layout: EventLayout = "px:i64 id:u8[4] raw:u8[4] odds:f32[2] big:u64".parse().unwrap();
        let mut event = Vec::new();
        event.extend((-5i64).to_ne_bytes());
        event.extend(*b"AB\0\0\0\xff\0\x01");
        event.extend([0.5f32.to_ne_bytes(), f32::NAN.to_ne_bytes()].concat());
        event.extend(u64::MAX.to_ne_bytes());
        assert_eq!(as_text(&layout, &event), "px=-5 id=AB raw=[0,255,0,1] odds=[0.5,NaN] big=18446744073709551615");
        let expected = json!({
            "px": -5, "id": [65, 66, 0, 0], "raw": [0, 255, 0, 1], "odds": [0.5, null], "big": u64::MAX,
        });
        assert_eq!(as_json(&layout, &event), expected);
    }

    #[test]
    fn bytes_that_would_control_a_terminal_are_numbers() {
        let layout: EventLayout = "name:u8[4]".parse().unwrap();
        assert_eq!(as_text(&layout, b"\x1b[2J"), "name=[27,91,50,74]");
        assert_eq!(as_text(&layout, &[0; 4]), "name=");
    }
}
