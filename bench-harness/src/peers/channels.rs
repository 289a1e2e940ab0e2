//! The channels as contenders: crossbeam-channel, kanal, flume, std. None of them can publish a batch at once.

use super::link::{Link, NoFigure, Receiver, Sender};
use super::waiting::{WaitClass, Waiting};
use crate::payload::Payload;

macro_rules! channel {
    ($(#[$doc:meta])* $name:ident, $sender:ty, $receiver:ty, $open:expr, $send:path, $full:pat => $back:expr, $empty:pat) => {
        $(#[$doc])*
        pub struct $name;

        impl<const N: usize> Sender<N> for $sender {
            #[inline(always)]
            fn send<W: Waiting>(&mut self, value: u64) {
                let mut message = Payload::new(value);
                if W::NATIVE {
                    // This cannot fail: the receiver lives longer than the sender.
                    let _ = $send(self, message);
                    return;
                }
                let mut waiting = W::begin();
                loop {
                    match self.try_send(message) {
                        Err($full) => {
                            message = $back;
                            waiting.idle();
                        }
                        _ => return,
                    }
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
            fn receive<W: Waiting, const BATCHED: bool>(
                &mut self,
                total: u64,
                mut see: impl FnMut(&Payload<N>),
            ) {
                for _ in 0..total {
                    if W::NATIVE {
                        match self.recv() {
                            Ok(message) => see(&message),
                            Err(_) => return,
                        }
                        continue;
                    }
                    let mut waiting = W::begin();
                    loop {
                        match self.try_recv() {
                            Ok(message) => {
                                see(&message);
                                break;
                            }
                            Err($empty) => waiting.idle(),
                            Err(_) => return,
                        }
                    }
                }
            }
        }

        impl<const N: usize> Link<N> for $name {
            const MANY_PRODUCERS: bool = true;
            const BATCHES: bool = false;
            const SLEEPS: bool = true;
            type Sender = $sender;
            type Receiver = $receiver;

            fn open(
                capacity: usize,
                producers: usize,
                _waiting: WaitClass,
            ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
                let (sender, receiver) = $open(capacity);
                Ok((vec![sender; producers], receiver))
            }
        }
    };
}

channel!(
    /// crossbeam-channel's bounded channel.
    Crossbeam,
    crossbeam_channel::Sender<Payload<N>>,
    crossbeam_channel::Receiver<Payload<N>>,
    crossbeam_channel::bounded,
    crossbeam_channel::Sender::send,
    crossbeam_channel::TrySendError::Full(back) => back,
    crossbeam_channel::TryRecvError::Empty
);

channel!(
    /// flume's bounded channel.
    Flume,
    flume::Sender<Payload<N>>,
    flume::Receiver<Payload<N>>,
    flume::bounded,
    flume::Sender::send,
    flume::TrySendError::Full(back) => back,
    flume::TryRecvError::Empty
);

channel!(
    /// The standard library's bounded channel.
    Std,
    std::sync::mpsc::SyncSender<Payload<N>>,
    std::sync::mpsc::Receiver<Payload<N>>,
    std::sync::mpsc::sync_channel,
    std::sync::mpsc::SyncSender::send,
    std::sync::mpsc::TrySendError::Full(back) => back,
    std::sync::mpsc::TryRecvError::Empty
);

channel!(
    /// crossfire's bounded channel of several producers and one consumer.
    Crossfire,
    crossfire::MTx<Payload<N>>,
    crossfire::Rx<Payload<N>>,
    crossfire::mpsc::bounded_blocking,
    crossfire::Tx::send,
    crossfire::TrySendError::Full(back) => back,
    crossfire::TryRecvError::Empty
);

/// kanal's bounded channel.
pub struct Kanal;

impl<const N: usize> Sender<N> for kanal::Sender<Payload<N>> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        let message = Payload::new(value);
        if W::NATIVE {
            let _ = kanal::Sender::send(self, message);
            return;
        }
        let mut waiting = W::begin();
        while let Ok(false) = self.try_send(message) {
            waiting.idle();
        }
    }

    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        for value in first..first + count as u64 {
            Sender::<N>::send::<W>(self, value);
        }
    }
}

impl<const N: usize> Receiver<N> for kanal::Receiver<Payload<N>> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        for _ in 0..total {
            if W::NATIVE {
                match self.recv() {
                    Ok(message) => see(&message),
                    Err(_) => return,
                }
                continue;
            }
            let mut waiting = W::begin();
            loop {
                match self.try_recv() {
                    Ok(Some(message)) => {
                        see(&message);
                        break;
                    }
                    Ok(None) => waiting.idle(),
                    Err(_) => return,
                }
            }
        }
    }
}

impl<const N: usize> Link<N> for Kanal {
    const MANY_PRODUCERS: bool = true;
    const BATCHES: bool = false;
    const SLEEPS: bool = true;
    type Sender = kanal::Sender<Payload<N>>;
    type Receiver = kanal::Receiver<Payload<N>>;

    fn open(
        capacity: usize,
        producers: usize,
        _waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
        let (sender, receiver) = kanal::bounded(capacity);
        Ok((vec![sender; producers], receiver))
    }
}
