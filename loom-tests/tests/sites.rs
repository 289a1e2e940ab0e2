//! The documentation of ring's memory orderings agrees with the code, and no ordering is used outside the file of
//! sites.

use loom_tests::build::workspace;
use loom_tests::docs;
use loom_tests::sites::{Catalogue, ring_files};
use loom_tests::uses::SourceFile;
use std::fs;

/// Uses that no model executes, because they are not part of a ring's operation.
const NO_MODEL: [&str; 4] = [
    // The public pair of fences, which no ring uses. `ring/tests/waiting.rs` tests it on the machine.
    "RING_FENCE@fence.rs:light",
    "ARM_FENCE@fence.rs:heavy",
    // A fence for the compiler only; a model uses the full fence instead.
    "RING_FENCE@fence.rs:compiler_only",
    // A unit test.
    "RAISE_FLOOR@sequence.rs:raise_never_goes_back",
];

fn sources() -> Vec<(String, String)> {
    let folder = workspace().join("ring/src");
    let files = ring_files().unwrap().into_iter();
    files.map(|file| (file.clone(), fs::read_to_string(folder.join(file)).unwrap())).collect()
}

#[test]
fn the_page_is_what_the_code_says() {
    docs::check().unwrap();
}

/// True if a model of this name, `module::function`, exists.
fn is_model(name: &str) -> bool {
    let folder = workspace().join("loom-tests/tests");
    let Some((module, function)) = name.split_once("::") else { return false };
    ["models", "reclaim"].iter().any(|binary| {
        let source = fs::read_to_string(folder.join(binary).join(format!("{module}.rs"))).unwrap_or_default();
        source.contains(&format!("fn {function}()"))
    })
}

#[test]
fn every_model_on_the_page_exists() {
    for (mutant, by) in docs::killers().unwrap() {
        assert!(is_model(&by), "{by}, which is to kill {mutant}, is no more");
    }
}

/// The coverage table of states and operations has no cell without a model or a reason.
#[test]
fn every_pair_of_state_and_operation_has_a_model_or_a_reason() {
    let page = fs::read_to_string(workspace().join("docs/MEMORY_ORDERING.md")).unwrap();
    let (_, rest) = page.split_once("<!-- coverage: begin -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- coverage: end -->").unwrap();
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = table.lines();
    let operations = cells(rows.next().unwrap());
    rows.next();
    let mut states = 0;
    for row in rows.map(cells) {
        assert_eq!(row.len(), operations.len(), "{row:?}");
        states += 1;
        for (operation, cell) in operations.iter().zip(&row).skip(1) {
            let has_reason = cell.strip_prefix("none: ").is_some_and(|reason| reason.len() > 5);
            let has_models = cell.split(", ").all(is_model);
            assert!(has_reason || has_models, "{} x {operation}: {cell:?}", row[0]);
        }
    }
    assert!(states >= 6 && operations.len() >= 10, "the table was not found");
}

#[test]
fn every_site_and_fault_is_used() {
    let sources = sources();
    let catalogue = Catalogue::read().unwrap();
    assert!(catalogue.sites.len() > 40 && catalogue.faults.len() > 15, "the tables were not found");
    for fault in &catalogue.faults {
        let call = format!("fault(Fault::{})", fault.name);
        assert!(sources.iter().any(|(_, text)| text.contains(&call)), "{call} is asked nowhere");
    }
    let listed = docs::uses().unwrap();
    let files = sources.iter().filter(|(file, _)| file != "ordering.rs");
    let files: Vec<_> = files.map(|(file, _)| SourceFile::read(file).unwrap()).collect();
    let mut missing = Vec::new();
    for site in &catalogue.sites {
        let named: Vec<_> = files.iter().flat_map(|file| file.functions_that_name(&site.name)).collect();
        assert!(!named.is_empty(), "{} is used nowhere", site.name);
        for (at, _) in named.iter().filter(|(_, passes_on)| !passes_on && !site.weaker.is_empty()) {
            let at = format!("{}@{at}", site.name);
            let is_listed = listed.iter().any(|other| other.split('#').next() == Some(&at));
            if !is_listed && !NO_MODEL.contains(&at.as_str()) {
                missing.push(at);
            }
        }
    }
    assert!(missing.is_empty(), "no model comes by {missing:?}, or docs/MEMORY_ORDERING.md is older: write it anew");
}

#[test]
fn orderings_atomics_and_cells_stand_where_they_belong() {
    for (file, text) in sources() {
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let only_in = |what: &str, homes: &[&str]| {
            let is_home = homes.contains(&file.as_str());
            assert!(is_home || !code.contains(what), "{file} has `{what}`, which belongs into {homes:?}");
        };
        only_in("Ordering::", &["ordering.rs"]);
        only_in("std::sync::atomic", &["sync.rs"]);
        // The heap block of a model of shared rings; their production has raw memory.
        only_in("UnsafeCell::", &["buffer.rs", "shared/region.rs"]);
    }
}
