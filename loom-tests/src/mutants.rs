//! The mutants: ring with one ordering weakened or one fault switched on. A model kills a mutant if it fails with it.
//! Here are the search for each mutant's killer, and the list of those that no model can kill.

use crate::run::{self, Model, Outcome};
use crate::sites::{Catalogue, mutant};
use crate::uses::Use;
use crate::{Options, docs, in_parallel, table};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The result of a mutant.
#[derive(Clone, Debug)]
pub enum Fate {
    /// A model failed, and printed a reason that counts.
    Killed {
        /// The model's name.
        by: String,
        /// The reason that it printed.
        what: String,
        /// Duration, including the models that did not fail.
        took: Duration,
    },
    /// No model failed.
    Survived {
        /// Duration of all models.
        took: Duration,
    },
    /// Listed as a survivor, and not run.
    Listed,
}

/// A mutant that no model can kill.
pub struct Survivor {
    /// The mutant's name.
    pub mutant: &'static str,
    /// Why no model can fail.
    pub reason: &'static str,
    /// The sites or locks that ensure the order instead.
    pub covered_by: &'static str,
}

/// The mutants that behave like the original, each with the proof. They are single faults: where two orderings ensure
/// one thing, either alone may be weakened, but not both.
pub const SURVIVORS: &[Survivor] = &[
    Survivor {
        mutant: "RING_FENCE@closing.rs:wake_all=>AcqRel",
        reason: "the thread that ends an open ring has passed CLOSE_FENCE since it stored the phase. What it records later, it records under the lock of the end, which a sleeper takes at its second look: by then everything below the end is published, cut or withdrawn, so the sleeper finds an event or a gap, or sleeps also at the bell of a stage, which is rung after a fence",
        covered_by: "CLOSE_FENCE, the lock of the end",
    },
    Survivor {
        mutant: "RING_FENCE@closing.rs:wake_all#2=>AcqRel",
        reason: "as for the first ring in that function; that ring has also passed a full fence",
        covered_by: "CLOSE_FENCE, the lock of the end",
    },
    Survivor {
        mutant: "RING_FENCE@closing.rs:wake_all#3=>AcqRel",
        reason: "as for the first ring in that function; that ring has also passed a full fence",
        covered_by: "CLOSE_FENCE, the lock of the end",
    },
    Survivor {
        mutant: "LET_GO@consumer.rs:begin_at_the_end#2=>Relaxed",
        reason: "the stage passed a gap or found no event, for which it took the lock of the end after CLOSE_FENCE. A producer that loads a gating set without the stage passes CLAIM_FENCE later and sees that the ring is closed, so it writes nothing",
        covered_by: "CLOSE_FENCE, CLAIM_FENCE",
    },
    Survivor {
        mutant: "FOLLOW@event_look.rs:last_look=>Relaxed",
        reason: "only a gap is let through: no stage reads its slots, and no producer claims them again",
        covered_by: "the next look acquires the events after the gap",
    },
    Survivor {
        mutant: "FOLLOW@worker.rs:is_something=>Relaxed",
        reason: "the result only tells if a take is worth trying, and the take reads the stages before it again",
        covered_by: "FOLLOW where a worker takes",
    },
    Survivor {
        mutant: "FOLLOW@worker.rs:past=>Relaxed",
        reason: "only a gap is skipped: no stage reads its slots, and no producer claims them again",
        covered_by: "the next look acquires the events after the gap",
    },
    Survivor {
        mutant: "FOLLOW@stage.rs:start=>Relaxed",
        reason: "a stage after the newcomer joins later, under one lock with it. So it reads the position of the stage before at least as late, and passes JOIN_FENCE after that, which acquires",
        covered_by: "JOIN_FENCE, the lock of the members",
    },
    Survivor {
        mutant: "RING_FENCE@join.rs:rejoin#2=>AcqRel",
        reason: "a thread that sleeps at the old bell must see the new set, which was installed before JOIN_FENCE",
        covered_by: "JOIN_FENCE",
    },
    Survivor {
        mutant: "RING_FENCE@join.rs:leave_for_good#2=>AcqRel",
        reason: "a thread that sleeps at this bell must see that the ring failed, which was stored before CLOSE_FENCE",
        covered_by: "CLOSE_FENCE",
    },
    Survivor {
        mutant: "RING_FENCE@join.rs:ring_if_unread=>AcqRel",
        reason: "a thread that waits until nobody reads looks under the members' lock, which it takes after it was armed; the leaving thread has taken that lock before it looks for sleepers",
        covered_by: "the lock of the members",
    },
    Survivor {
        mutant: "RING_FENCE@join.rs:ring_where_it_sleeps=>AcqRel",
        reason: "the evicted consumer must see its eviction, which was stored before EVICT_FENCE",
        covered_by: "EVICT_FENCE",
    },
    Survivor {
        mutant: "CLAIM_FENCE@multi_producer.rs:refresh=>AcqRel",
        reason: "a producer that sees that a gate has left an ending ring has acquired that with the gating set, and the closed bit with it. The fence is there only because this check shares its code with the check after a claim",
        covered_by: "LOAD_GATES",
    },
    Survivor {
        mutant: "LOAD_GATES@producer.rs:new=>Relaxed",
        reason: "the thread that builds the ring creates its producer, and clones copy that producer's set",
        covered_by: "no other thread has the ring yet",
    },
    Survivor {
        mutant: "READ_TAKEN@worker.rs:bells=>Relaxed",
        reason: "the result only chooses the bell at which a worker sleeps",
        covered_by: "ARM_FENCE and the look after it",
    },
    Survivor {
        mutant: "READ_TAKEN@worker.rs:look=>Relaxed",
        reason: "the result only tells if a take is worth trying, and the take reads the counter again",
        covered_by: "the exchange of the take",
    },
    Survivor {
        mutant: "READ_TAKEN@workers.rs:take=>Relaxed",
        reason: "the exchange decides if the counter had this value, and the taken events are acquired with their stamps or with the positions of the stages before",
        covered_by: "STAMP_READ_FENCE, OBSERVE_PUBLISHED, FOLLOW",
    },
    Survivor {
        mutant: "READ_TAKEN@workers.rs:take#2=>Relaxed",
        reason: "as for the first use in that function",
        covered_by: "STAMP_READ_FENCE, OBSERVE_PUBLISHED, FOLLOW",
    },
];

