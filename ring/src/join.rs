//! Joining, seeking backward, leaving and eviction of stages. [`crate::gates`] proves that a newcomer's first event is
//! not overwritten.

use crate::closing::{Closed, Phase};
use crate::core::Core;
use crate::error::{BuildError, SeekError, StageError};
use crate::fault::{Fault, fault};
use crate::fence;
use crate::gates::lowest_of;
use crate::kind::Kind;
use crate::ordering::{EVICT_FENCE, JOIN_FENCE, LOOK_AT_STAGE};
use crate::sequence::{Sequence, ahead, earlier};
use crate::stage::{Stage, StageState, Start};
use crate::sync::{Arc, lock};
use crate::workers::Workers;

/// The position of a consumer.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The next sequence that the consumer reads.
    pub(crate) next: u64,
    /// The position that its stage publishes: `next`, or lower while the stages before it have not passed `next`.
    pub(crate) through: u64,
}

/// The properties of a joining stage that its declaration does not contain.
#[derive(Clone, Copy)]
pub(crate) struct Role {
    pub(crate) exclusive: bool,
    /// Count of workers that share the stage; 0 if it has one consumer.
    pub(crate) workers: usize,
    /// False while the ring is being built, when nothing is published. Only then may stages of workers and stages that
    /// change events join.
    pub(crate) at_run_time: bool,
    /// True if the stage replaces a stage whose consumer does not respond. Then it may join a closed ring that is still
    /// being read.
    pub(crate) successor: bool,
}

impl<E, K: Kind> Core<E, K> {
    /// Adds a stage to the ring. Returns the stage and its consumer's position.
    ///
    /// # Errors
    /// The declaration or the start is refused, the ring is not open, or the system refuses the fence: see
    /// [`BuildError`].
    pub(crate) fn join(&self, declared: &Stage, role: Role) -> Result<(Arc<StageState>, Place), BuildError> {
        // `Workers::start` relies on this: no thread may publish or take events meanwhile.
        debug_assert!(role.workers == 0 || !role.at_run_time, "workers join while the ring is being built only");
        let mut members = lock(&self.members);
        let may_read_out = role.successor && !self.closing.phase().at_once();
        if let Some(closed) = self.closing.reason().filter(|_| !may_read_out) {
            return Err(closed.into());
        }
        let after = self.resolve(declared, &members)?;
        // Until its start is known, the newcomer's gate is held at the lower of the lowest gate and the floor, so that
        // no producer can overwrite the event at the start.
        let lowest = lowest_of(members.iter());
        let pinned = match lowest {
            _ if fault(Fault::NewcomerPinnedAtThePublishedPosition) => K::published(self),
            Some(gate) if fault(Fault::NewcomerPinnedWithoutTheFloor) => gate,
            Some(gate) => earlier(gate, self.floor()),
            None => self.floor(),
        };
        let workers = (role.workers > 0).then(|| Workers::new(role.workers, pinned));
        let stage = Arc::new(StageState::new(declared, role.exclusive, after, pinned, workers));
        check_access(&stage, &members, role.at_run_time)?;

        let others = members.clone();
        members.push(Arc::clone(&stage));
        self.gates.show(members.clone());
        // Pairs with REFRESH_FENCE: see `gates.rs`.
        let fenced = fence::heavy_at(&JOIN_FENCE, self.fences);
        // While the ring is being built no thread publishes, so the fence is not needed then.
        if let (Err(cause), true) = (fenced, role.at_run_time) {
            members.pop();
            self.gates.show(members.clone());
            drop(members);
            stage.bell.ring();
            return Err(BuildError::Fence { stage: declared.name.clone(), cause });
        }

        let lowest = lowest_of(others.iter()).map_or_else(|| self.floor(), |gate| earlier(gate, self.floor()));
        let earliest = self.earliest(lowest);
        let latest = K::published(self);
        let start = match declared.start {
            Start::At(asked) if fault(Fault::NewcomerStartsWhereItLikes) => asked.0,
            Start::Earliest => earliest,
            Start::Latest => latest,
            Start::At(asked) if ahead(asked.0, earliest) >= 0 && ahead(latest, asked.0) >= 0 => asked.0,
            Start::At(asked) => {
                members.pop();
                self.gates.show(members.clone());
                drop(members);
                stage.bell.ring();
                let (earliest, latest) = (Sequence(earliest), Sequence(latest));
                return Err(BuildError::OutOfRange { stage: declared.name.clone(), asked, earliest, latest });
            }
        };
        let through = stage.start(start);
        drop(members);
        // A producer may be waiting for room because the newcomer's gate was held low.
        stage.bell.ring();
        Ok((stage, Place { next: start, through }))
    }

