//! What the documentation says of ring's memory orderings is what the code does, and nothing goes past the file of sites.

use loom_tests::build::workspace;
use std::fs;

/// Name and strength of each site, as written in ordering.rs.
fn sites() -> Vec<(String, String)> {
    let source = fs::read_to_string(workspace().join("ring/src/ordering.rs")).unwrap();
    let (_, table) = source.split_once("sites! {\n").unwrap();
    let (table, _) = table.split_once("\n}\n").unwrap();
    let entries = table.lines().map(str::trim).filter(|line| !line.starts_with("///"));
    entries
        .map(|line| {
            let (name, rest) = line.split_once(": ").unwrap();
            (name.to_owned(), rest.split(' ').next().unwrap().to_owned())
        })
        .collect()
}

fn sources() -> Vec<(String, String)> {
    let folder = workspace().join("ring/src");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
        .filter(|(name, _)| name.ends_with(".rs"))
        .collect()
}

#[test]
fn every_site_is_documented_with_its_strength_and_used() {
    let page = fs::read_to_string(workspace().join("docs/MEMORY_ORDERING.md")).unwrap();
    let sources = sources();
    let sites = sites();
    assert!(sites.len() > 40, "the table was not found");
    for (name, strength) in &sites {
        assert!(page.contains(&format!("| {name} | {strength} |")), "{name}: {strength} is not in the page");
        let used = sources.iter().any(|(file, text)| file != "ordering.rs" && text.contains(name.as_str()));
        assert!(used, "{name} is used nowhere");
    }
    let documented = page.lines().filter(|line| {
        line.starts_with("| ") && line.contains(" | none |") || {
            let strength = line.split(" | ").nth(1).unwrap_or_default();
            ["Acquire", "Release", "AcqRel", "SeqCst"].contains(&strength)
        }
    });
    assert_eq!(documented.count(), sites.len(), "the page has a site that is no more");
}

#[test]
fn orderings_atomics_and_cells_stand_where_they_belong() {
    for (file, text) in sources() {
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let only_in = |what: &str, home: &str| {
            assert!(file == home || !code.contains(what), "{file} has `{what}`, which belongs into {home}");
        };
        only_in("Ordering::", "ordering.rs");
        only_in("std::sync::atomic", "sync.rs");
        only_in("UnsafeCell::", "buffer.rs");
    }
}
