//! The names of groups' stages in a ring.

use slipring_ring::{BuildError, Stage, Start};

/// The stage name of a group's consumer. The stages of fenced members may still be there, so each generation has a name of
/// its own.
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

/// A stage's name without the generation, if it is a group's; any other name unchanged.
pub(crate) fn without_generation(stage: &str) -> &str {
    match stage.split_once('#') {
        Some((group, _)) if group.starts_with("group:") => group,
        _ => stage,
    }
}

/// The name of a group's stage. It contains a colon, so no subscriber can have it or stand behind it by accident.
pub(crate) fn stage_name(group: &str, generation: u32) -> String {
    match generation {
        0 => format!("group:{group}"),
        generation => format!("group:{group}#{generation}"),
    }
}
