//! The printed tables. Each row is printed as soon as it is known.

use crate::mutants::{Fate, SURVIVORS};
use crate::run::{Model, Outcome};
use std::time::Duration;

/// Prints the titles of the table of models.
pub fn models_begin() {
    println!("{:<72} {:>14} {:>10} {:>7}  property", "model", "explored", "iterations", "seconds");
}

/// Prints the result of a model.
pub fn model(model: &Model, outcome: &Outcome) {
    match outcome {
        Outcome::Completed { iterations, explored, property, took, .. } => {
            println!("{:<72} {explored:>14} {iterations:>10} {:>7}  {property}", model.name, seconds(*took));
        }
        other => println!("{:<72} {}", model.name, other.complaint()),
    }
}

/// Prints the sums of the table of models.
pub fn models_end(outcomes: &[Outcome]) {
    let completed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Completed { .. })).count();
    let took = outcomes.iter().map(Outcome::took).sum();
    println!("{completed} of {} models completed; {} s in all\n", outcomes.len(), seconds(took));
}

/// Seconds as text with one decimal.
pub fn seconds(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64())
}

/// Prints the titles of the table of mutants.
pub fn mutants_begin() {
    println!("{:<56} {:<72} {:>7}  in its words", "mutant", "killed by", "seconds");
}

/// Prints the result of a mutant.
pub fn mutant(mutant: &str, fate: &Fate) {
    match fate {
        Fate::Killed { by, what, took } => println!("{mutant:<56} {by:<72} {:>7}  {what}", seconds(*took)),
        Fate::Survived { took } => println!("{mutant:<56} {:<72} {:>7}", "NOBODY", seconds(*took)),
        Fate::Listed => println!("{mutant:<56} {:<72} {:>7}", "nobody, see below; not tried", "-"),
    }
}

/// Prints the sums of the table of mutants, and the listed survivors with their reasons.
pub fn mutants_end(fates: &[Fate]) {
    let killed = fates.iter().filter(|fate| matches!(fate, Fate::Killed { .. })).count();
    let took = fates.iter().map(|fate| match fate {
        Fate::Killed { took, .. } | Fate::Survived { took } => *took,
        Fate::Listed => Duration::ZERO,
    });
    println!("{killed} of {} mutants killed; {} s in all", fates.len(), seconds(took.sum()));
    for survivor in SURVIVORS {
        println!("no model can kill {}: {}\n    covered by: {}", survivor.mutant, survivor.reason, survivor.covered_by);
    }
}
