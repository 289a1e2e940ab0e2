//! The mutants: who kills each, and which nobody can.

use crate::run::{self, Model, Outcome};
use crate::sites::Catalogue;
use crate::{Options, docs, in_parallel, table};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What became of a mutant.
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
    Survived {
        /// How long they took.
        took: Duration,
    },
    /// On the list of those that no model can kill, and not tried.
    Listed,
}

/// A mutant that no model can kill.
pub struct Survivor {
    /// Its name.
    pub mutant: &'static str,
    /// Why no model sees it.
    pub reason: &'static str,
    /// What shows the ordering to be right instead.
    pub covered_by: &'static str,
}

/// The short list: none at present.
pub const SURVIVORS: &[Survivor] = &[];

/// Runs each mutant against the models until one kills it: first against the one that the documentation names, then
/// against the others, by what they cost. Returns what is wrong, and how many there were.
pub fn run(
    models: &[Model],
    costs: &HashMap<&str, Duration>,
    options: &Options,
) -> Result<(Vec<String>, usize), String> {
    let mut wrong = Vec::new();
    let catalogue = Catalogue::read()?;
    let mut mutants = catalogue.mutants();
    for survivor in SURVIVORS.iter().filter(|survivor| !mutants.iter().any(|mutant| mutant == survivor.mutant)) {
        wrong.push(format!("{} is on the list of survivors, but there is no such mutant", survivor.mutant));
    }
    mutants.retain(|mutant| options.wants(mutant));
    let known = docs::killers()?;
    table::mutants_begin();
    let fates = in_parallel(
        &mutants,
        |mutant| match SURVIVORS.iter().any(|survivor| survivor.mutant == mutant) && options.quick {
            true => Fate::Listed,
            false => hunt(mutant, known.get(mutant).map(String::as_str), models, costs),
        },
        |mutant, fate| table::mutant(mutant, fate),
    );
    let mut killers = HashMap::new();
    for (mutant, fate) in mutants.iter().zip(&fates) {
        let listed = SURVIVORS.iter().any(|survivor| survivor.mutant == mutant);
        match fate {
            Fate::Survived { .. } if !listed => wrong.push(format!("the mutant {mutant} survived")),
            Fate::Killed { by, .. } if listed => {
                wrong.push(format!("the mutant {mutant} is listed as a survivor, but {by} kills it"));
            }
            Fate::Killed { by, .. } => {
                killers.insert(mutant.clone(), by.clone());
            }
            _ => {}
        }
    }
    table::mutants_end(&fates);
    if options.write_docs {
        let kept = known.into_iter().filter(|(mutant, _)| !mutants.contains(mutant));
        killers.extend(kept);
        docs::write(&catalogue, &killers)?;
    }
    Ok((wrong, mutants.len()))
}

/// A mutant may make a model explode: that is no kill, and there are others.
const LIMIT: Duration = Duration::from_secs(40);

/// For the model that the documentation names: on a busy machine it may need longer, and others would be tried in vain.
const LIMIT_OF_THE_EXPECTED: Duration = Duration::from_secs(150);

fn hunt(mutant: &str, expected: Option<&str>, models: &[Model], costs: &HashMap<&str, Duration>) -> Fate {
    let mut order: Vec<&Model> = models.iter().collect();
    // Of what has not run in this process, nobody knows the cost: last.
    let cost = |model: &Model| costs.get(model.name.as_str()).copied().unwrap_or(Duration::MAX);
    order.sort_by_key(|model| (Some(model.name.as_str()) != expected, cost(model)));
    let started = Instant::now();
    for model in order {
        let limit = if Some(model.name.as_str()) == expected { LIMIT_OF_THE_EXPECTED } else { LIMIT };
        if let Outcome::Found { what, .. } = run::model(model, Some(mutant), false, limit) {
            return Fate::Killed { by: model.name.clone(), what, took: started.elapsed() };
        }
    }
    Fate::Survived { took: started.elapsed() }
}
