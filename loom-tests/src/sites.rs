//! Ring's sites and faults, as `ring/src/ordering.rs` declares them.

use crate::build::workspace;
use std::fs;

/// A named ordering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// In production.
    pub order: String,
    /// The next weaker ones.
    pub weaker: Vec<String>,
    /// The other end.
    pub partner: String,
    /// What it is for.
    pub what: String,
}

/// What there is to weaken.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// In the order of the file.
    pub sites: Vec<Site>,
    /// Faults of logic, by name.
    pub faults: Vec<String>,
}

impl Catalogue {
    /// Reads the file of sites. A mutant that it does not know ends the process that is to run with it, so that a
    /// misreading can't pass for a kill.
    pub fn read() -> Result<Self, String> {
        let path = workspace().join("ring/src/ordering.rs");
        let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&source).ok_or_else(|| format!("{}: the table of sites is not as it was", path.display()))
    }

    fn parse(source: &str) -> Option<Self> {
        let (_, table) = source.split_once("\nsites! {\n")?;
        let (table, rest) = table.split_once("\n}\n")?;
        let (mut sites, mut what) = (Vec::new(), String::new());
        for line in table.lines().map(str::trim) {
            if let Some(more) = line.strip_prefix("/// ") {
                what.push_str(if what.is_empty() { "" } else { " " });
                what.push_str(more);
                continue;
            }
            let (name, rest) = line.split_once(": ")?;
            let (order, rest) = rest.split_once(" => [")?;
            let (weaker, rest) = rest.split_once("], \"")?;
            let weaker = weaker.split(", ").filter(|order| !order.is_empty()).map(str::to_owned).collect();
            let (name, order) = (name.to_owned(), order.to_owned());
            let partner = rest.strip_suffix("\";")?.to_owned();
            sites.push(Site { name, order, weaker, partner, what: std::mem::take(&mut what) });
        }
        let (_, faults) = rest.split_once("FAULTS: &[&str] = &[\n")?;
        let (faults, _) = faults.split_once("\n];\n")?;
        let faults = faults.lines().map(|line| line.trim().strip_prefix('"')?.strip_suffix("\",").map(str::to_owned));
        Some(Self { sites, faults: faults.collect::<Option<_>>()? })
    }

    /// Every mutant, by the name that `SLIPRING_MUTANT` takes.
    pub fn mutants(&self) -> Vec<String> {
        let weakened = self.sites.iter().flat_map(|site| site.weaker.iter().map(|weaker| mutant(&site.name, weaker)));
        weakened.chain(self.faults.iter().cloned()).collect()
    }
}

/// The name of a weakened site.
pub fn mutant(site: &str, weaker: &str) -> String {
    format!("{site}=>{weaker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_and_faults_are_read() {
        let source = "x\nsites! {\n    /// One.\n    /// Two.\n    A: AcqRel => [Acquire, Release], \"B\";\n    \
            /// Three.\n    B: Relaxed => [], \"A\";\n}\npub const FAULTS: &[&str] = &[\n    \"no wake\",\n];\n";
        let read = Catalogue::parse(source).unwrap();
        assert_eq!(read.sites.len(), 2);
        assert_eq!((read.sites[0].what.as_str(), read.sites[1].partner.as_str()), ("One. Two.", "A"));
        assert_eq!(read.mutants(), ["A=>Acquire", "A=>Release", "no wake"]);
        assert!(Catalogue::parse("sites! {\n").is_none());
    }
}
