//! Text that is not the program's own, in errors and reports: causes of a user's handler. None of it may reach a terminal or a
//! log as more than text. What the command `slipring` prints of such text is in `cli/tests/text.rs`.

use slipring::{Engine, text, topic::Closed};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Clears the screen, by C0 and by C1; forges a line; writes from right to left; forges a line for who reads Unicode.
const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\nFORGED\u{202e}gpj\u{2028}FORGED";

/// Fails if `shown` has anything but text and line ends, or a line that none of ours begins.
fn check(shown: &str, of: &str) {
    assert!(!shown.chars().any(|c| c != '\n' && text::is_hidden(c)), "{of}: {shown:?}");
    assert!(!shown.lines().any(|line| line.starts_with("FORGED")), "{of}: {shown:?}");
}

#[test]
fn the_cause_of_a_handler_is_one_line_in_errors_and_reports() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    ticks.subscribe("book").run(|_, _| Err::<(), _>(HOSTILE)).unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let refused = loop {
        if let Err(refused) = producer.publish(|_| ()) {
            break refused;
        }
    };
    check(&refused.to_string(), "the producer's error");
    assert!(refused.to_string().contains(&text::line(HOSTILE).to_string()), "{refused}");
    let Some(Closed::Failed { cause, .. }) = ticks.closed() else { panic!() };
    assert_eq!(cause, HOSTILE, "as it was, for a program");
    check(&ticks.describe().to_string(), "the description");
    check(&engine.shutdown(LONG).to_string(), "the report");
}

/// The attribute of each error shows fields that are strings with `{:?}` or `text::line`, never raw.
#[test]
fn no_error_shows_a_string_raw() {
    // Made of this program's own words.
    let ours = ["Setting"];
    let mut raw = Vec::new();
    for source in sources() {
        let text = std::fs::read_to_string(&source).unwrap();
        for part in text.split("#[error(").skip(1) {
            let Some((format, rest)) = part.split_once(")]") else { continue };
            let name: String = rest.chars().skip_while(|c| !c.is_alphanumeric()).take_while(|c| *c != '\n').collect();
            let body = rest.split("#[error(").next().unwrap();
            let mut shown = vec![];
            let fields = body.lines().map_while(|line| (line != "}" && line != "    },").then(|| line.trim()));
            for field in fields {
                let field = field.strip_prefix("pub ").unwrap_or(field);
                if let Some(field) = field.strip_suffix(": String,") {
                    shown.push(format!("{{{field}}}"));
                }
            }
            if name.contains("(String)") {
                shown.push("{0}".to_owned());
            }
            let is_raw = shown.iter().any(|field| format.contains(field.as_str()));
            if is_raw && !ours.iter().any(|ours| name.starts_with(ours)) {
                raw.push(format!("{}: {name}", source.display()));
            }
        }
    }
    assert!(raw.is_empty(), "show these with `text::line`: {raw:#?}");
}

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders =
        ["ring/src", "engine/src", "engine/journal/src", "engine/cli/src"].map(|it| root.join(it)).to_vec();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    assert!(files.len() > 100);
    files
}
