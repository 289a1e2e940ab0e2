//! Our rings as contenders.

use super::link::{NoFigure, Round, Work};
use crate::scenario::Scenario;

/// The name and the round of our contender for `scenario`.
pub fn contender(
    scenario: Scenario,
) -> (&'static str, fn(Scenario, &Work) -> Result<Round, NoFigure>) {
    match scenario {
        Scenario::MpscOne | Scenario::MpscTwo => ("slipring-multi", absent),
        _ => ("slipring", absent),
    }
}

fn absent(_: Scenario, _: &Work) -> Result<Round, NoFigure> {
    Err(NoFigure::NotApplicable("the ring is not there yet"))
}
