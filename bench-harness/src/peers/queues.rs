//! Bounded queues of other projects as contenders: what is sent is moved into the queue and out of it, one by one.

use super::link::{Link, NoFigure, Receiver, Sender};
use super::waiting::{WaitClass, Waiting};
use crate::payload::Payload;

/// Implements a contender over a queue whose calls never wait.
///
/// `$send` returns the message if the queue is full; `$receive` returns `None` if it is empty.
macro_rules! queue {
    (
        $(#[$doc:meta])* $name:ident, $many:literal, $sender:ty, $receiver:ty, $open:expr,
        |$from:ident, $message:ident| $send:expr, |$to:ident| $receive:expr, |$first:ident, $count:ident| $clones:expr
    ) => {
        $(#[$doc])*
        pub struct $name;

        impl<const N: usize> Sender<N> for $sender {
            #[inline(always)]
            fn send<W: Waiting>(&mut self, value: u64) {
                let $from = self;
                let mut $message = Payload::new(value);
                let mut waiting = W::begin();
                while let Err(back) = $send {
                    $message = back;
                    waiting.idle();
                }
            }

            fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
                for value in first..first + count as u64 {
                    Sender::<N>::send::<W>(self, value);
                }
            }
        }

        impl<const N: usize> Receiver<N> for $receiver {
            #[inline(always)]
            fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
                for _ in 0..total {
                    let mut waiting = W::begin();
                    let $to = &mut *self;
                    loop {
                        match $receive {
                            Some(message) => {
                                see(&message);
                                break;
                            }
                            None => waiting.idle(),
                        }
                    }
                }
            }
        }

        impl<const N: usize> Link<N> for $name {
            const MANY_PRODUCERS: bool = $many;
            const BATCHES: bool = false;
            const SLEEPS: bool = false;
            type Sender = $sender;
            type Receiver = $receiver;

            fn open(
                capacity: usize,
                $count: usize,
                _waiting: WaitClass,
            ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
                let ($first, receiver) = $open(capacity);
                Ok(($clones, receiver))
            }
        }
    };
}

queue!(
    /// nexus-queue's queue of one producer and one consumer.
    NexusOne,
    false,
    nexus_queue::spsc::Producer<Payload<N>>,
    nexus_queue::spsc::Consumer<Payload<N>>,
    nexus_queue::spsc::ring_buffer,
    |from, message| from.push(message).map_err(nexus_queue::Full::into_inner),
    |to| to.pop(),
    |first, _count| vec![first]
);

queue!(
    /// nexus-queue's queue of several producers and one consumer.
    NexusMany,
    true,
    nexus_queue::mpsc::Producer<Payload<N>>,
    nexus_queue::mpsc::Consumer<Payload<N>>,
    nexus_queue::mpsc::ring_buffer,
    |from, message| from.push(message).map_err(nexus_queue::Full::into_inner),
    |to| to.pop(),
    |first, count| vec![first; count]
);

queue!(
    /// gil's queue of one producer and one consumer.
    GilOne,
    false,
    gil::spsc::Sender<Payload<N>>,
    gil::spsc::Receiver<Payload<N>>,
    |capacity: usize| gil::spsc::channel(capacity.try_into().unwrap_or(std::num::NonZeroUsize::MIN)),
    |from, message| from.try_send(message),
    |to| to.try_recv(),
    |first, _count| vec![first]
);

queue!(
    /// gil's queue of several producers and one consumer.
    GilMany,
    true,
    gil::mpsc::Sender<Payload<N>>,
    gil::mpsc::Receiver<Payload<N>>,
    |capacity: usize| gil::mpsc::channel(capacity.try_into().unwrap_or(std::num::NonZeroUsize::MIN)),
    |from, message| from.try_send(message),
    |to| to.try_recv(),
    |first, count| vec![first; count]
);
