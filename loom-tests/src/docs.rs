//! The generated part of `docs/MEMORY_ORDERING.md`: the sites, their uses, and the model that kills each mutant. The
//! runner reads there which model to try first with a mutant, and rewrites the part with `--write-docs`. A test
//! compares it with the code.

use crate::build::workspace;
use crate::mutants::SURVIVORS;
use crate::sites::{Catalogue, Site, mutant};
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

/// The model that kills each mutant, according to the page. A mutant that no model kills has no entry.
pub fn killers() -> Result<HashMap<String, String>, String> {
    let [_, generated, _] = parts()?;
    let mut killers = HashMap::new();
    for cells in rows(&generated) {
        match &cells[..] {
            [at, kills] => {
                let kills = kills.split("; ").filter_map(|kill| kill.split_once(": "));
                killers.extend(kills.map(|(weaker, by)| (mutant(at, weaker), by.to_owned())));
            }
            [fault, _, by] => {
                killers.insert(fault.clone(), by.clone());
            }
            _ => {}
        }
    }
    killers.retain(|_, by| by.contains("::"));
    Ok(killers)
}

/// The uses of sites that the page lists.
pub fn uses() -> Result<Vec<String>, String> {
    let [_, generated, _] = parts()?;
    Ok(rows(&generated).into_iter().filter(|cells| cells.len() == 2).map(|mut cells| cells.swap_remove(0)).collect())
}

/// The uses of one site.
fn of_site<'u>(uses: &'u [String], site: &'u Site) -> impl Iterator<Item = &'u String> {
    uses.iter().filter(|at| at.split('@').next() == Some(&site.name))
}

/// The rows of the tables of sites (four cells), uses (two) and faults (three).
fn rows(generated: &str) -> Vec<Vec<String>> {
    let known = generated.split(SURVIVE).next().unwrap_or_default();
    let cells = |line: &str| {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some(inner.split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>())
    };
    let rows = known.lines().filter_map(cells);
    rows.filter(|cells| !["site", "use", "fault of logic"].contains(&cells[0].as_str())).collect()
}

const SURVIVE: &str = "\n| no model can kill | because | covered by |\n|---|---|---|\n";

/// The generated part, for these uses and killers.
fn generate(catalogue: &Catalogue, uses: &[String], killers: &HashMap<String, String>) -> String {
    let by = |mutant: &str| killers.get(mutant).map_or(NOBODY, String::as_str);
    let mut page = String::from("| site | strength | partner | what |\n|---|---|---|---|\n");
    for site in &catalogue.sites {
        let _ = writeln!(page, "| {} | {} | {} | {} |", site.name, site.order, site.partner, site.what);
    }
    page.push_str("\n| use | weakened to: killed by |\n|---|---|\n");
    for site in &catalogue.sites {
        for at in of_site(uses, site) {
            let kills: Vec<_> = site.weaker.iter().map(|it| format!("{it}: {}", by(&mutant(at, it)))).collect();
            let _ = writeln!(page, "| {at} | {} |", kills.join("; "));
        }
    }
    page.push_str("\n| fault of logic | what is wrong | killed by |\n|---|---|---|\n");
    for fault in &catalogue.faults {
        let _ = writeln!(page, "| {} | {} | {} |", fault.name, fault.what, by(&fault.name));
    }
    page.push_str(SURVIVE);
    for survivor in SURVIVORS {
        let _ = writeln!(page, "| {} | {} | {} |", survivor.mutant, survivor.reason, survivor.covered_by);
    }
    page
}

/// Rewrites the generated part of the page.
pub fn write(catalogue: &Catalogue, uses: &[String], killers: &HashMap<String, String>) -> Result<(), String> {
    let [before, _, after] = parts()?;
    let page = format!("{before}{BEGIN}{}{END}{after}", generate(catalogue, uses, killers));
    fs::write(path(), page).map_err(|error| format!("{}: {error}", path().display()))
}

/// Compares the page with the text that would be generated for its own uses and killers. The error describes the
/// difference.
pub fn check() -> Result<(), String> {
    let catalogue = Catalogue::read()?;
    let (uses, killers) = (uses()?, killers()?);
    let [_, generated, _] = parts()?;
    let expected = generate(&catalogue, &uses, &killers);
    for (is, should) in generated.lines().zip(expected.lines()) {
        if is != should {
            return Err(format!("docs/MEMORY_ORDERING.md has\n{is}\nwhere the code has\n{should}"));
        }
    }
    if generated != expected {
        return Err("docs/MEMORY_ORDERING.md has more or fewer lines than the code has sites".to_owned());
    }
    let weakened = catalogue
        .sites
        .iter()
        .flat_map(|site| of_site(&uses, site).flat_map(|at| site.weaker.iter().map(|weaker| mutant(at, weaker))));
    let listed = |mutant: &String| SURVIVORS.iter().any(|survivor| survivor.mutant == mutant);
    for mutant in weakened.chain(catalogue.faults.iter().map(|fault| fault.name.clone())) {
        if killers.contains_key(&mutant) == listed(&mutant) {
            return Err(format!("docs/MEMORY_ORDERING.md must name either who kills {mutant} or why nobody can"));
        }
    }
    Ok(())
}