    /// Seeks backward: replaces `stage`, whose consumer is at `from`, by a new stage at `to`, which lies before `from`.
    /// Returns the new stage and its consumer's position. The old gate stays until the new one is installed. After an
    /// error the old stage is as before.
    ///
    /// # Errors
    /// The stage was evicted, another stage is ordered after it, `to` is no longer kept, or the system refuses the
    /// fence.
    pub(crate) fn rejoin(
        &self,
        stage: &Arc<StageState>,
        from: Sequence,
        to: Sequence,
    ) -> Result<(Arc<StageState>, Place), SeekError> {
        let mut members = lock(&self.members);
        let name = || stage.name.clone();
        // Checked under the lock, because an eviction may have been requested while the consumer still held a batch.
        let place = members.iter().position(|member| Arc::ptr_eq(member, stage) && !stage.is_evicted());
        let Some(place) = place else {
            return Err(Closed::Evicted { stage: name() }.into());
        };
        if let Some(behind) = members.iter().find(|member| member.is_behind(stage)) {
            return Err(SeekError::StoodBehind { stage: name(), behind: behind.name.clone() });
        }
        let floor_and = |lowest: Option<u64>| lowest.map_or_else(|| self.floor(), |gate| earlier(gate, self.floor()));
        let again = Arc::new(stage.again_at(floor_and(lowest_of(members.iter()))));
        if fault(Fault::SeekBackLetsTheOldGateGoFirst) {
            let others = members.iter().filter(|member| !Arc::ptr_eq(member, stage));
            self.gates.show(others.cloned().collect());
        }
        members[place] = Arc::clone(&again);
        self.gates.show(members.clone());
        // Pairs with REFRESH_FENCE: see `gates.rs`.
        let fenced = match fault(Fault::SeekBackIssuesNoFence) {
            false => fence::heavy_at(&JOIN_FENCE, self.fences),
            true => Ok(()),
        };

        let others = members.iter().filter(|member| !Arc::ptr_eq(member, &again));
        let earliest = self.earliest(floor_and(lowest_of(others)));
        let is_kept = fenced.is_ok() && (ahead(to.0, earliest) >= 0 || fault(Fault::SeekBackGoesWhereItLikes));
        let mut through = to.0;
        if is_kept {
            through = again.start(to.0);
        } else {
            members[place] = Arc::clone(stage);
            self.gates.show(members.clone());
        }
        drop(members);
        // Producers may be waiting because the new gate was held low, or be registered at the bell of the old stage.
        again.bell.ring();
        if !fault(Fault::OldBellNotRungAfterASeekBack) {
            stage.bell.ring();
        }
        if is_kept {
            return Ok((again, Place { next: to.0, through }));
        }
        fenced.map_err(|cause| SeekError::Fence { stage: name(), cause })?;
        let (earliest, latest) = (Sequence(earliest), from);
        Err(SeekError::OutOfRange { stage: name(), asked: to, earliest, latest })
    }

