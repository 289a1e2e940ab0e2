//! A group of one member as a contender: it polls, reads and commits.

use std::time::Duration;

use slipring::{Engine, Member, Multi, Producer, Producers, Single, TopicBuilder};

use super::link::{Link, NoFigure, Receiver};
use super::payload::Payload;
use super::topics::{refused, wait};
use super::waiting::{WaitClass, Waiting};

/// A group on a topic of one partition with one kind of producer.
pub struct Grouped<K>(std::marker::PhantomData<K>);

/// The only member, and the engine that owns its topic.
pub struct Reader<const N: usize, K: Producers> {
    member: Member<Payload<N>, K>,
    _engine: Engine,
}

impl<const N: usize, K: Producers> Receiver<N> for Reader<N, K> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        let mut left = total;
        while left > 0 {
            // The longest limit waits without a deadline.
            let Ok(Some(batch)) = self.member.poll(Duration::MAX) else { return };
            left -= batch.len() as u64;
            for (event, _) in &batch {
                see(event);
            }
            if batch.commit().is_err() {
                return;
            }
        }
    }
}

type Opened<const N: usize, K> = Result<(Vec<Producer<Payload<N>, K>>, Reader<N, K>), NoFigure>;

fn open<const N: usize, K: Producers>(
    engine: Engine,
    topic: TopicBuilder<Payload<N>, K>,
    producers: usize,
    waiting: WaitClass,
) -> Opened<N, K> {
    let topic = topic.create().map_err(refused)?;
    let member = topic.group("readers").wait(wait(waiting)).join().map_err(refused)?;
    let producers = (0..producers).map(|_| topic.producer().wait(wait(waiting)).create().map_err(refused));
    let producers = producers.collect::<Result<_, _>>()?;
    Ok((producers, Reader { member, _engine: engine }))
}

macro_rules! link {
    ($kind:ident, $many:expr, $topic:expr) => {
        impl<const N: usize> Link<N> for Grouped<$kind> {
            const MANY_PRODUCERS: bool = $many;
            const BATCHES: bool = true;
            const SLEEPS: bool = true;
            type Sender = Producer<Payload<N>, $kind>;
            type Receiver = Reader<N, $kind>;

            fn open(capacity: usize, producers: usize, waiting: WaitClass) -> Opened<N, $kind> {
                let engine = Engine::builder().build().map_err(refused)?;
                let topic = engine.topic::<Payload<N>>("bench").capacity(capacity);
                open(engine, $topic(topic), producers, waiting)
            }
        }
    };
}

link!(Single, false, |topic: TopicBuilder<_>| topic.single_producer());
link!(Multi, true, |topic| topic);
