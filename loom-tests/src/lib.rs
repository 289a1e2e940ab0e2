//! Builds the models once for each configuration, runs them and the mutants, and judges their output.
//!
//! [`build`] has the configurations, [`run`] one process and the meaning of its output, [`sites`] the sites and faults,
//! [`uses`] their places in the source, [`mutants`] the search for each mutant's killer, [`docs`] the page with the
//! result, [`table`] the printed report, [`sanitize`] the tools of a nightly toolchain. [`edits`] draws random edits of
//! ring's source, and [`trial`] tries them.

pub mod build;
pub mod docs;
pub mod edits;
pub mod mutants;
pub mod run;
pub mod sanitize;
pub mod sites;
pub mod table;
pub mod trial;
pub mod uses;

use build::Configuration;
use run::{Model, Outcome, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

/// The options of a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Run less of each model: at most two preemptions, or one if the model has a bound of its own, and a tenth of
    /// shuttle's schedules. Mutants run in full.
    pub quick: bool,
    /// Run only models and mutants whose names contain this text; `None` for all.
    pub filter: Option<String>,
    /// Run no mutants.
    pub models_only: bool,
    /// Write the model that kills each mutant into docs/MEMORY_ORDERING.md. Only then are listed survivors run.
    pub write_docs: bool,
    /// Run only tests of ring and of engine's events, under this tool; `None` for the models and mutants.
    pub tool: Option<sanitize::Tool>,
    /// Run only edits of ring, drawn with a seed; `None` for the models and mutants.
    pub draw: Option<trial::Draw>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }
}

/// The time limit of a model. A model that exceeds it has failed: it needs a bound or a smaller shape.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the models, then the mutants, and prints the tables. The error lists what failed.
pub fn everything(options: &Options) -> Result<(), String> {
    if let Some(tool) = options.tool {
        return tool.run();
    }
    if let Some(draw) = options.draw {
        return trial::run(draw);
    }
    let mut models: Vec<Model> = Vec::new();
    for configuration in [Configuration::Loom, Configuration::Reclaim, Configuration::Shuttle] {
        models.extend(run::list(&build::build(configuration)?)?);
    }
    let wanted: Vec<Model> = models.iter().filter(|model| options.wants(&model.name)).cloned().collect();
    table::models_begin();
    let outcomes =
        in_parallel(&wanted, |model| run::model_with(model, &[run::PLACES], options.quick, LIMIT), table::model);
    table::models_end(&outcomes);
    let mut wrong: Vec<String> = Vec::new();
    for (model, outcome) in wanted.iter().zip(&outcomes) {
        if !matches!(outcome, Outcome::Completed { .. }) {
            wrong.push(format!("the model {} {}", model.name, outcome.complaint()));
        }
    }
    let mut ran = outcomes.len();
    if !options.models_only {
        let costs = wanted.iter().zip(&outcomes).map(|(model, outcome)| (model.name.as_str(), outcome.took()));
        let costs = costs.collect();
        // shuttle treats every ordering as sequentially consistent, so no weakened ordering fails there.
        models.retain(|model| model.binary.configuration != Configuration::Shuttle);
        let uses = uses::name(&places(&models, &wanted, &outcomes))?;
        let (survived, tried) = mutants::run(&models, &uses, &costs, options)?;
        wrong.extend(survived);
        ran += tried;
    }
    if ran == 0 {
        wrong.push("no model and no mutant has such a name".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// The names of the models that execute each place. Models that are not wanted are run here, since their places are not
/// known yet.
fn places(models: &[Model], wanted: &[Model], outcomes: &[Outcome]) -> BTreeMap<Place, BTreeSet<String>> {
    let others: Vec<Model> = models.iter().filter(|it| wanted.iter().all(|w| w.name != it.name)).cloned().collect();
    let asked = in_parallel(&others, |model| run::model_with(model, &[run::PLACES], true, LIMIT), |_, _| ());
    let mut seen: BTreeMap<Place, BTreeSet<String>> = BTreeMap::new();
    for (model, outcome) in wanted.iter().zip(outcomes).chain(others.iter().zip(&asked)) {
        if let Outcome::Completed { places, .. } = outcome {
            places.iter().for_each(|place| _ = seen.entry(place.clone()).or_default().insert(model.name.clone()));
        }
    }
    seen
}

/// Runs `work` on each item, with one thread per core, and calls `tell` with each result as it is done. Returns the
/// results in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
    tell: impl Fn(&T, &R) + Sync,
) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    let next = Mutex::new(0..items.len());
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let Some(index) = next.lock().unwrap().next() else { return };
                    let result = work(&items[index]);
                    let mut results = results.lock().unwrap();
                    tell(&items[index], &result);
                    results.push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