    fn resolve(&self, declared: &Stage, members: &[Arc<StageState>]) -> Result<Vec<Arc<StageState>>, BuildError> {
        let stage = || declared.name.clone();
        if declared.name.is_empty() {
            return Err(BuildError::NoName);
        }
        if members.iter().any(|member| member.name == declared.name) {
            return Err(BuildError::NameTaken { name: stage() });
        }
        let find = |after: &crate::stage::StageRef| {
            if after.ring.is_some_and(|ring| ring != self.id) {
                return Err(BuildError::ForeignStage { stage: stage(), after: after.name.clone() });
            }
            // A stage whose eviction is requested leaves when its batch ends, and a stage ordered after it would wait
            // for ever.
            let found = members.iter().find(|member| member.name == after.name && !member.is_evicted());
            found.cloned().ok_or_else(|| BuildError::UnknownStage {
                stage: stage(),
                after: after.name.clone(),
                known: members.iter().map(|member| member.name.clone()).collect(),
            })
        };
        declared.after.iter().map(find).collect()
    }

    /// Removes the gate of a stage, whose consumer must hold no batch, and wakes the producers that wait for it. No
    /// effect if the ring does not have the stage any more.
    pub(crate) fn leave(&self, stage: &Arc<StageState>) {
        let (was_here, is_last) = {
            let mut members = lock(&self.members);
            (self.leave_locked(&mut members, stage), members.is_empty())
        };
        if was_here {
            ring_for_others(stage);
            self.ring_if_unread(is_last);
        }
    }

    /// Wakes the threads that wait until no stage reads the ring, if `is_last`: the last stage has just left.
    fn ring_if_unread(&self, is_last: bool) {
        if is_last && !fault(Fault::LastToLeaveWakesNobody) {
            self.end_bell.ring();
        }
    }

    /// Removes the gate of a stage. True if the ring had the stage: then the caller must ring the stage's bell after it
    /// has released the lock, because a woken task may run at once, and leave or join itself.
    #[must_use]
    fn leave_locked(&self, members: &mut Vec<Arc<StageState>>, stage: &Arc<StageState>) -> bool {
        let before = members.len();
        members.retain(|member| !Arc::ptr_eq(member, stage));
        let was_here = members.len() != before;
        if was_here {
            self.gates.show(members.clone());
        }
        was_here
    }

    /// Removes a stage because its consumer, or its last worker, is dropped. If other stages are ordered after the
    /// stage, the ring fails, because they could never continue. It does not fail if it was halted or has failed
    /// already, or if they have nothing left to read: the ring is ending, and the consumer has got the end as an error
    /// (`at_end`) or has read everything. A ring whose end was [announced](Self::announce) ends first.
    pub(crate) fn leave_for_good(&self, stage: &Arc<StageState>, at_end: bool) {
        self.end_as_announced();
        let mut members = lock(&self.members);
        if members.iter().any(|member| Arc::ptr_eq(member, stage)) {
            self.note_stopped(stage);
        }
        let behind = members.iter().find(|member| member.is_behind(stage)).map(|member| member.name.clone());
        let was_here = self.leave_locked(&mut members, stage);
        let is_last = members.is_empty();
        drop(members);
        if was_here {
            ring_for_others(stage);
            self.ring_if_unread(is_last);
        }
        let phase = self.closing.phase();
        let unread = ahead(self.last(), stage.position(&LOOK_AT_STAGE)).max(0);
        let matters = phase == Phase::Open || (!phase.at_once() && !at_end && unread > 0);
        // The consumer of a stage ordered after this one may be registered at this stage's bell, and the end of the
        // ring rings only the bells of its present members.
        if let Some(behind) = behind.filter(|_| matters) {
            self.fail(&stage.name, &format!("it left while {behind:?} stands behind it"));
            stage.bell.ring();
        }
    }

    /// Wakes the consumer of `stage`, by ringing every bell at which it can be registered: the producers', and those of
    /// the stages before.
    fn ring_where_it_sleeps(&self, stage: &StageState) {
        if fault(Fault::EvictionWakesNobody) {
            return;
        }
        self.bell.ring();
        stage.after.iter().for_each(|before| before.bell.ring());
    }

