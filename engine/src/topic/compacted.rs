//! A durable topic's compaction: what an opening refuses, and recording it.

use super::durable::DurableTopic;
use crate::log::catalog::CatalogEntry;
use crate::log::committer::Committer;
use crate::log::compaction::{Compaction, TopicCompaction};
use crate::log::queues;
use crate::topic::error::{Contradiction, TopicError};
use slipring_journal::{FrameBuilder, State};

/// Why a topic that is to be compacted cannot be opened so; `Ok` if it can, or is not to be compacted. `is_messages`
/// and `layout` say what its events are, and `there` is its entry in the catalogue, if it has one.
///
/// # Errors
/// The events have no such key; or the journal has a queue of the topic, which reads its messages by their offsets, or whose
/// dead letters the topic keeps.
pub(crate) fn check(
    compaction: Option<&Compaction>,
    name: &str,
    (is_messages, layout): (bool, &str),
    there: Option<&CatalogEntry>,
    committer: &Committer,
) -> Result<(), TopicError> {
    let Some(compaction) = compaction else { return Ok(()) };
    if let Some(other) = compaction.contradiction(is_messages, layout) {
        return Err(Contradiction::new(name, "`compact`", other).into());
    }
    let queues = queues::all(&committer.recovered_state());
    let has_queue = |topic: u32| queues.iter().any(|(of, ..)| *of == topic);
    if there.is_some_and(|there| has_queue(there.number)) {
        return Err(Contradiction::new(name, "`compact`", "a queue of the topic").into());
    }
    if queues.iter().any(|(.., queue)| queue.dead_topic == name) {
        return Err(Contradiction::new(name, "`compact`", "a queue whose dead letters the topic keeps").into());
    }
    Ok(())
}

impl<E> DurableTopic<E> {
    /// Sets how the topic is compacted from now on, and records it if it is not recorded so; `None` if it is not compacted.
    pub(crate) fn set_compaction(&self, compaction: Option<&Compaction>) {
        let (number, layout) = {
            let recorded = self.recorded();
            (recorded.number, recorded.layout.clone())
        };
        let is_changed = |recovered: &State| match compaction {
            Some(compaction) => Compaction::of(recovered, number).as_ref() != Some(compaction),
            None => Compaction::is_recorded(recovered, number),
        };
        let mut recovered = self.committer.recovered_state();
        if is_changed(&recovered) {
            let mut frame = FrameBuilder::new();
            Compaction::put(compaction, number, &mut frame);
            recovered.take(&mut frame);
            drop(recovered);
            // An error is ignored: it means that the journal has ended, and then nothing is compacted.
            let _ = self.committer.append_soon(vec![frame]);
        } else {
            drop(recovered);
        }
        let older = self.older.layouts().to_vec();
        let compaction = compaction.map(|compaction| TopicCompaction::new(compaction, &layout, older));
        self.committer.set_compaction(number, compaction);
    }

    /// True if the topic is compacted.
    pub(crate) fn is_compacted(&self) -> bool {
        let number = self.recorded().number;
        Compaction::is_recorded(&self.committer.recovered_state(), number)
    }
}
