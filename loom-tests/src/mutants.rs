//! The mutants: which there are, who is expected to kill each, and which nobody can.

use crate::build::Binary;
use crate::run::{self, Model, Outcome};
use crate::{Options, in_parallel, table};
use std::time::Duration;

/// A named ordering one step weaker, or a fault of logic.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// What `SLIPRING_MUTANT` takes.
    pub name: String,
}

/// What became of one.
#[derive(Clone, Debug)]
pub enum Fate {
    /// A model failed, and said why.
    Killed {
        /// The model.
        by: String,
        /// Its words.
        what: String,
        /// How long it took, the models that let it pass included.
        took: Duration,
    },
    /// Every model that ran let it pass.
    Survived,
}

/// Who is expected to kill whom; the others are tried after that. Measured: `--write-docs` prints what changed.
pub const KILLERS: &[(&str, &str)] = &[];

/// Mutants that no model can kill.
pub struct Survivor {
    /// Its name.
    pub mutant: &'static str,
    /// Why no model sees it.
    pub reason: &'static str,
    /// What shows the ordering to be right instead.
    pub covered_by: &'static str,
}

/// The short list.
pub const SURVIVORS: &[Survivor] = &[];

/// A site of ring's table of orderings.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// In production.
    pub order: String,
    /// The next weaker ones.
    pub weaker: Vec<String>,
    /// The other end.
    pub partner: String,
}

/// Asks the models' build for ring's sites and faults.
pub fn catalogue(binary: &Binary) -> Result<(Vec<Site>, Vec<String>), String> {
    let (_, said) = run::process(binary, "catalogue::print", &[]);
    let (mut sites, mut faults) = (Vec::new(), Vec::new());
    for line in said.lines() {
        let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
        match parts[..] {
            ["site", name, order, weaker, partner] => sites.push(Site {
                name: name.to_owned(),
                order: order.to_owned(),
                weaker: weaker.split(',').filter(|weaker| !weaker.is_empty()).map(str::to_owned).collect(),
                partner: partner.to_owned(),
            }),
            ["fault", name] => faults.push(name.to_owned()),
            _ => {}
        }
    }
    if sites.is_empty() || faults.is_empty() { Err(format!("no catalogue:\n{said}")) } else { Ok((sites, faults)) }
}

/// All of them.
pub fn all(sites: &[Site], faults: &[String]) -> Vec<Mutant> {
    let weakened = sites.iter().flat_map(|site| site.weaker.iter().map(|weaker| format!("{}=>{weaker}", site.name)));
    weakened.chain(faults.iter().cloned()).map(|name| Mutant { name }).collect()
}

/// Runs each mutant against the models until one kills it. Returns what is wrong.
pub fn run(binary: &Binary, models: &[Model], options: &Options) -> Result<Vec<String>, String> {
    let (sites, faults) = catalogue(binary)?;
    let mut mutants = all(&sites, &faults);
    mutants.retain(|mutant| options.wants(&mutant.name));
    let fates = in_parallel(&mutants, |mutant| hunt(mutant, models, options));
    table::mutants(&mutants, &fates);
    let mut wrong = Vec::new();
    for (mutant, fate) in mutants.iter().zip(&fates) {
        let listed = SURVIVORS.iter().any(|survivor| survivor.mutant == mutant.name);
        match fate {
            Fate::Survived if !listed => wrong.push(format!("the mutant {} survived", mutant.name)),
            Fate::Killed { by, .. } if listed => {
                wrong.push(format!("the mutant {} is listed as a survivor, but {by} kills it", mutant.name));
            }
            _ => {}
        }
    }
    Ok(wrong)
}

fn hunt(mutant: &Mutant, models: &[Model], options: &Options) -> Fate {
    let expected = KILLERS.iter().find(|(name, _)| *name == mutant.name).map(|(_, model)| *model);
    let mut order: Vec<&Model> = models.iter().filter(|model| Some(model.name.as_str()) == expected).collect();
    if !options.quick || order.is_empty() {
        order.extend(models.iter().filter(|model| Some(model.name.as_str()) != expected));
    }
    let started = std::time::Instant::now();
    for model in order {
        if let Outcome::Found { what, .. } = run::model(model, Some(&mutant.name), true) {
            return Fate::Killed { by: model.name.clone(), what, took: started.elapsed() };
        }
    }
    Fate::Survived
}
