//! The settings of a standby, and its opening.

use super::partition_copy::{PartitionCopy, last_record};
use super::{Standby, StandbyError};
use crate::bridge::Bridge;
use crate::cursor::StreamCursor;
use crate::outward::Window;
use crate::position::Position;
use crate::remote::Remote;
use slipring::journal::storage::{Disk, Storage};
use slipring::journal::{FrameBuilder, Options, PartitionId, RecordedTopic, inspect, open, recorded_topics};
use slipring::replication::bridge_positions;
use slipring::topic::TopicError;
use slipring::{Engine, Message};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long the engine that creates the topic may take to end.
const END: Duration = Duration::from_secs(60);

/// A topic of a standby.
#[derive(Clone, Debug)]
pub struct StandbyTopic {
    bridge: String,
    name: String,
    partitions: Option<usize>,
    max_message: Option<usize>,
}

impl StandbyTopic {
    /// The topic of this name, which a bridge outward copies. After a takeover a bridge outward with the name `bridge` goes
    /// on.
    pub fn new(bridge: impl Into<String>, name: impl Into<String>) -> Self {
        Self { bridge: bridge.into(), name: name.into(), partitions: None, max_message: None }
    }

    /// Sets the number of partitions, which are as many as the streams. Default: those that the journal has, or else 1.
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Sets the size of the largest message in bytes, for a topic that the journal does not have yet. The default is the
    /// engine's.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = Some(bytes);
        self
    }

    fn create(&self, engine: &Engine) -> Result<(), TopicError> {
        let mut topic = engine.topic::<Message>(&self.name).partitions(self.partitions.unwrap_or(1)).durable();
        if let Some(bytes) = self.max_message {
            topic = topic.max_message(bytes);
        }
        topic.create().map(drop)
    }

    /// The topic in the journal.
    fn recorded(&self, topics: &[RecordedTopic]) -> Result<RecordedTopic, StandbyError> {
        let unfit = |reason: String| StandbyError::Unfit { topic: self.name.clone(), reason };
        let topic = topics.iter().find(|topic| topic.name == self.name);
        let topic = topic.ok_or_else(|| unfit("the journal did not record it".to_owned()))?;
        if topic.max_message == 0 {
            return Err(unfit("its events are no messages: take another topic".to_owned()));
        }
        match self.partitions.filter(|asked| *asked != topic.partitions as usize) {
            Some(asked) => {
                let has = topic.partitions;
                Err(unfit(format!("it has {has} partitions, {asked} are asked for: ask for {has}")))
            }
            None => Ok(topic.clone()),
        }
    }
}

/// Settings of a [`Standby`]; made by [`Bridge::standby`].
#[derive(Clone, Debug)]
pub struct StandbyBuilder {
    topics: Vec<StandbyTopic>,
    options: Options,
    window: Window,
}

impl Bridge {
    /// Returns the settings of a standby for topics that bridges outward copy.
    pub fn standby(topics: impl IntoIterator<Item = StandbyTopic>) -> StandbyBuilder {
        let (options, window) = (Options::default(), Window::default());
        StandbyBuilder { topics: topics.into_iter().collect(), options, window }
    }
}

impl StandbyBuilder {
    /// Sets the options of the journal.
    pub fn journal_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets how much may be on its way while marks are written, and how long an answer may take.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Opens the journal in a directory, which is created if it does not exist, and creates the topics in it. `remote` returns
    /// the stream of a topic's partition.
    ///
    /// # Errors
    /// A program has the journal open, it is damaged, or a topic in it is another one.
    pub fn open<R: Remote + 'static>(
        self,
        path: impl Into<PathBuf>,
        remote: impl FnMut(&str, u32) -> R + Send + 'static,
    ) -> Result<Standby<R>, StandbyError> {
        self.open_in(Disk::new(path), remote)
    }

    /// Opens the journal in any storage.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_in<R: Remote + 'static>(
        self,
        storage: impl Storage + Clone,
        mut remote: impl FnMut(&str, u32) -> R + Send + 'static,
    ) -> Result<Standby<R>, StandbyError> {
        let Self { topics, options, window } = self;
        let there = inspect(Arc::new(storage.clone()), false).map(|survey| recorded_topics(survey.state()));
        let is_there = |topic: &StandbyTopic| there.iter().flatten().any(|it| it.name == topic.name);
        if !topics.iter().all(is_there) {
            let engine = Engine::builder().journal_in(storage.clone()).journal_options(options.clone()).build()?;
            topics.iter().filter(|topic| !is_there(topic)).try_for_each(|topic| topic.create(&engine))?;
            engine.shutdown(END);
        }
        let (writer, _) = open(Arc::new(storage), options)?;
        let there = recorded_topics(writer.state());
        let (positions, mut copies) = (bridge_positions(writer.state()), Vec::new());
        for topic in topics {
            let RecordedTopic { number, partitions, max_message, .. } = topic.recorded(&there)?;
            for partition in 0..partitions {
                let of = PartitionId { topic: number, partition };
                let recorded = positions.iter().find(|position| position.of == of && position.bridge == topic.bridge);
                let detail = recorded.map_or(&[][..], |position| &position.detail);
                let malformed = || StandbyError::Unfit {
                    topic: topic.name.clone(),
                    reason: format!("the position of the bridge {:?} is malformed", topic.bridge),
                };
                let position = Position::decode(detail).ok_or_else(malformed)?;
                let (end, checksum) = last_record(&writer, of)?;
                copies.push(PartitionCopy {
                    of,
                    bridge: topic.bridge.clone(),
                    topic: topic.name.clone(),
                    max_message: max_message as usize,
                    remote: remote(&topic.name, partition),
                    cursor: StreamCursor::default(),
                    end,
                    checksum,
                    floor: writer.journal().extent(of).map_or(0, |extent| extent.end),
                    has_met: end == 0,
                    position,
                });
            }
        }
        let (frame, nonce) = (FrameBuilder::new(), fastrand::u64(..));
        Ok(Standby { writer, frame, copies, make: Box::new(remote), window, nonce, error: None })
    }
}
