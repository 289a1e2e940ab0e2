//! What the stages of groups are called in a ring.

use slipring_ring::{BuildError, Stage, Start};

/// A consumer of a group. Those of fenced members may be there still: stages need names of their own.
pub(crate) fn join_stage<C>(
    group: &str,
    start: Start,
    join: impl Fn(Stage) -> Result<C, BuildError>,
) -> Result<C, BuildError> {
    let mut generation = 0;
    loop {
        match join(Stage::new(stage_name(group, generation)).start(start)) {
            Err(BuildError::NameTaken { .. }) => generation += 1,
            joined => return joined,
        }
    }
}

/// What all stages of a group have in common; any other name as it is.
pub(crate) fn without_generation(stage: &str) -> &str {
    match stage.split_once('#') {
        Some((group, _)) if group.starts_with("group:") => group,
        _ => stage,
    }
}

/// No subscriber can be called that, or stand behind it by accident.
pub(crate) fn stage_name(group: &str, generation: u32) -> String {
    match generation {
        0 => format!("group:{group}"),
        generation => format!("group:{group}#{generation}"),
    }
}
