//! The options that select the records of a command.

use crate::failure::{FAILED, Failure};
use crate::inspected::{Inspected, Topics};
use slipring::journal::{Gap, PartitionId, PartitionReport};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(clap::Args)]
pub(crate) struct Filter {
    /// Only this topic: its name, or its number in the catalogue
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Only these offsets: FROM..TO, FROM.. or ..TO, where TO itself is excluded
    #[arg(long, value_name = "RANGE", value_parser = offsets)]
    offsets: Option<(u64, u64)>,
    /// Only records of this time or later: 2026-11-21T08:00:00Z, or an age such as 15m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Only records before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
}

fn offsets(text: &str) -> Result<(u64, u64), String> {
    let bad = || format!("{text:?} is no range of offsets: write 100..200, 100.. or ..200");
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    let end = |text: &str, open: u64| if text.is_empty() { Ok(open) } else { text.parse().map_err(|_| bad()) };
    let (from, to) = (end(from, 0)?, end(to, u64::MAX)?);
    if from < to { Ok((from, to)) } else { Err(bad()) }
}

fn moment(text: &str) -> Result<u64, String> {
    let at = match humantime::parse_rfc3339_weak(text) {
        Ok(at) => at,
        Err(_) => {
            let ago = humantime::parse_duration(text);
            let ago = ago.map_err(|_| "write a time as 2026-11-21T08:00:00Z, or how long ago, as in 15m".to_owned())?;
            SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH)
        }
    };
    Ok(at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}

/// A filter, with the number of its topic in the journal; `None` if the filter selects all topics.
pub(super) struct Selection<'f> {
    filter: &'f Filter,
    topic: Option<u32>,
}

impl<'f> Selection<'f> {
    /// The number of the only selected topic; `None` if all are selected.
    pub(super) fn topic(&self) -> Option<u32> {
        self.topic
    }

    /// Finds the filter's topic in the journal. An error if the journal does not have the topic or the partition.
    pub(super) fn new(filter: &'f Filter, topics: &Topics, inspected: &Inspected) -> Result<Selection<'f>, Failure> {
        let Some(name) = &filter.topic else {
            return Self { filter, topic: None }.check_partition("the journal", inspected);
        };
        let known = topics.0.iter().find(|topic| topic.name == *name).map(|topic| topic.number);
        let number = name.parse().ok().filter(|number| {
            topics.0.iter().any(|topic| topic.number == *number)
                || inspected.state().extents().any(|(partition, _)| partition.topic == *number)
        });
        match known.or(number) {
            Some(number) => Self { filter, topic: Some(number) }.check_partition(&format!("topic {name:?}"), inspected),
            None => {
                Err(Failure::new(FAILED, format!("there is no topic {name:?}: `slipring journal stat` lists them")))
            }
        }
    }

    fn check_partition(self, of: &str, inspected: &Inspected) -> Result<Self, Failure> {
        let Some(asked) = self.filter.partition else { return Ok(self) };
        let known = inspected.state().extents().map(|(partition, _)| partition);
        let known = known.filter(|known| self.topic.is_none_or(|topic| topic == known.topic));
        let known: BTreeSet<u32> = known.map(|known| known.partition).collect();
        if known.contains(&asked) {
            return Ok(self);
        }
        let known: Vec<String> = known.iter().map(u32::to_string).collect();
        let which = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(Failure::new(FAILED, format!("{of} has no partition {asked}: there are {which}")))
    }

    /// True if the filter selects neither by offset nor by time: then it selects all records of a partition, and a
    /// segment's record counts are the counts of selected records.
    pub(super) fn takes_all_of_a_partition(&self) -> bool {
        let Filter { offsets, since, until, .. } = self.filter;
        offsets.is_none() && since.is_none() && until.is_none()
    }

    pub(super) fn has_partition(&self, partition: PartitionId) -> bool {
        self.topic.is_none_or(|topic| topic == partition.topic)
            && self.filter.partition.is_none_or(|number| number == partition.partition)
    }

    /// True if a segment may have selected records of this partition.
    pub(super) fn may_have(&self, of: &PartitionReport) -> bool {
        self.has_partition(of.partition)
            && self.filter.offsets.is_none_or(|(from, to)| of.end > from && of.first < to)
            && self.filter.since.is_none_or(|since| of.latest >= since)
    }

    pub(super) fn has_gap(&self, gap: &Gap) -> bool {
        let Range { start, end } = gap.offsets;
        self.has_partition(gap.partition) && self.filter.offsets.is_none_or(|(from, to)| end > from && start < to)
    }

    /// True if the filter selects records with this offset and time. The caller has checked the partition.
    pub(super) fn has_record(&self, offset: u64, time: u64) -> bool {
        self.filter.offsets.is_none_or(|(from, to)| (from..to).contains(&offset))
            && self.filter.since.is_none_or(|since| time >= since)
            && self.filter.until.is_none_or(|until| time < until)
    }
}
