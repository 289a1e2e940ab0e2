//! The layers of engine: what a file may import, and what it must not.
//!
//! Also that one name means one thing, and that no file is too long to be read at once.
//!
//! Reads `engine/src` as tokens, follows each path that begins with `crate`, `self`, `super` or a name that a `use` has
//! brought in to the file that defines what it names, and compares the layers of the two files. Tests inside of the library
//! may import anything.

mod imports;
mod names;

use imports::{Import, Library};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The layers from the top down. A file imports from its own layer and from the floors below; layers that stand on one floor
/// do not import one another.
const FLOORS: [&[&str]; 10] = [
    &["face"],
    &["edge"],
    &["engine"],
    &["transform", "group", "queue", "share"],
    &["read"],
    &["produce"],
    &["topic"],
    &["log"],
    &["event"],
    &["base"],
];

/// Imports that run up: `importer imported` in each line. None may come, and one that has gone must go from the list.
const UPWARD: &str = include_str!("upward.txt");

/// The most files of one layer that import one another in a circle, where today's circle is larger than that.
const CIRCLE: usize = 4;

/// Layers with a larger circle, and how many files it has. No number may grow.
const LARGER_CIRCLES: [(&str, usize); 0] = [];

fn lines(list: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("two words in each line: {line:?}")))
}

/// The layer of a file: the folder in `src` that it stands in. None for `lib.rs`, which is the crate's face and shows what all layers have.
fn layer(file: &str) -> Option<&'static str> {
    if file == "lib.rs" {
        return None;
    }
    let name = file.split_once('/').map_or(file.trim_end_matches(".rs"), |(folder, _)| folder);
    let known = FLOORS.iter().copied().flatten().find(|&&known| known == name);
    Some(known.unwrap_or_else(|| panic!("engine/src/{file} stands in no layer: move it into the folder of its layer")))
}

fn floor(layer: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&layer)).unwrap()
}

fn runs_up(import: &Import) -> bool {
    let (Some(from), Some(to)) = (layer(&import.from), layer(&import.to)) else {
        // What is named by its place in `lib.rs` has been followed to its definition; what is left is defined there.
        return import.to == "lib.rs" && import.from != "lib.rs";
    };
    from != to && floor(from) >= floor(to)
}

#[test]
fn imports_run_down() {
    let library = Library::read("src");
    assert!(
        library.files.len() > 100 && library.imports.len() > 1000,
        "the library is read: {} files",
        library.files.len()
    );
    let mut up: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for import in library.imports.iter().filter(|import| runs_up(import)) {
        up.entry((&import.from, &import.to)).or_default().insert(&import.name);
    }
    let known: BTreeSet<_> = lines(UPWARD).collect();
    let mut told = String::new();
    for ((from, to), names) in up.iter().filter(|(pair, _)| !known.contains(*pair)) {
        let names = names.iter().copied().collect::<Vec<_>>().join(", ");
        let (lower, upper) = (layer(from).unwrap_or("lib"), layer(to).unwrap_or("lib"));
        writeln!(told, "{from} ({lower}) imports {names} from {to} ({upper})").unwrap();
    }
    assert!(told.is_empty(), "imports that run up; move the definition down, or the use of it up:\n{told}");
    let gone: Vec<_> = known.iter().filter(|pair| !up.contains_key(*pair)).collect();
    assert!(gone.is_empty(), "gone, take these lines from engine/tests/layers/upward.txt: {gone:#?}");
}

/// Files of one layer that all reach one another by imports.
fn circles(library: &Library, layer: fn(&str) -> Option<&'static str>) -> Vec<(&'static str, Vec<&str>)> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Import { from, to, .. } in &library.imports {
        if from != to && layer(from).is_some() && layer(from) == layer(to) {
            next.entry(from).or_default().insert(to);
        }
    }
    let reached = |from| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(next.get(file).into_iter().flatten().filter(|&&to| seen.insert(to)));
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|&file| (file, reached(file))).collect();
    let mut circles = BTreeSet::new();
    for (&file, reaches) in &reach {
        let comes_back = |to: &&&str| reach.get(**to).is_some_and(|back| back.contains(file));
        let circle: Vec<&str> = reaches.iter().filter(comes_back).copied().collect();
        if circle.len() > 1 {
            circles.insert((layer(file).unwrap(), circle));
        }
    }
    circles.into_iter().collect()
}

#[test]
fn circles_are_small() {
    // The journal is one layer, in a package of its own.
    let (library, journal) = (Library::read("src"), Library::read("journal/src"));
    let all = circles(&library, layer).into_iter().chain(circles(&journal, |_| Some("journal package")));
    let mut largest: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (layer, circle) in all {
        let known = largest.entry(layer).or_default();
        if circle.len() > known.len() {
            *known = circle;
        }
    }
    let allowed =
        |layer: &str| LARGER_CIRCLES.iter().find(|(name, _)| *name == layer).map_or(CIRCLE, |(_, files)| *files);
    let too_large: Vec<_> = largest.iter().filter(|(layer, circle)| circle.len() > allowed(layer)).collect();
    assert!(too_large.is_empty(), "files that import one another in a circle: {too_large:#?}");
    for (layer, files) in LARGER_CIRCLES {
        let now = largest.get(layer).map_or(0, Vec::len);
        assert_eq!(
            now, files,
            "the circle of {layer} is smaller now: say so in LARGER_CIRCLES (from {CIRCLE} on take it out)"
        );
    }
}

/// Types that are defined once for each platform, under one name and with one meaning.
const BY_PLATFORM: [&str; 2] = ["Disk", "DiskFile"];

#[test]
fn a_type_name_has_one_meaning() {
    let mut twice = String::new();
    // A name may mean one thing in each package: an engine's reader is not the journal's.
    for (src, at_least) in [("src", 300), ("journal/src", 120)] {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in Library::read(src).files {
            let text = std::fs::read_to_string(format!("{}/{src}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            for name in names::defined(&text) {
                places.entry(name).or_default().push(format!("{src}/{file}"));
            }
        }
        assert!(places.len() > at_least, "the types of {src} are read: {}", places.len());
        places.retain(|name, files| files.len() > 1 && !BY_PLATFORM.contains(&name.as_str()));
        for (name, files) in places {
            writeln!(twice, "{name}: {files:?}").unwrap();
        }
    }
    assert!(twice.is_empty(), "one name with two meanings; let each carry its owner:\n{twice}");
}

/// The most lines of a file that is not for tests alone.
const LINES: usize = 500;

/// The Rust files below a folder, but for those of tests alone.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|cause| panic!("{}: {cause}", folder.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match path.is_dir() {
            _ if ["tests", "tests.rs"].contains(&name) => {}
            true => sources(&path, found),
            false if name.ends_with(".rs") => found.push(path),
            false => {}
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in [
        "ring/src",
        "ring/capi/src",
        "engine/src",
        "engine/journal/src",
        "engine/cli/src",
        "engine/bridge/src",
        "bench-harness/src",
        "loom-tests/src",
    ] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 200, "the files are found: {}", files.len());
    let mut longer = BTreeMap::new();
    for file in &files {
        let lines = std::fs::read_to_string(file).unwrap().lines().count();
        if lines > LINES {
            longer.insert(file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"), lines);
        }
    }
    assert!(
        longer.is_empty(),
        "longer than {LINES} lines: split them by what they hold, tests into files of their own: {longer:#?}"
    );
}
