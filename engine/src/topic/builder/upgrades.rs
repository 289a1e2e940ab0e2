//! The settings of a topic whose events had other layouts before.

use super::TopicBuilder;
use crate::base::kind::Producers;
use crate::event::codec::Persist;
use crate::event::message::Message;
use crate::event::upgrade::Upgrades;
#[cfg(doc)]
use crate::topic::error::TopicError;

impl<K: Producers> TopicBuilder<Message, K> {
    /// Sets the schema of the messages' values, from 1. Default: 1. The journal's catalogue has it. On a
    /// [durable](Self::durable) topic that was recorded with an earlier schema, the steps of
    /// [`upgrade_schema`](Self::upgrade_schema) must lead from that to this one; a topic with a later schema is refused.
    ///
    /// ```
    /// use slipring::{Engine, Message, Record, journal::simulated::SimulatedDisk};
    /// use std::time::Duration;
    /// # let long = Duration::from_secs(60);
    /// # let disk = SimulatedDisk::new();
    /// // The first release.
    /// let engine = Engine::builder().journal_in(disk.clone()).build()?;
    /// let orders = engine.topic::<Message>("orders").durable().create()?;
    /// orders.producer().create()?.send(Record::new("7").key("acme"))?;
    /// # drop(orders);
    /// engine.shutdown(long);
    ///
    /// // The second one writes "n=7".
    /// let engine = Engine::builder().journal_in(disk).build()?;
    /// let orders = engine.topic::<Message>("orders").durable().schema(2).upgrade_schema(1, |old, value| {
    ///     value.extend_from_slice(b"n=");
    ///     value.extend_from_slice(old.value());
    /// });
    /// let orders = orders.create()?;
    /// let mut seen = Vec::new();
    /// orders.replay("audit").open()?.read(long, |order, _| seen.push(order.value().to_vec()))?;
    /// assert_eq!(seen, [b"n=7"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schema(mut self, schema: u32) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Adds the step from schema `from` to the next one. `upgrade` is given a message as it was recorded, and fills the
    /// new value, which is empty at first. Key, headers and time stay. A new value for which the topic's
    /// [`max_message`](Self::max_message) has no room is an error of whoever reads it. Otherwise as
    /// [`upgrade`](Self::upgrade).
    pub fn upgrade_schema(
        mut self,
        from: u32,
        upgrade: impl Fn(&Message, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        self.upgrades = self.upgrades.schema(from, upgrade);
        self
    }
}

impl<E: Persist + Default, K: Producers> TopicBuilder<E, K> {
    /// Reads what the journal has in the layout of `Old`: `upgrade` is given such an event, and a default one of the
    /// present type to fill. Applies to everything that reads the topic's journal: replays, groups, queues, transforms,
    /// and the ids that are known when the topic is opened. Nothing that was recorded is rewritten, offsets stay, and new
    /// events are recorded in the present layout. Steps over several versions: [`upgrades`](Self::upgrades).
    ///
    /// ```
    /// use slipring::{Engine, journal::simulated::SimulatedDisk};
    /// use std::time::Duration;
    /// # let long = Duration::from_secs(60);
    /// # let disk = SimulatedDisk::new();
    ///
    /// slipring::plain_event! {
    ///     #[derive(Default)]
    ///     struct OldQuote { cents: u32, size: u32 }
    /// }
    /// slipring::plain_event! {
    ///     #[derive(Default)]
    ///     struct Quote { ticks: i64, size: u32, venue: [u8; 4] }
    /// }
    ///
    /// // The first release.
    /// let engine = Engine::builder().journal_in(disk.clone()).build()?;
    /// let quotes = engine.topic::<OldQuote>("quotes").durable().create()?;
    /// quotes.producer().create()?.publish(|quote| *quote = OldQuote { cents: 101, size: 7 })?;
    /// # drop(quotes);
    /// engine.shutdown(long);
    ///
    /// // The second one has four ticks a cent.
    /// let engine = Engine::builder().journal_in(disk).build()?;
    /// let quotes = engine.topic::<Quote>("quotes").durable().upgrade(|old: &OldQuote, new| {
    ///     *new = Quote { ticks: i64::from(old.cents) * 4, size: old.size, venue: *b"XETR" };
    /// });
    /// let quotes = quotes.create()?;
    /// let mut seen = Vec::new();
    /// quotes.replay("audit").open()?.read(long, |quote, at| seen.push((at.offset, quote.ticks)))?;
    /// assert_eq!(seen, [(0, 404)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`create`](Self::create) writes the new layout into the journal's catalogue, beside the older ones. From then on an
    /// older program is refused ([`NewerLayout`](TopicError::NewerLayout)). The step must stay as long as the journal has
    /// records of that layout; [`journal::convert`](crate::journal::convert) writes the journal anew without them.
    ///
    /// The function should be pure: it runs each time that a record is read, on the reader's thread. See [`Upgrades`].
    ///
    /// Dead letters of a queue keep the layout in which they were moved aside: take them or send them back before the
    /// layout changes. Messages have [`upgrade_schema`](TopicBuilder::upgrade_schema).
    pub fn upgrade<Old: Persist + Default>(mut self, upgrade: impl Fn(&Old, &mut E) + Send + Sync + 'static) -> Self {
        self.upgrades = self.upgrades.step(upgrade);
        self
    }
}

impl<E: Send + Sync + 'static, K: Producers> TopicBuilder<E, K> {
    /// Adds the steps from older layouts of the events, as [`upgrade`](Self::upgrade) does with one step. A record goes
    /// through as many as lead to the present layout.
    pub fn upgrades(mut self, steps: Upgrades) -> Self {
        self.upgrades = self.upgrades.and(steps);
        self
    }
}
