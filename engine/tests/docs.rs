//! What the documents say of the code: that it is there.

use std::fs;
use std::path::{Path, PathBuf};

/// The README's first code is the example `quickstart`, so that it is compiled and run.
#[test]
fn the_readme_shows_the_quickstart() {
    let readme = include_str!("../../README.md");
    let (_, code) = readme.split_once("```rust\n").expect("the README has code");
    let (code, _) = code.split_once("```").expect("the code ends");
    let example = include_str!("../examples/quickstart.rs");
    assert_eq!(code, example);
    assert!(example.lines().count() <= 25);
}

fn source(at: &Path, into: &mut String) {
    if at.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| source(entry, into));
    } else if at.extension().is_some_and(|it| it == "rs") {
        into.push_str(&fs::read_to_string(at).unwrap());
    }
}

/// The code where GUARANTEES says that a test stands: `place: ` for files of tests, or the quoted path of a library's file.
fn code_at(place: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let at = match (place.strip_suffix(".rs"), place.split_once('/')) {
        (Some(path), Some(("journal", _))) => root.join("journal/src").join(&path["journal/".len()..]),
        (Some(path), Some(("bridge", _))) => root.join("bridge/src").join(&path["bridge/".len()..]),
        (Some(path), _) => root.join("src").join(path),
        (None, Some(("cli", file))) => root.join("cli/tests").join(file),
        (None, Some(("capi", file))) => root.join("../ring/capi/tests").join(file),
        (None, Some(("bridge", file))) => root.join("bridge/tests").join(file),
        (None, Some(("ring", file))) => root.join("../ring/tests").join(file),
        (None, Some(("bench-harness", file))) => root.join("../bench-harness/tests").join(file),
        (None, _) => root.join("tests").join(place),
    };
    let mut text = String::new();
    [at.with_extension("rs"), at].iter().filter(|at| at.exists()).for_each(|at| source(at, &mut text));
    text
}

/// Pages that name calls and commands to people who know another system.
const MAPS: [(&str, &str); 7] = [
    ("FROM_KAFKA", include_str!("../../docs/FROM_KAFKA.md")),
    ("FROM_DISRUPTOR", include_str!("../../docs/FROM_DISRUPTOR.md")),
    ("FROM_QUEUES", include_str!("../../docs/FROM_QUEUES.md")),
    ("REAL_TIME", include_str!("../../docs/REAL_TIME.md")),
    ("MARKET_DATA", include_str!("../../docs/MARKET_DATA.md")),
    ("PIPELINE", include_str!("../../docs/PIPELINE.md")),
    ("OPERATING", include_str!("../../docs/OPERATING.md")),
];

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
}

