//! Builds the models once for each configuration, runs them and the mutants, and judges what they print.
//!
//! [`build`] knows the configurations, [`run`] one process and what its output means, [`mutants`] who kills whom,
//! [`table`] the report.

pub mod build;
pub mod mutants;
pub mod run;
pub mod table;

use run::{Model, Outcome};
use std::sync::Mutex;

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Less: models at most two preemptions deep, mutants only against the model that is known to kill them.
    pub quick: bool,
    /// Only models and mutants whose name contains this.
    pub filter: Option<String>,
    /// Leave the mutants out.
    pub models_only: bool,
    /// Write what was measured into docs/MEMORY_ORDERING.md.
    pub write_docs: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }
}

/// Runs models, then mutants. Prints the tables; an error says what is wrong.
pub fn everything(options: &Options) -> Result<(), String> {
    let binaries = build::models()?;
    let mut models: Vec<Model> = Vec::new();
    for binary in &binaries {
        models.extend(run::list(binary)?);
    }
    if models.is_empty() {
        return Err("there is no model: the build was made without its flags".to_owned());
    }
    let mut wrong = run_models(&models, options);
    if !options.models_only {
        wrong.extend(mutants::run(&binaries[0], &models, options)?);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn run_models(all: &[Model], options: &Options) -> Vec<String> {
    let models: Vec<&Model> = all.iter().filter(|model| options.wants(&model.name)).collect();
    let outcomes = in_parallel(&models, |model| run::model(model, None, options.quick));
    table::models(&models, &outcomes);
    let failed = models.iter().zip(&outcomes).filter_map(|(model, outcome)| match outcome {
        Outcome::Completed { .. } => None,
        other => Some(format!("the model {} {}", model.name, other.complaint())),
    });
    failed.collect()
}

/// Works on `items` with as many threads as there are cores; the results in the items' order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    let next = Mutex::new(0..items.len());
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let Some(index) = next.lock().unwrap().next() else { return };
                    let result = work(&items[index]);
                    results.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
