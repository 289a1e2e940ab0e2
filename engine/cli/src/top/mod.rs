//! `slipring top`: shows topics, consumers, queues and transforms of a running engine as they change.

mod socket;
mod web;

use crate::failure::{Done, FAILED, Failure};
use crate::output::{Table, plain};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{self, Row};
use slipring::{metrics::Metrics, text};
use socket::ask;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Shows topics, consumers, queues and transforms of a running engine as they change.
///
/// The engine must have been built with `Engine::builder().observe(PATH)`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The engine's socket
    #[arg(long, env = "SLIPRING_SOCKET")]
    socket: PathBuf,
    /// Seconds between two snapshots
    #[arg(long, default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Print one snapshot as text, and exit (default if the output is not a terminal)
    #[arg(long)]
    once: bool,
    /// Print one snapshot as JSON, and exit
    #[arg(long, conflicts_with = "once")]
    json: bool,
    /// Print one snapshot as Prometheus text, and exit
    #[arg(long, conflicts_with_all = ["once", "json"])]
    prometheus: bool,
    /// Serve a page for a browser at this address, with JSON at /metrics.json and Prometheus text at /metrics
    ///
    /// Without an address, at 127.0.0.1:8137, which only this machine reaches. Whoever reaches the address sees the names of
    /// topics and consumers; there is no password. Port 0 takes a free one. The address is printed.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8137")]
    #[arg(conflicts_with_all = ["once", "json", "prometheus"])]
    web: Option<SocketAddr>,
}

pub(crate) fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("take 0.05 to 3600 seconds".to_owned()),
    }
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    show(arguments).map_err(|cause| Failure::new(FAILED, cause))
}

fn show(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.prometheus {
        let lines = ask(&arguments.socket, "prometheus\n")?;
        return print(&lines.lines().map(|line| format!("{}\n", text::line(line))).collect::<String>());
    }
    if let Some(address) = arguments.web {
        return web::serve(address, &arguments.socket, arguments.interval);
    }
    if arguments.json {
        return print(&text::json(&ask(&arguments.socket, "json\n")?));
    }
    let first = look(arguments)?;
    if arguments.once || !std::io::stdout().is_terminal() {
        return print(&as_text(&first));
    }
    let title =
        format!("slipring top  {}  every {} s, q ends", text::line(arguments.socket.display()), arguments.interval);
    let (mut before, mut now) = (None, Some(first));
    watch(&title, arguments.interval, || {
        let latest = now.take().map_or_else(|| look(arguments), Ok)?;
        let shown = tables(&latest, before.as_ref());
        before = Some(latest);
        Ok(heads().into_iter().zip(NAMES).zip(shown).map(|((head, names), rows)| Shown { head, names, rows }).collect())
    })
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// A snapshot of the engine's metrics, and the time at which it was taken.
struct Look {
    metrics: Metrics,
    at: Instant,
}

fn look(arguments: &Arguments) -> Result<Look, Box<dyn Error>> {
    let text = ask(&arguments.socket, "json\n")?;
    let metrics = serde_json::from_str(&text).map_err(|cause| format!("the engine speaks another version: {cause}"))?;
    Ok(Look { metrics, at: Instant::now() })
}

/// A table of the display.
pub(crate) struct Shown {
    pub(crate) head: &'static [&'static str],
    /// Count of text columns at the left. All other columns hold numbers.
    pub(crate) names: usize,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Shows tables on the terminal until a key ends it; `next` makes them anew every `interval` seconds.
pub(crate) fn watch(
    title: &str,
    interval: f64,
    mut next: impl FnMut() -> Result<Vec<Shown>, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut shown = next()?;
    let mut terminal = ratatui::try_init()?;
    let mut watched = || {
        loop {
            let until = Instant::now() + Duration::from_secs_f64(interval);
            terminal.draw(|frame| draw(frame, title, &shown))?;
            loop {
                if !event::poll(until.saturating_duration_since(Instant::now()))? {
                    break;
                }
                match event::read()? {
                    Event::Key(key)
                        if matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
                            || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)) =>
                    {
                        return Ok(());
                    }
                    Event::Resize(..) => _ = terminal.draw(|frame| draw(frame, title, &shown))?,
                    _ => {}
                }
            }
            shown = next()?;
        }
    };
    let done = watched();
    let _ = ratatui::try_restore();
    done
}

const TOPICS: [&str; 8] = ["TOPIC", "PARTITIONS", "PUBLISHED", "PER S", "FILL", "HIGH", "REFUSED", "DROPPED"];
const CONSUMERS: [&str; 9] = ["TOPIC", "CONSUMER", "CONSUMED", "PER S", "LAG", "LAG S", "BATCH", "STALLS", "SKIPPED"];
const QUEUES: [&str; 9] = ["TOPIC", "QUEUE", "UNREAD", "LEASED", "WAITING", "ACKED", "PER S", "EXPIRED", "DEAD"];
const TRANSFORMS: [&str; 5] = ["TOPIC", "TRANSFORM", "STATE", "CAUSE", "LAG"];

