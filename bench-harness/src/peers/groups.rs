//! A group of one member as a contender: it polls, reads and commits.

use std::time::Duration;

use slipring::{
    Producer,
    group::Member,
    producer::{Multi, Single},
};

use super::link::{Link, Receiver};
use super::payload::Payload;
use super::topics::{Chosen, Opened, Reader, open, refused};
use super::waiting::{WaitClass, Waiting};

/// A group on a topic of one partition with one kind of producer.
pub struct Grouped<K>(std::marker::PhantomData<K>);

/// Reads and commits batches until `total` events have been seen or the topic is closed.
macro_rules! receive {
    ($self:ident, $total:ident, $batch:ident => $read:expr) => {{
        let mut left = $total;
        while left > 0 {
            // The longest limit waits without a deadline.
            let Ok(Some($batch)) = $self.reads.poll(Duration::MAX) else { return };
            left -= $batch.len() as u64;
            $read
            if $batch.commit().is_err() {
                return;
            }
        }
    }};
}

impl<const N: usize> Receiver<N> for Reader<Member<Payload<N>, Single>> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        receive!(self, total, batch => {
            if BATCHED {
                let (head, tail) = batch.slices();
                head.iter().for_each(&mut see);
                tail.iter().for_each(&mut see);
            } else {
                for (event, _) in &batch {
                    see(event);
                }
            }
        });
    }
}

impl<const N: usize> Receiver<N> for Reader<Member<Payload<N>, Multi>> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        receive!(self, total, batch => {
            for (event, _) in &batch {
                see(event);
            }
        });
    }
}

impl<const N: usize, K: Chosen> Link<N> for Grouped<K>
where
    Reader<Member<Payload<N>, K>>: Receiver<N>,
{
    const MANY_PRODUCERS: bool = K::MANY;
    const BATCHES: bool = true;
    const SLEEPS: bool = true;
    type Sender = Producer<Payload<N>, K>;
    type Receiver = Reader<Member<Payload<N>, K>>;

    fn open(capacity: usize, producers: usize, waiting: WaitClass) -> Opened<N, K, Member<Payload<N>, K>> {
        open(capacity, producers, waiting, |topic, wait| topic.group("readers").wait(wait).join().map_err(refused))
    }
}
