//! The stage names under which groups join a ring.

use slipring_ring::{BuildError, Stage, Start};

/// Joins a group's stage to a ring with `join`, under the group's first free stage name. The stage of a fenced member
/// may still be in the ring, so each stage name has a generation.
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

/// A group's stage name without its generation; any other name unchanged.
pub(crate) fn without_generation(stage: &str) -> &str {
    match stage.split_once('#') {
        Some((group, _)) if group.starts_with("group:") => group,
        _ => stage,
    }
}

/// The stage name of a group. Generation 0 has no suffix. The colon is not allowed in a subscriber's name, so no
/// subscriber can have this name or use it in `after`.
pub(crate) fn stage_name(group: &str, generation: u32) -> String {
    match generation {
        0 => format!("group:{group}"),
        generation => format!("group:{group}#{generation}"),
    }
}