    /// Checks if [`evict`](Self::evict) would be refused, and changes nothing.
    pub(crate) fn check_evict(&self, name: &str) -> Result<(), StageError> {
        evictable(&lock(&self.members), name).map(drop)
    }

    /// Evicts the stage called `name`: removes its gate, whether its consumer responds or not. Returns the stage's
    /// position.
    ///
    /// # Errors
    /// There is no such stage, another stage is ordered after it, or workers share it. If the consumer holds a batch or
    /// the system refuses the fence, the stage is marked as evicted and its consumer removes the gate later.
    pub(crate) fn evict(&self, name: &str) -> Result<Sequence, StageError> {
        let mut members = lock(&self.members);
        let stage = evictable(&members, name)?;
        stage.evict();
        // Pairs with HOLD_FENCE: this thread sees the batch, or the consumer sees the eviction.
        if let Err(cause) = fence::heavy_at(&EVICT_FENCE, self.fences) {
            drop(members);
            self.ring_where_it_sleeps(&stage);
            // `Consumer::arm_for_end` registers a waiter at the stage's own bell, which this rings.
            ring_for_others(&stage);
            return Err(StageError::Fence { name: name.to_owned(), cause });
        }
        if stage.is_held() && !fault(Fault::EvictedInABatch) {
            return Err(StageError::InBatch { name: name.to_owned() });
        }
        let was_here = self.leave_locked(&mut members, &stage);
        let is_last = members.is_empty();
        drop(members);
        if was_here {
            ring_for_others(&stage);
            self.ring_if_unread(is_last);
        }
        // The consumer of the stage may be asleep, and must return the eviction as an error.
        self.ring_where_it_sleeps(&stage);
        Ok(Sequence(stage.position(&LOOK_AT_STAGE)))
    }
}

/// The stage called `name`, if it may be evicted. Otherwise the error says why not.
fn evictable(members: &[Arc<StageState>], name: &str) -> Result<Arc<StageState>, StageError> {
    let stage = members.iter().find(|member| member.name == name).cloned();
    let stage = stage.ok_or_else(|| StageError::Unknown { name: name.to_owned() })?;
    if let Some(behind) = members.iter().find(|member| member.is_behind(&stage)) {
        return Err(StageError::StoodBehind { name: name.to_owned(), behind: behind.name.clone() });
    }
    if stage.workers.is_some() {
        return Err(StageError::Workers { name: name.to_owned() });
    }
    Ok(stage)
}

/// Wakes the producers that wait for the gate of a stage that has left, so that they compute their limits from the
/// others.
#[cfg_attr(loom, track_caller)]
fn ring_for_others(stage: &StageState) {
    stage.bell.ring();
}

/// Checks the access of `stage`, which joins `members`. Refuses a stage that may change events if the ring runs already
/// (`at_run_time`), if it is ordered after a journaler, or if it is not ordered after every member. Refuses any stage
/// that is not ordered after every member that may change events.
fn check_access(stage: &StageState, members: &[Arc<StageState>], at_run_time: bool) -> Result<(), BuildError> {
    if stage.exclusive && at_run_time {
        return Err(BuildError::MutableAtRunTime { stage: stage.name.clone() });
    }
    for member in members {
        // The members joined before the newcomer, so none of them is ordered after it.
        if (stage.exclusive || member.exclusive) && !stage.is_behind(member) {
            let (mutable, other) = if stage.exclusive { (stage, &**member) } else { (&**member, stage) };
            let (mutable, other) = (mutable.name.clone(), other.name.clone());
            return Err(BuildError::UnorderedMutable { mutable, other });
        }
        if stage.exclusive && member.journaler && stage.is_behind(member) {
            let (mutable, journaler) = (stage.name.clone(), member.name.clone());
            return Err(BuildError::MutableBehindJournaler { mutable, journaler });
        }
    }
    Ok(())
}
