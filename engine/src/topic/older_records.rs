//! Records of a durable topic in the layouts that its events had before, as readers get them: in the present layout.

use crate::event::codec::Unreadable;
use crate::event::upgrade::{UpgradePath, Upgrades};
use crate::log::catalog::CatalogEntry;
use crate::log::layouts::{self, OlderLayout};
use crate::topic::error::TopicError;
use slipring_journal::{Extent, Journal, PartitionId};
use std::borrow::Cow;

/// The older layouts of a topic, each with the steps that lead to the present one.
#[derive(Default)]
pub(crate) struct OlderRecords {
    layouts: Vec<OlderLayout>,
    /// `None` for a layout of which no records are left.
    paths: Vec<Option<UpgradePath>>,
}

/// What a recorded topic has, and what a program asks for when it opens the topic.
pub(crate) struct Opening<'o> {
    pub(crate) name: &'o str,
    pub(crate) there: &'o CatalogEntry,
    pub(crate) asked: &'o CatalogEntry,
    /// The size of every event in bytes; `None` if events differ in size.
    pub(crate) size: Option<usize>,
    pub(crate) upgrades: &'o Upgrades,
    pub(crate) journal: &'o Journal,
}

impl Opening<'_> {
    fn extent(&self, partition: u32) -> Extent {
        self.journal.extent(self.id(partition)).unwrap_or_default()
    }

    fn id(&self, partition: u32) -> PartitionId {
        PartitionId { topic: self.there.number, partition }
    }

    /// True if a record is left of the layout at this place in `older`.
    fn has_records(&self, older: &[OlderLayout], index: usize) -> bool {
        (0..self.there.partitions).any(|partition| {
            let before = index.checked_sub(1).map_or(0, |index| older[index].end(partition));
            let first = self.extent(partition).start.max(before);
            let end = older[index].end(partition);
            first < end && self.journal.records_in(self.id(partition), first..end) > 0
        })
    }

    /// The topic's older layouts, if the events may be opened as asked for. True if the present layout is a new one, which
    /// must be recorded with them. `older` is what the journal has recorded.
    ///
    /// # Errors
    /// The layouts, the number of partitions or the size of messages do not fit, or a step is missing.
    pub(crate) fn admit(&self, mut older: Vec<OlderLayout>) -> Result<(OlderRecords, bool), TopicError> {
        let Self { there, asked, upgrades, .. } = self;
        let name = self.name.to_owned();
        // Without a step, the present layout only gets the names of its fields.
        let has_steps = |path: UpgradePath| !path.is_empty();
        let is_upgraded = upgrades.path(&there.layout, &asked.layout).is_some_and(has_steps);
        let fits = is_upgraded || there.has_layout(asked, self.size);
        if !fits && older.iter().any(|older| older.layout == asked.layout) {
            let (there, asked) = (there.layout.clone(), asked.layout.clone());
            return Err(TopicError::NewerLayout { name, there, asked });
        }
        if !fits || there.max_message > asked.max_message || there.partitions < asked.partitions {
            return Err(TopicError::Recorded { name, there: there.to_string(), asked: asked.to_string() });
        }
        if is_upgraded {
            // The first offset that this opening can give to an event is at or above all written and all reserved ones.
            let end = |partition| {
                let Extent { end, reserved, .. } = self.extent(partition);
                end.max(reserved)
            };
            let is_left = |older: &OlderLayout| {
                (0..there.partitions).any(|partition| older.end(partition) > self.extent(partition).start)
            };
            older.retain(is_left);
            older.push(OlderLayout::new(there.layout.clone(), (0..there.partitions).map(end).collect()));
        }
        let mut paths = Vec::with_capacity(older.len());
        for (index, OlderLayout { layout, .. }) in older.iter().enumerate() {
            let path = upgrades.path(layout, &asked.layout);
            if path.is_none() && self.has_records(&older, index) {
                return Err(TopicError::NoUpgrade { name, there: layout.clone(), asked: asked.layout.clone() });
            }
            paths.push(path);
        }
        Ok((OlderRecords { layouts: older, paths }, is_upgraded))
    }
}

impl OlderRecords {
    pub(crate) fn layouts(&self) -> &[OlderLayout] {
        &self.layouts
    }

    /// The offset from which on all records of the partition have the present layout.
    pub(crate) fn present_from(&self, partition: u32) -> u64 {
        self.layouts.last().map_or(0, |last| last.end(partition))
    }

    /// The bytes of the record at this offset in the present layout.
    pub(crate) fn upgraded<'b>(
        &self,
        partition: u32,
        offset: u64,
        bytes: &'b [u8],
    ) -> Result<Cow<'b, [u8]>, Unreadable> {
        let Some(index) = layouts::at(&self.layouts, partition, offset) else { return Ok(Cow::Borrowed(bytes)) };
        let path = self.paths[index].as_ref();
        path.ok_or(Unreadable("no upgrade leads from the record's layout to the present one"))?.run(bytes)
    }
}
