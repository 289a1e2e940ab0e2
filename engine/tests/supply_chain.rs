//! What a program takes in that links slipring: licences, packages that are there twice, and code that runs when it is built. And
//! what our own packages hold when they are published.
//!
//! A list here that no longer fits means that a dependency, or one of its own, has changed. Look at it, then say so here.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// One of the alternatives of each part of a licence must be among these.
const LICENCES: [&str; 9] =
    ["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "BSL-1.0", "Unicode-3.0", "Unlicense", "Zlib"];

/// Packages with a program that runs when they are built, without features: each could do anything on the machine that builds.
const BUILD_SCRIPTS: [&str; 10] = [
    "crc32c",
    "crossbeam-epoch",
    "crossbeam-utils",
    "libc",
    "proc-macro2",
    "quote",
    "rustix",
    "rustversion",
    "thiserror",
    "zerocopy",
];

/// Packages that run inside of the compiler, without features.
const PROC_MACROS: [&str; 3] = ["rustversion", "thiserror-impl", "zerocopy-derive"];

/// Packages that are there in two versions, without features: two derive macros have not moved to the same `syn` yet.
const TWICE: [&str; 1] = ["syn"];

/// The most packages without features, ours among them.
const PACKAGES: usize = 34;

fn cargo(arguments: &[&str]) -> String {
    let run = |more: &[&str]| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).args(more).output().unwrap()
    };
    // All that is needed was built or was there a moment ago; elsewhere it is fetched.
    let output = Some(run(&["--offline"])).filter(|output| output.status.success()).unwrap_or_else(|| run(&[]));
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Name and version of each package, and its licence.
fn tree(more: &[&str]) -> BTreeMap<(String, String), String> {
    let tree = ["tree", "-e", "normal,build", "--prefix", "none", "-f", "{p}|{l}"];
    let listed = cargo(&[&tree[..], more].concat());
    let package = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let (name, rest) = package.split_once(" v")?;
        let version = rest.split(' ').next()?;
        Some(((name.to_owned(), version.to_owned()), licence.trim_end_matches(" (*)").to_owned()))
    };
    listed.lines().filter(|line| !line.is_empty()).map(|line| package(line).unwrap()).collect()
}

fn is_allowed(licence: &str) -> bool {
    let one_of = |part: &str| part.split(" OR ").flat_map(|it| it.split('/')).any(|it| LICENCES.contains(&it.trim()));
    !licence.is_empty() && licence.replace(['(', ')'], "").split(" AND ").all(one_of)
}

#[test]
fn every_licence_is_on_the_list() {
    assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0") && is_allowed("Unlicense/MIT"));
    assert!(!is_allowed("GPL-3.0") && !is_allowed("MIT AND GPL-3.0") && !is_allowed(""));
    for of in [
        &["-p", "slipring", "--all-features"][..],
        &["-p", "slipring-cli"],
        &["-p", "slipring-bridge"],
        &["-p", "slipring-bridge", "--all-features"],
        &["-p", "bench-harness"],
    ] {
        // The client of the bridge has parts of a TLS library, which nothing else takes in.
        let more = if of.contains(&"slipring-bridge") { "ISC" } else { "MIT" };
        let refused: Vec<_> =
            tree(of).into_iter().filter(|(_, licence)| !is_allowed(&licence.replace(more, "MIT"))).collect();
        assert!(refused.is_empty(), "{of:?}: {refused:?}");
    }
}

#[test]
fn the_default_tree_is_as_small_as_it_was_and_runs_nothing_new_when_it_is_built() {
    let packages = tree(&["-p", "slipring"]);
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = cargo(&["metadata", "--format-version", "1", "--filter-platform", host]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let of_kind = |kind: &str| -> BTreeSet<String> {
        let all = metadata["packages"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ours = all.filter(|it| packages.contains_key(&(text(&it["name"]), text(&it["version"]))));
        let has = |it: &&Value| {
            let targets = it["targets"].as_array().unwrap().iter();
            targets.flat_map(|target| target["kind"].as_array().unwrap()).any(|it| it == kind)
        };
        ours.filter(has).map(|it| text(&it["name"])).collect()
    };
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<String> =
        packages.keys().filter(|(name, _)| !seen.insert(name)).map(|it| it.0.clone()).collect();
    let (scripts, macros) = (of_kind("custom-build"), of_kind("proc-macro"));
    println!("{} packages, twice {twice:?}, build scripts {scripts:?}, proc macros {macros:?}", packages.len());
    let new = |found: &BTreeSet<String>, known: &[&str]| {
        let new: Vec<_> = found.iter().filter(|it| !known.contains(&it.as_str())).cloned().collect();
        new
    };
    assert_eq!(new(&scripts, &BUILD_SCRIPTS), Vec::<String>::new(), "new build scripts");
    assert_eq!(new(&macros, &PROC_MACROS), Vec::<String>::new(), "new proc macros");
    assert_eq!(new(&twice, &TWICE), Vec::<String>::new(), "in two versions");
    assert!(macros.len() > 1 && scripts.len() > 2, "the kinds are found: {scripts:?}, {macros:?}");
    assert!(packages.len() <= PACKAGES, "{} packages: {:?}", packages.len(), packages.keys());
}

/// The packages that are published, with their folders.
const PUBLISHED: [(&str, &str); 5] = [
    ("slipring-ring", "ring"),
    ("slipring-journal", "engine/journal"),
    ("slipring", "engine"),
    ("slipring-cli", "engine/cli"),
    ("slipring-bridge", "engine/bridge"),
];

#[test]
fn a_published_package_says_what_it_is_and_holds_its_licences_and_no_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let published: BTreeSet<&str> = packages
        .iter()
        .filter(|it| it["publish"] != serde_json::json!([]))
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(published, PUBLISHED.iter().map(|it| it.0).collect(), "the list above is the list of packages");
    for (name, folder) in PUBLISHED {
        let package = packages.iter().find(|it| it["name"] == name).unwrap();
        for field in ["description", "license", "readme", "documentation", "rust_version"] {
            assert!(package[field].is_string(), "{name} has no {field}");
        }
        for (field, most) in [("keywords", 5), ("categories", 5)] {
            let count = package[field].as_array().unwrap().len();
            assert!((1..=most).contains(&count), "{name} has {count} {field}");
        }
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            let text = |folder: &Path| std::fs::read_to_string(folder.join(licence)).unwrap();
            assert_eq!(text(&root.join(folder)), text(root), "{folder}/{licence}");
        }
        let listed = cargo(&["package", "--list", "--allow-dirty", "-p", name]);
        for needed in ["README.md", "LICENSE-APACHE", "LICENSE-MIT", "Cargo.toml"] {
            assert!(listed.lines().any(|it| it == needed), "{name} lacks {needed}:\n{listed}");
        }
        // Data of an example may lie beside the tests.
        let is_test = |it: &&str| it.contains("tests/") && it.ends_with(".rs") && !it.starts_with("src/");
        let stray: Vec<_> =
            listed.lines().filter(|it| is_test(it) || it.starts_with("fuzz/") || it.starts_with("target/")).collect();
        assert!(stray.is_empty(), "{name} holds {stray:?}");
    }
}
