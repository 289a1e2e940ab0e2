//! What the documentation says of ring's memory orderings is what the code does, and nothing goes past the file of sites.

use loom_tests::build::workspace;
use loom_tests::docs;
use loom_tests::sites::Catalogue;
use std::fs;

fn sources() -> Vec<(String, String)> {
    let folder = workspace().join("ring/src");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
        .filter(|(name, _)| name.ends_with(".rs"))
        .collect()
}

#[test]
fn the_page_is_what_the_code_says() {
    docs::check().unwrap();
}

#[test]
fn every_model_on_the_page_exists() {
    let folder = workspace().join("loom-tests/tests");
    for (mutant, by) in docs::killers().unwrap() {
        let (module, name) = by.split_once("::").unwrap();
        let found = ["models", "reclaim"].iter().any(|binary| {
            let source = fs::read_to_string(folder.join(binary).join(format!("{module}.rs"))).unwrap_or_default();
            source.contains(&format!("fn {name}()"))
        });
        assert!(found, "{by}, which is to kill {mutant}, is no more");
    }
}

#[test]
fn every_site_and_fault_is_used() {
    let sources = sources();
    let catalogue = Catalogue::read().unwrap();
    assert!(catalogue.sites.len() > 40 && catalogue.faults.len() > 15, "the tables were not found");
    let faults = catalogue.faults.iter().map(|fault| format!("fault(Fault::{})", fault.name));
    for what in catalogue.sites.iter().map(|site| site.name.clone()).chain(faults) {
        let used = sources
            .iter()
            .any(|(file, text)| file != "ordering.rs" && file != "fault.rs" && text.contains(what.as_str()));
        assert!(used, "{what} is used nowhere");
    }
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
