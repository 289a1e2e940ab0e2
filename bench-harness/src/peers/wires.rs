//! A pipe and a Unix socket as contenders: what the system has for messages between processes. Their buffers are the system's,
//! whatever the capacity: a pipe is given as many bytes as the slots have, at least 64 kilobytes and at most a megabyte.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use slipring_ring::shared::as_bytes;

use super::between::{Medium, WireKind};
use super::link::{Receiver, Sender, Work};
use super::second::{Wire, refused};
use super::waiting::{WaitClass, Waiting};
use crate::payload::Payload;

/// A pipe each way.
pub struct Pipe;

/// A Unix socket, of a stream of bytes.
pub struct Socket;

/// The bytes that one read takes at most, and a pipe has at least.
const ROOM: usize = 64 * 1024;

/// The most bytes that a user may give a pipe, unless the system says otherwise.
const LARGEST_PIPE: usize = 1024 * 1024;

/// The end to write to.
pub struct WireSender<const N: usize> {
    end: File,
    /// The messages of a batch.
    batch: Vec<u64>,
    /// True once the other end is closed: what is sent then goes nowhere, and the check finds it missing.
    is_closed: bool,
}

/// The end to read from.
pub struct WireReceiver<const N: usize> {
    end: File,
    bytes: Vec<u8>,
    /// The bytes of a message that has not arrived as a whole, at the begin of `bytes`.
    rest: usize,
}

impl<const N: usize> WireSender<N> {
    #[inline(always)]
    fn write<W: Waiting>(&mut self, mut bytes: &[u8]) {
        let mut waiting = W::begin();
        while !bytes.is_empty() && !self.is_closed {
            match self.end.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => waiting.idle(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.is_closed = true,
            }
        }
    }
}

impl<const N: usize> Sender<N> for WireSender<N> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        self.write::<W>(as_bytes(&[value; N]));
    }

    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        (first..first + count as u64).for_each(|value| batch.extend([value; N]));
        self.write::<W>(as_bytes(&batch));
        self.batch = batch;
    }
}

impl<const N: usize> Receiver<N> for WireReceiver<N> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        let size = N * size_of::<u64>();
        let mut left = total as usize * size - self.rest;
        let mut waiting = W::begin();
        while left > 0 {
            // No byte behind the last message: those are of lines.
            let until = self.bytes.len().min(self.rest + left);
            match self.end.read(&mut self.bytes[self.rest..until]) {
                Ok(0) => return,
                Ok(read) => {
                    left -= read;
                    let filled = self.rest + read;
                    let whole = filled - filled % size;
                    let (words, _) = self.bytes[..whole].as_chunks::<8>();
                    for message in words.chunks_exact(N) {
                        see(&Payload::from_words(std::array::from_fn(|word| u64::from_ne_bytes(message[word]))));
                    }
                    self.bytes.copy_within(whole..filled, 0);
                    self.rest = filled - whole;
                    waiting = W::begin();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => waiting.idle(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

macro_rules! wire {
    ($name:ident, $text:literal, $kind:expr) => {
        impl<const N: usize> Medium<N> for $name {
            const NAME: &'static str = $text;
            const MANY_PRODUCERS: bool = false;
            const BATCHES: bool = true;
            const WIRE: WireKind = $kind;
            type Sender = WireSender<N>;
            type Receiver = WireReceiver<N>;
            type Place = ();

            fn make(_name: &str, _work: &Work) -> Result<(), String> {
                Ok(())
            }

            fn sender(_name: &str, work: &Work, wire: &Wire) -> Result<Self::Sender, String> {
                let end = wire.output(work.waiting == WaitClass::Native)?;
                if $kind == WireKind::Pipes {
                    let bytes = (work.capacity * N * size_of::<u64>()).clamp(ROOM, LARGEST_PIPE);
                    rustix::pipe::fcntl_setpipe_size(&end, bytes).map_err(refused)?;
                }
                Ok(WireSender { end, batch: Vec::new(), is_closed: false })
            }

            fn receiver(_name: &str, work: &Work, wire: &Wire) -> Result<Self::Receiver, String> {
                Ok(WireReceiver { end: wire.input(work.waiting == WaitClass::Native)?, bytes: vec![0; ROOM], rest: 0 })
            }
        }
    };
}

wire!(Pipe, "pipe", WireKind::Pipes);
wire!(Socket, "socket", WireKind::Socket);
