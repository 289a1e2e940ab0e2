//! Ring's sites and faults, as declared in `ring/src/ordering.rs` and `ring/src/fault.rs`.

use crate::build::workspace;
use std::fs;

/// An ordering with a name, which ring declares once and uses at one or more accesses or fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The site's name.
    pub name: String,
    /// Its ordering in production.
    pub order: String,
    /// The next weaker orderings, each a mutant at each use; empty if the site is relaxed.
    pub weaker: Vec<String>,
    /// The names of the sites that it synchronises with, as one text.
    pub partner: String,
    /// Its documentation, in one line.
    pub what: String,
}

/// All sites and faults.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The sites, in the order of the file.
    pub sites: Vec<Site>,
    /// The faults, in the order of the file.
    pub faults: Vec<Fault>,
}

/// A wrong step in ring's logic that models can switch on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name.
    pub name: String,
    /// Its documentation, in one line.
    pub what: String,
}

/// The source files of ring, as paths in its source folder, in order.
pub fn ring_files() -> Result<Vec<String>, String> {
    let source = workspace().join("ring/src");
    let wrong = |error: std::io::Error| format!("{}: {error}", source.display());
    let (mut files, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(source.join(&folder)).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let path = format!("{folder}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => folders.push(format!("{path}/")),
                false if path.ends_with(".rs") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

impl Catalogue {
    /// Reads the two files. Ring ends a process whose mutant it does not know, so a misread name cannot pass for a
    /// kill.
    pub fn read() -> Result<Self, String> {
        let read = |name: &str| {
            let path = workspace().join("ring/src").join(name);
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Self::parse(&read("ordering.rs")?, &read("fault.rs")?)
            .ok_or_else(|| "the table of sites or of faults is not as it was".to_owned())
    }

    fn parse(sites: &str, faults: &str) -> Option<Self> {
        let site = |line: &str, what: String| {
            let (name, rest) = line.split_once(": ")?;
            let (order, rest) = rest.split_once(" => [")?;
            // Production relaxes an access that a fence orders; only ThreadSanitizer's build gives it the fence's ordering.
            let order = if order.starts_with("by_fence(") { "Relaxed" } else { order };
            let (weaker, rest) = rest.split_once("], \"")?;
            let weaker = weaker.split(", ").filter(|order| !order.is_empty()).map(str::to_owned).collect();
            let partner = rest.strip_suffix("\";")?.to_owned();
            Some(Site { name: name.to_owned(), order: order.to_owned(), weaker, partner, what })
        };
        let fault = |line: &str, what| Some(Fault { name: line.strip_suffix(';')?.to_owned(), what });
        Some(Self { sites: rows(sites, "\nsites! {\n", site)?, faults: rows(faults, "\nfaults! {\n", fault)? })
    }
}

/// The rows of the table that begins with `begin`: its lines, each with the documentation before it. `None` if there is
/// no such table, or if `row` refuses a line.
fn rows<R>(source: &str, begin: &str, row: impl Fn(&str, String) -> Option<R>) -> Option<Vec<R>> {
    let (table, _) = source.split_once(begin)?.1.split_once("\n}\n")?;
    let (mut rows, mut what) = (Vec::new(), String::new());
    for line in table.lines().map(str::trim) {
        if let Some(more) = line.strip_prefix("/// ") {
            what.push_str(if what.is_empty() { "" } else { " " });
            what.push_str(more);
        } else {
            rows.push(row(line, std::mem::take(&mut what))?);
        }
    }
    Some(rows)
}

/// The name of the mutant that weakens a site, or one use of a site, to `weaker`.
pub fn mutant(site: &str, weaker: &str) -> String {
    format!("{site}=>{weaker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_and_faults_are_read() {
        let sites = "x\nsites! {\n    /// One.\n    /// Two.\n    A: AcqRel => [Acquire, Release], \"B\";\n    \
            /// Three.\n    B: Relaxed => [], \"A\";\n}\n";
        let faults = "x\nfaults! {\n    /// Nobody is woken.\n    NoWake;\n}\n";
        let read = Catalogue::parse(sites, faults).unwrap();
        assert_eq!(read.sites.len(), 2);
        assert_eq!((read.sites[0].what.as_str(), read.sites[1].partner.as_str()), ("One. Two.", "A"));
        assert_eq!(read.faults[0].what, "Nobody is woken.");
        assert_eq!(read.sites[0].weaker, ["Acquire", "Release"]);
        assert!(Catalogue::parse("sites! {\n", faults).is_none());
    }
}
