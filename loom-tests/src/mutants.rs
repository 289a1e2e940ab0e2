//! The mutants: who kills each, and which nobody can.

use crate::run::{self, Model, Outcome};
use crate::sites::{Catalogue, mutant};
use crate::uses::Use;
use crate::{Options, docs, in_parallel, table};
use std::collections::{BTreeSet, HashMap};
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

/// The list of those that are equivalent, each with the proof. They are single faults: where two orderings do the same, each may
/// go, not both.
pub const SURVIVORS: &[Survivor] = &[
    Survivor {
        mutant: "RING_FENCE@closing.rs:wake_all=>AcqRel",
        reason: "whoever ends an open ring passed CLOSE_FENCE since it stored the phase; what is recorded later is recorded under the lock of the end, which a sleeper takes at its second look: then all below the end is published, cut or withdrawn, so it finds something, or sleeps at the bell of a stage as well, which is rung behind a fence",
        covered_by: "CLOSE_FENCE, the lock of the end",
    },
    Survivor {
        mutant: "RING_FENCE@closing.rs:wake_all#2=>AcqRel",
        reason: "as the first ring there, and the ring before it passed a full fence",
        covered_by: "CLOSE_FENCE, the lock of the end",
    },
    Survivor {
        mutant: "RING_FENCE@closing.rs:wake_all#3=>AcqRel",
        reason: "as the first ring there, and the ring before it passed a full fence",
        covered_by: "CLOSE_FENCE, the lock of the end",
    },
    Survivor {
        mutant: "LET_GO@consumer.rs:begin_at_the_end#2=>Relaxed",
        reason: "the stage passed a gap or found nothing, for which it took the lock of the end behind CLOSE_FENCE: a producer that loads a set without its gate passes CLAIM_FENCE later and sees that the ring is closed, so it writes nothing",
        covered_by: "CLOSE_FENCE, CLAIM_FENCE",
    },
    Survivor {
        mutant: "FOLLOW@event_look.rs:last_look=>Relaxed",
        reason: "what goes through is a gap: nobody reads its slots, and nobody claims them again",
        covered_by: "the next look acquires what lies behind the gap",
    },
    Survivor {
        mutant: "FOLLOW@worker.rs:is_something=>Relaxed",
        reason: "it only says whether a take is worth trying, and the take follows the stages before again",
        covered_by: "FOLLOW where a worker takes",
    },
    Survivor {
        mutant: "FOLLOW@worker.rs:past=>Relaxed",
        reason: "what is passed is a gap: nobody reads its slots, and nobody claims them again",
        covered_by: "the next look acquires what lies behind the gap",
    },
    Survivor {
        mutant: "FOLLOW@stage.rs:start=>Relaxed",
        reason: "a stage behind the newcomer joins later, under the same lock, so it reads the position before at least as late, and passes JOIN_FENCE behind that, which acquires",
        covered_by: "JOIN_FENCE, the lock of the members",
    },
    Survivor {
        mutant: "RING_FENCE@join.rs:rejoin#2=>AcqRel",
        reason: "whoever sleeps at the old bell must see the new set, which was shown before JOIN_FENCE",
        covered_by: "JOIN_FENCE",
    },
    Survivor {
        mutant: "RING_FENCE@join.rs:leave_for_good#2=>AcqRel",
        reason: "whoever sleeps there must see that the ring failed, which was stored before CLOSE_FENCE",
        covered_by: "CLOSE_FENCE",
    },
    Survivor {
        mutant: "RING_FENCE@join.rs:ring_where_it_sleeps=>AcqRel",
        reason: "the evicted consumer must see that it is evicted, which was stored before EVICT_FENCE",
        covered_by: "EVICT_FENCE",
    },
    Survivor {
        mutant: "CLAIM_FENCE@multi_producer.rs:refresh=>AcqRel",
        reason: "who sees that a gate has gone from a ring that ends acquired that with the set, and the closed bit with it; the fence is there because the look is the one of claims",
        covered_by: "LOAD_GATES",
    },
    Survivor {
        mutant: "LOAD_GATES@producer.rs:new=>Relaxed",
        reason: "a producer is made by the thread that builds the ring; clones copy what that one knows",
        covered_by: "nobody else has the ring yet",
    },
    Survivor {
        mutant: "READ_TAKEN@worker.rs:bells=>Relaxed",
        reason: "it only chooses the bell at which a worker sleeps",
        covered_by: "ARM_FENCE and the look behind it",
    },
    Survivor {
        mutant: "READ_TAKEN@worker.rs:look=>Relaxed",
        reason: "it only says whether a take is worth trying, and the take reads the counter again",
        covered_by: "the exchange of the take",
    },
    Survivor {
        mutant: "READ_TAKEN@workers.rs:take=>Relaxed",
        reason: "the exchange decides whether the counter stood there, and what is taken is acquired with the stamps or the positions before",
        covered_by: "STAMP_READ_FENCE, OBSERVE_PUBLISHED, FOLLOW",
    },
    Survivor {
        mutant: "READ_TAKEN@workers.rs:take#2=>Relaxed",
        reason: "as where the take begins",
        covered_by: "STAMP_READ_FENCE, OBSERVE_PUBLISHED, FOLLOW",
    },
];