/// The code blocks of these pages are compiled and run as documentation tests of the library; this looks for what stands in
/// their tables and sentences.
#[test]
fn the_maps_name_calls_and_commands_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut code, mut named, mut wrong) = (String::new(), 0, Vec::new());
    source(&root.join("src"), &mut code);
    source(&root.join("journal/src"), &mut code);
    source(&root.join("../ring/src"), &mut code);
    let declares = |kinds: &[&str], name: &str| {
        let ends = |rest: &str| !rest.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '_');
        kinds.iter().any(|kind| code.split(&format!("{kind} {name}")).skip(1).any(ends))
    };
    for (page, text) in MAPS {
        let text: String =
            text.split("```").enumerate().filter(|(index, _)| index % 2 == 0).map(|(_, piece)| piece).collect();
        for piece in text.split('`').skip(1).step_by(2) {
            let Some((of, item)) = piece.split_once("::").filter(|(of, item)| is_name(of) && is_name(item)) else {
                continue;
            };
            named += 1;
            // A variant stands in a line of its own.
            let is_variant =
                |it: &str| it.trim_start().strip_prefix(item).is_some_and(|rest| rest.starts_with([',', '(']));
            let has_item = match item.starts_with(char::is_uppercase) {
                true => code.lines().any(is_variant),
                false => declares(&["fn"], item),
            };
            if !declares(&["struct", "enum", "trait", "type"], of) || !has_item {
                wrong.push(format!("{page}: {piece}"));
            }
        }
        for command in text.split("slipring ").skip(1) {
            let mut words = command.split(|it: char| !it.is_ascii_lowercase());
            let (noun, verb) = (words.next().unwrap(), words.next().unwrap_or_default());
            let at = root.join("cli/src").join(noun);
            let mut of_noun = String::new();
            [at.with_extension("rs"), at].iter().filter(|at| at.exists()).for_each(|at| source(at, &mut of_noun));
            if of_noun.is_empty() || verb.is_empty() {
                continue;
            }
            named += 1;
            let variant = verb[..1].to_uppercase() + &verb[1..];
            if !of_noun.contains(&format!("    {variant}(")) {
                wrong.push(format!("{page}: slipring {noun} {verb}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not there:\n{}", wrong.join("\n"));
    assert!(named > 150, "only {named} are read");
}

/// SUMMARY is the book's table of contents: it has every page, and every page that it or README links to is there. Every example
/// that EXAMPLES names is there, and the gate runs it.
#[test]
fn the_table_of_contents_has_every_page_and_the_gate_runs_the_ladder_of_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let links = |page: &str| -> Vec<String> {
        let targets = page.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap());
        targets.filter(|to| !to.is_empty() && !to.contains("://")).map(|to| to.to_owned()).collect()
    };
    let contents = links(&text("docs/SUMMARY.md"));
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_page = name.ends_with(".md") && name != "SUMMARY.md";
        assert!(!is_page || contents.contains(&name), "SUMMARY lacks {name}");
    }
    for (page, folder) in [("docs/SUMMARY.md", "docs"), ("docs/README.md", "docs"), ("README.md", ".")] {
        for to in links(&text(page)) {
            assert!(root.join(folder).join(&to).exists(), "{page} links to {to}");
        }
    }
    let (ladder, gate) = (text("docs/EXAMPLES.md"), text(".ci/run"));
    let named: Vec<_> = ladder.split("--example ").skip(1).map(|rest| rest.split('`').next().unwrap()).collect();
    assert!(named.len() > 8, "{named:?}");
    for example in named {
        let at = |folder: &str| root.join(folder).join("examples").join(example);
        let is_there = |folder: &str| at(folder).with_extension("rs").exists() || at(folder).join("main.rs").exists();
        assert!(is_there("engine") || is_there("ring"), "there is no example {example}");
        assert!(gate.contains(&format!("--example {example}")), "the gate does not run {example}");
    }
}

#[test]
fn guarantees_names_tests_that_are_there() {
    let page = include_str!("../../docs/GUARANTEES.md");
    let (mut named, mut wrong) = (0, Vec::new());
    for row in page.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() >= 3) {
        let shown_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        // Pieces within and without backticks take turns.
        let mut place = None;
        for (index, piece) in shown_by.split('`').enumerate() {
            let is_quoted = index % 2 == 1;
            if is_quoted && piece.ends_with(".rs") {
                place = Some(piece.to_owned());
            } else if is_quoted
                && piece.contains('_')
                && piece.chars().all(|it| it.is_ascii_lowercase() || "_0123456789".contains(it))
            {
                let Some(place) = &place else { continue };
                named += 1;
                if !code_at(place).contains(&format!("fn {piece}(")) {
                    wrong.push(format!("{place}: {piece}"));
                }
            } else if let Some(before) = piece.trim_end().strip_suffix(':').filter(|_| !is_quoted) {
                let word = before.rsplit([' ', ';', ',']).next().unwrap();
                if !word.is_empty() {
                    place = Some(word.to_owned());
                }
            } else if piece.contains("model") {
                place = None;
            }
        }
    }
    assert!(wrong.is_empty(), "not there:\n{}", wrong.join("\n"));
    assert!(named > 150, "only {named} are read");
}
