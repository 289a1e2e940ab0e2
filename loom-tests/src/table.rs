//! The tables.

use crate::mutants::{Fate, Mutant};
use crate::run::{Model, Outcome};
use std::time::Duration;

/// Prints what the models came to.
pub fn models(models: &[&Model], outcomes: &[Outcome]) {
    println!("{:<72} {:>14} {:>10} {:>7}  property", "model", "explored", "iterations", "seconds");
    for (model, outcome) in models.iter().zip(outcomes) {
        match outcome {
            Outcome::Completed { iterations, explored, property, took } => {
                println!("{:<72} {explored:>14} {iterations:>10} {:>7}  {property}", model.name, seconds(*took))
            }
            other => println!("{:<72} {}", model.name, other.complaint()),
        }
    }
    println!("{} models\n", models.len());
}

/// With one decimal.
pub fn seconds(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64())
}

/// Prints what became of the mutants.
pub fn mutants(mutants: &[Mutant], fates: &[Fate]) {
    println!("{:<52} {:<64} {:>7}  in its words", "mutant", "killed by", "seconds");
    for (mutant, fate) in mutants.iter().zip(fates) {
        match fate {
            Fate::Killed { by, what, took } => println!("{:<52} {by:<64} {:>7}  {what}", mutant.name, seconds(*took)),
            Fate::Survived => println!("{:<52} nobody", mutant.name),
        }
    }
    println!("{} mutants", mutants.len());
}
