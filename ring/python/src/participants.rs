//! Participants as tuples.

use slipring_ring::shared::{RawRing, Role};

/// Name, role, alive, held, process id, position (`None` for a producer), lag, claim.
pub(crate) type SnapshotOfParticipant = (String, &'static str, bool, bool, u64, Option<u64>, u64, Option<(u64, u64)>);

pub(crate) fn snapshot(ring: &RawRing) -> Vec<SnapshotOfParticipant> {
    let participants = ring.participants().into_iter();
    participants
        .map(|it| {
            let role = match it.role {
                Role::Joining => "joining",
                Role::Consumer => "consumer",
                Role::Producer => "producer",
                _ => "other",
            };
            let claim = it.claim.map(|claim| (claim.first.0, claim.next().0));
            (it.name, role, it.is_alive, it.is_held, it.pid, it.position.map(|at| at.0), it.lag, claim)
        })
        .collect()
}