pub(crate) fn rate(now: u64, before: Option<u64>, seconds: f64) -> String {
    match before {
        Some(before) if seconds > 0.0 => human((now.saturating_sub(before) as f64 / seconds).round() as u64),
        _ => "-".to_owned(),
    }
}

/// The number as text: up to 5 digits, or in units of thousands, millions or billions.
pub(crate) fn human(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{:.1}k", number as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{:.1}G", number as f64 / 1e9),
    }
}

/// The rows of the four tables: topics, consumers, queues, transforms. Rates are computed from the previous snapshot,
/// `before`. If it is `None`, each rate is shown as `-`.
fn tables(now: &Look, before: Option<&Look>) -> [Vec<Vec<String>>; 4] {
    let seconds = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
    let mut tables = [const { Vec::new() }; 4];
    for topic in &now.metrics.topics {
        let old = before.and_then(|before| before.metrics.topic(&topic.name));
        let percent = topic.fill * 100 / topic.capacity.max(1);
        tables[0].push(vec![
            plain(&topic.name),
            topic.partitions.len().to_string(),
            human(topic.published),
            rate(topic.published, old.map(|old| old.published), seconds),
            format!("{percent}% of {}", human(topic.capacity)),
            human(topic.high_water),
            human(topic.refused + topic.timed_out + topic.limited),
            human(topic.dropped),
        ]);
        for it in &topic.consumers {
            let old = old.and_then(|old| old.consumer(&it.name));
            let mean = it.consumed.checked_div(it.batches).map_or("-".to_owned(), human);
            tables[1].push(vec![
                plain(&topic.name),
                plain(&it.name),
                human(it.consumed),
                rate(it.consumed, old.map(|old| old.consumed), seconds),
                human(it.lag),
                it.lag_time.map_or("-".to_owned(), |time| format!("{:.3}", time.as_secs_f64())),
                mean,
                human(it.stalls),
                human(it.skipped + it.expired),
            ]);
        }
        for it in &topic.queues {
            let old = old.and_then(|old| old.queue(&it.name));
            tables[2].push(vec![
                plain(&topic.name),
                plain(&it.name),
                human(it.unread),
                human(it.leased),
                human(it.waiting),
                human(it.acked),
                rate(it.acked, old.map(|old| old.acked), seconds),
                human(it.expired),
                human(it.dead),
            ]);
        }
    }
    tables[3].extend(now.metrics.transforms.iter().map(|it| {
        let cause = it.cause.as_ref().map_or_else(|| "-".to_owned(), |cause| plain(cause));
        vec![plain(&it.topic), plain(&it.name), plain(&it.state), cause, human(it.lag)]
    }));
    tables
}

fn heads() -> [&'static [&'static str]; 4] {
    [&TOPICS, &CONSUMERS, &QUEUES, &TRANSFORMS]
}

/// Count of text columns at the left of each table. All other columns hold numbers.
const NAMES: [usize; 4] = [1, 2, 2, 4];

fn widths(head: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let column = |index: usize| rows.iter().map(|row| row[index].len()).chain([head[index].len()]).max().unwrap_or(0);
    (0..head.len()).map(column).collect()
}

fn as_text(now: &Look) -> String {
    let tables = heads().into_iter().zip(tables(now, None)).zip(NAMES).filter(|((_, rows), _)| !rows.is_empty());
    let texts = tables.map(|((head, rows), names)| {
        let mut table = Table::new(head, &[0, 1, 2, 3][..names]);
        rows.into_iter().for_each(|row| table.row(row));
        table.to_string()
    });
    let text = texts.collect::<Vec<_>>().join("\n");
    if text.is_empty() { "no topics\n".to_owned() } else { text }
}

fn draw(frame: &mut Frame<'_>, title: &str, tables: &[Shown]) {
    let heights = tables.iter().map(|it| if it.rows.is_empty() { 0 } else { it.rows.len() as u16 + 2 });
    let mut parts = vec![Constraint::Length(2)];
    parts.extend(heights.map(Constraint::Length));
    let areas = Layout::vertical(parts).split(frame.area());
    frame.render_widget(Line::from(title).style(Style::new().add_modifier(Modifier::BOLD)), areas[0]);
    for (index, Shown { head, names, rows }) in tables.iter().enumerate().filter(|(_, it)| !it.rows.is_empty()) {
        let cell = |(at, text): (usize, String)| {
            let line = Line::from(text);
            if at < *names { line } else { line.right_aligned() }
        };
        let row = |row: Vec<String>| Row::new(row.into_iter().enumerate().map(cell).collect::<Vec<_>>());
        let header = row(head.iter().map(|&name| name.to_owned()).collect()).reversed();
        let table = widgets::Table::new(
            rows.iter().cloned().map(row),
            widths(head, rows).into_iter().map(|width| Constraint::Length(width as u16)),
        );
        frame.render_widget(table.header(header).column_spacing(2), areas[index + 1]);
    }
}
