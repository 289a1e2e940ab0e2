//! A transform's settings, and its opening.

use super::{NextOffsets, OpenTransform, Transform, TransformError, TransformHolder, TransformInput};
use crate::base::kind::Producers;
use crate::log::gap::OnGap;
use crate::log::offsets::recorded::transform_offsets;
use crate::produce::transaction::Transaction;
use crate::read::replay::{ReplayError, ReplayWake};
use crate::topic::error::{SubscribeError, check_name};
use crate::topic::{Topic, TopicCore};
use slipring_ring::Multi;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a [`Transform`].
pub struct TransformBuilder<E, K: Producers = Multi> {
    topic: Arc<TopicCore<E, K>>,
    name: String,
    batch: usize,
    latest: bool,
    patience: Duration,
    on_gap: OnGap,
}

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// Returns the settings of a transform named `group`, which reads this durable topic and publishes its output
    /// exactly once. Finish them with [`open`](TransformBuilder::open). See [`Transform`].
    pub fn transform(&self, group: impl Into<String>) -> TransformBuilder<E, K> {
        TransformBuilder::new(Arc::clone(&self.inner), group.into())
    }
}

impl<E: Send + Sync + 'static, K: Producers> TransformBuilder<E, K> {
    pub(crate) fn new(topic: Arc<TopicCore<E, K>>, name: String) -> Self {
        Self { topic, name, batch: 256, latest: false, patience: Duration::from_secs(30), on_gap: OnGap::Fail }
    }

    /// Sets the greatest count of events in one transaction; 256 by default, 0 counts as 1.
    pub fn batch(mut self, events: usize) -> Self {
        self.batch = events.max(1);
        self
    }

    /// Makes the transform begin at the next event to be published, in partitions where it has committed no offset. By
    /// default it begins there at the earliest event that the journal keeps.
    pub fn latest(mut self) -> Self {
        self.latest = true;
        self
    }

    /// Sets how long a commit waits for room in its outputs; 30 seconds by default.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Sets what happens where events of the input were lost to damage. By default the step returns an error for that
    /// gap, once for the transform's name; a [managed](Transform::run) transform ends with that error, and continues
    /// after the gap when it is started again.
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.on_gap = policy;
        self
    }

    /// Opens the transform, and fences an earlier one with this name on this topic.
    ///
    /// # Errors
    /// The topic is not durable, or the name is invalid.
    pub fn open(self) -> Result<Transform<E, K>, TransformError> {
        let Self { topic, name, batch, latest, patience, on_gap } = self;
        let Some(durable) = &topic.durable else {
            return Err(ReplayError::NotDurable { topic: topic.name.clone() }.into());
        };
        let refused = |cause: String| TransformError::Refused { name: name.clone(), cause };
        check_name(&name).map_err(|cause| refused(SubscribeError::Name(cause).to_string()))?;
        let committer = &durable.committer;
        let at = (name.clone(), durable.id(0).topic);
        let recorded = {
            let state = committer.recovered_state();
            let known = transform_offsets(&state).into_iter().filter(|it| it.group == name && it.of.topic == at.1);
            known.map(|it| (it.of.partition, it.offset)).collect()
        };
        let (epoch, offsets) = committer.transform_offsets.take_over(at.clone(), recorded);
        let mut starts = NextOffsets::new();
        if latest {
            let partitions = topic.partitions();
            let fresh = partitions.iter().filter(|partition| !offsets.contains_key(&partition.index));
            starts.extend(fresh.map(|partition| (partition.index, partition.ring.positions().published.0)));
            committer.transform_offsets.note_starts(&at, epoch, starts.clone());
        }
        let mut transaction = Transaction::new(Arc::clone(committer));
        transaction.patience(patience);
        let holder = TransformHolder { committer: Arc::clone(committer), topic: topic.name.clone(), at, epoch };
        let opened = OpenTransform(holder.clone());
        let outside = ReplayWake::new(durable);
        let input = TransformInput { topic, name, offsets, starts, batch, on_gap, replay: None, outside };
        Ok(Transform { input, holder, transaction, _opened: opened })
    }
}