/// A mutant of this run.
struct Mutant<'u> {
    /// The name in the documentation.
    name: String,
    /// The value of `SLIPRING_MUTANT` that switches it on.
    variable: String,
    /// The names of the models that execute its place; `None` for a fault, which any model may execute.
    models: Option<&'u BTreeSet<String>>,
}

/// All mutants: each site weakened at each use, and each fault.
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

/// Runs each mutant against the models until one fails: first the model that the documentation names, then the others
/// that execute its place, the quickest first. Returns descriptions of what is wrong, and the count of mutants.
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
        // Every model must be tried with a listed survivor, so these are run only to rewrite the page.
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
        // The page has the uses in the order of the sites, `names` by name.
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

/// The time limit of a mutant in one model. A mutant may increase a model's schedules without end: that is no kill, and
/// other models are tried.
const LIMIT: Duration = Duration::from_secs(40);

/// The time limit in the model that the documentation names. It is longer, since this model may be slow on a busy
/// machine, and then all others would be tried without success.
const LIMIT_OF_THE_EXPECTED: Duration = Duration::from_secs(150);

fn hunt(mutant: &Mutant<'_>, expected: Option<&str>, models: &[Model], costs: &HashMap<&str, Duration>) -> Fate {
    let comes_by = |model: &&Model| mutant.models.is_none_or(|models| models.contains(&model.name));
    let mut order: Vec<&Model> = models.iter().filter(comes_by).collect();
    // Models that did not run in this process have no known cost, and come last.
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
