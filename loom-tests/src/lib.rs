//! Builds the models once for each configuration, runs them and the mutants, and judges what they print.
//!
//! [`build`] knows the configurations, [`run`] one process and what its output means, [`sites`] what there is to weaken,
//! [`uses`] in which places, [`mutants`] who kills whom, [`docs`] the page that says so, [`table`] the report, [`sanitize`] the
//! tools of a nightly toolchain. [`edits`] draws changes of ring that nobody thought up, and [`trial`] tries them.

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

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Less: models at most two preemptions deep, and no attempt at the mutants that are listed as survivors.
    pub quick: bool,
    /// Only models and mutants whose name contains this.
    pub filter: Option<String>,
    /// Leave the mutants out.
    pub models_only: bool,
    /// Write which model kills which mutant into docs/MEMORY_ORDERING.md.
    pub write_docs: bool,
    /// Only ring's behaviour tests, under this tool.
    pub tool: Option<sanitize::Tool>,
    /// Only edits of ring, drawn with a seed.
    pub draw: Option<trial::Draw>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }
}

/// No model may take longer: a bound or a smaller shape is due then.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs models, then mutants. Prints the tables; an error says what is wrong.
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
        // shuttle takes every ordering for sequentially consistent.
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

/// The places that models come by. Those that were not wanted are asked now.
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

/// Works on `items` with as many threads as there are cores, and tells of each as it is done; the results in the items'
/// order.
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
