//! The generated part of `docs/MEMORY_ORDERING.md`: the sites, and who kills which mutant. The runner takes its hints
//! from there and writes it anew with `--write-docs`; a test holds it to the code.

use crate::build::workspace;
use crate::mutants::SURVIVORS;
use crate::sites::{Catalogue, mutant};
use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

const BEGIN: &str = "<!-- written by `bash loom-tests/run --write-docs`: begin -->\n";
const END: &str = "<!-- end -->\n";
const NOBODY: &str = "nobody, see below";

fn path() -> PathBuf {
    workspace().join("docs/MEMORY_ORDERING.md")
}

/// The text before the generated part, that part, and the text after it.
fn parts() -> Result<[String; 3], String> {
    let path = path();
    let page = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let split = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (generated, after) = rest.split_once(END)?;
        Some([before, generated, after].map(str::to_owned))
    });
    split.ok_or_else(|| format!("{} has lost the marks of its generated part", path.display()))
}

/// Which model kills which mutant, as the page says.
pub fn killers() -> Result<HashMap<String, String>, String> {
    let [_, generated, _] = parts()?;
    let mut killers = HashMap::new();
    for line in generated.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            ["", site, _, _, _, kills, ""] => {
                let kills = kills.split("; ").filter_map(|kill| kill.split_once(": "));
                killers.extend(kills.map(|(weaker, by)| (mutant(site, weaker), by.to_owned())));
            }
            ["", fault, _, by, ""] => {
                killers.insert(fault.to_owned(), by.to_owned());
            }
            _ => {}
        }
    }
    killers.retain(|_, by| by.contains("::"));
    Ok(killers)
}

/// The generated part, from what was measured.
fn generate(catalogue: &Catalogue, killers: &HashMap<String, String>) -> String {
    let by = |mutant: &str| killers.get(mutant).map_or(NOBODY, String::as_str);
    let mut page =
        String::from("| site | strength | partner | what | weakened to: killed by |\n|---|---|---|---|---|\n");
    for site in &catalogue.sites {
        let kills = site.weaker.iter().map(|weaker| format!("{weaker}: {}", by(&mutant(&site.name, weaker))));
        let kills = if site.weaker.is_empty() { "none".to_owned() } else { kills.collect::<Vec<_>>().join("; ") };
        let _ = writeln!(page, "| {} | {} | {} | {} | {kills} |", site.name, site.order, site.partner, site.what);
    }
    page.push_str("\n| fault of logic | what is wrong | killed by |\n|---|---|---|\n");
    for fault in &catalogue.faults {
        let _ = writeln!(page, "| {} | {} | {} |", fault.name, fault.what, by(&fault.name));
    }
    page.push_str("\n| no model can kill | because | covered by |\n|---|---|---|\n");
    for survivor in SURVIVORS {
        let _ = writeln!(page, "| {} | {} | {} |", survivor.mutant, survivor.reason, survivor.covered_by);
    }
    page
}

/// Writes the page anew.
pub fn write(catalogue: &Catalogue, killers: &HashMap<String, String>) -> Result<(), String> {
    let [before, _, after] = parts()?;
    let page = format!("{before}{BEGIN}{}{END}{after}", generate(catalogue, killers));
    fs::write(path(), page).map_err(|error| format!("{}: {error}", path().display()))
}

/// Whether the page is what would be written with the killers that it names; else what is wrong.
pub fn check() -> Result<(), String> {
    let catalogue = Catalogue::read()?;
    let killers = killers()?;
    let [_, generated, _] = parts()?;
    let expected = generate(&catalogue, &killers);
    for (is, should) in generated.lines().zip(expected.lines()) {
        if is != should {
            return Err(format!("docs/MEMORY_ORDERING.md has\n{is}\nwhere the code has\n{should}"));
        }
    }
    if generated != expected {
        return Err("docs/MEMORY_ORDERING.md has more or fewer lines than the code has sites".to_owned());
    }
    let listed = |mutant: &String| SURVIVORS.iter().any(|survivor| survivor.mutant == mutant);
    for mutant in catalogue.mutants() {
        if killers.contains_key(&mutant) == listed(&mutant) {
            return Err(format!("docs/MEMORY_ORDERING.md must name either who kills {mutant} or why nobody can"));
        }
    }
    Ok(())
}