/// A mutant of this run.
struct Mutant<'u> {
    /// As the documentation has it.
    name: String,
    /// What turns it on.
    variable: String,
    /// The models that come by its place; none: any might.
    models: Option<&'u BTreeSet<String>>,
}

/// Each site weakened at each use, and each fault.
fn all<'u>(catalogue: &Catalogue, uses: &'u [Use]) -> Vec<Mutant<'u>> {
    let weakened = catalogue.sites.iter().flat_map(|site| {
        let of_site = uses.iter().filter(|it| it.site == site.name);
        of_site.flat_map(|it| {
            site.weaker.iter().map(|weaker| Mutant {
                name: mutant(&it.name(), weaker),
                variable: it.variable(weaker),
                models: Some(&it.models),
            })
        })
    });
    let faults = catalogue.faults.iter().map(|fault| {
        let name = fault.name.clone();
        Mutant { variable: name.clone(), name, models: None }
    });
    weakened.chain(faults).collect()
}

/// Runs each mutant against the models until one kills it: first against the one that the documentation names, then
/// against the others that come by, by what they cost. Returns what is wrong, and how many there were.
pub fn run(
    models: &[Model],
    uses: &[Use],
    costs: &HashMap<&str, Duration>,
    options: &Options,
) -> Result<(Vec<String>, usize), String> {
    let mut wrong = Vec::new();
    let catalogue = Catalogue::read()?;
    let mut mutants = all(&catalogue, uses);
    for survivor in SURVIVORS.iter().filter(|survivor| !mutants.iter().any(|mutant| mutant.name == survivor.mutant)) {
        wrong.push(format!("{} is on the list of survivors, but there is no such mutant", survivor.mutant));
    }
    for site in catalogue.sites.iter().filter(|site| !site.weaker.is_empty()) {
        if !uses.iter().any(|it| it.site == site.name) {
            wrong.push(format!("no model comes by {}", site.name));
        }
    }
    mutants.retain(|mutant| options.wants(&mutant.name));
    let known = docs::killers()?;
    table::mutants_begin();
    let fates = in_parallel(
        &mutants,
        // Every model that comes by lets them pass: that is shown again when the page is written.
        |mutant| match SURVIVORS.iter().any(|survivor| survivor.mutant == mutant.name) && !options.write_docs {
            true => Fate::Listed,
            false => hunt(mutant, known.get(&mutant.name).map(String::as_str), models, costs),
        },
        |mutant, fate| table::mutant(&mutant.name, fate),
    );
    let mut killers = HashMap::new();
    for (mutant, fate) in mutants.iter().zip(&fates) {
        let name = &mutant.name;
        let listed = SURVIVORS.iter().any(|survivor| survivor.mutant == name);
        match fate {
            Fate::Survived { .. } if !listed => wrong.push(format!("the mutant {name} survived")),
            Fate::Killed { by, .. } if listed => {
                wrong.push(format!("the mutant {name} is listed as a survivor, but {by} kills it"));
            }
            Fate::Killed { by, .. } => {
                killers.insert(name.clone(), by.clone());
            }
            _ => {}
        }
    }
    table::mutants_end(&fates);
    let names: Vec<String> = uses.iter().map(Use::name).collect();
    if options.write_docs {
        let kept = known.into_iter().filter(|(name, _)| !mutants.iter().any(|mutant| mutant.name == *name));
        killers.extend(kept);
        docs::write(&catalogue, &names, &killers)?;
    } else {
        // The page has them by site, in the order of the sites.
        let mut listed = docs::uses()?;
        listed.sort();
        if names != listed {
            let of = |all: &[String], others: &[String]| {
                all.iter().filter(|name| !others.contains(name)).cloned().collect::<Vec<_>>().join(", ")
            };
            let (new, gone) = (of(&names, &listed), of(&listed, &names));
            wrong.push(format!(
                "the models come by other uses than docs/MEMORY_ORDERING.md lists: write it anew (new: {new}; gone: {gone})"
            ));
        }
    }
    Ok((wrong, mutants.len()))
}

/// A mutant may make a model explode: that is no kill, and there are others.
const LIMIT: Duration = Duration::from_secs(40);

/// For the model that the documentation names: on a busy machine it may need longer, and others would be tried in vain.
const LIMIT_OF_THE_EXPECTED: Duration = Duration::from_secs(150);

fn hunt(mutant: &Mutant<'_>, expected: Option<&str>, models: &[Model], costs: &HashMap<&str, Duration>) -> Fate {
    let comes_by = |model: &&Model| mutant.models.is_none_or(|models| models.contains(&model.name));
    let mut order: Vec<&Model> = models.iter().filter(comes_by).collect();
    // Of what has not run in this process, nobody knows the cost: last.
    let cost = |model: &Model| costs.get(model.name.as_str()).copied().unwrap_or(Duration::MAX);
    order.sort_by_key(|model| (Some(model.name.as_str()) != expected, cost(model)));
    let started = Instant::now();
    for model in order {
        let limit = if Some(model.name.as_str()) == expected { LIMIT_OF_THE_EXPECTED } else { LIMIT };
        if let Outcome::Found { what, .. } = run::model(model, Some(&mutant.variable), false, limit) {
            return Fate::Killed { by: model.name.clone(), what, took: started.elapsed() };
        }
    }
    Fate::Survived { took: started.elapsed() }
}
