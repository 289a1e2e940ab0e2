//! rtrb as a contender: as its documentation uses it, and with the short-batch pause of our consumers.

use super::link::{Link, NoFigure, Receiver, Sender};
use super::waiting::{ShortBatchPause, WaitClass, Waiting};
use crate::payload::Payload;

/// rtrb. With `PAUSE` it reads in chunks and pauses after short ones.
pub struct Rtrb<const PAUSE: bool>;

/// rtrb's consumer.
pub struct Reader<const N: usize, const PAUSE: bool> {
    consumer: rtrb::Consumer<Payload<N>>,
    pause: ShortBatchPause,
    target: usize,
}

impl<const N: usize> Sender<N> for rtrb::Producer<Payload<N>> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        let mut message = Payload::new(value);
        let mut waiting = W::begin();
        while let Err(rtrb::PushError::Full(back)) = self.push(message) {
            message = back;
            waiting.idle();
        }
    }

    #[inline(always)]
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        let mut waiting = W::begin();
        loop {
            match self.write_chunk_uninit(count) {
                Ok(chunk) => {
                    chunk.fill_from_iter((first..first + count as u64).map(Payload::new));
                    return;
                }
                Err(_) => waiting.idle(),
            }
        }
    }
}

impl<const N: usize, const PAUSE: bool> Reader<N, PAUSE> {
    #[inline(always)]
    fn receive_chunks<W: Waiting>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        let mut left = total as usize;
        let mut waiting = W::begin();
        while left > 0 {
            let ready = self.consumer.slots().min(left);
            if ready == 0 {
                self.pause.empty();
                waiting.idle();
                continue;
            }
            let Ok(chunk) = self.consumer.read_chunk(ready) else { continue };
            let (front, back) = chunk.as_slices();
            front.iter().for_each(&mut see);
            back.iter().for_each(&mut see);
            chunk.commit_all();
            left -= ready;
            if PAUSE && left > 0 {
                self.pause.handled(ready, self.target);
            }
            waiting = W::begin();
        }
    }
}

impl<const N: usize, const PAUSE: bool> Receiver<N> for Reader<N, PAUSE> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        if BATCHED || PAUSE {
            return self.receive_chunks::<W>(total, see);
        }
        for _ in 0..total {
            let mut waiting = W::begin();
            loop {
                match self.consumer.pop() {
                    Ok(message) => {
                        see(&message);
                        break;
                    }
                    Err(_) => waiting.idle(),
                }
            }
        }
    }
}

impl<const N: usize, const PAUSE: bool> Link<N> for Rtrb<PAUSE> {
    const MANY_PRODUCERS: bool = false;
    const BATCHES: bool = true;
    const SLEEPS: bool = false;
    type Sender = rtrb::Producer<Payload<N>>;
    type Receiver = Reader<N, PAUSE>;

    fn open(
        capacity: usize,
        _producers: usize,
        _waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
        let (producer, consumer) = rtrb::RingBuffer::new(capacity);
        let target = ShortBatchPause::target(capacity);
        Ok((vec![producer], Reader { consumer, pause: ShortBatchPause::default(), target }))
    }
}
