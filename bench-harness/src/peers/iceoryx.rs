//! iceoryx2's publish and subscribe as a contender between processes. A sample is a message, or a slice of the messages of a batch,
//! and a subscriber has room for as many messages as the ring has slots. iceoryx2 would wait for a full subscriber by yielding to the
//! system and later by sleeping, and has no waiting for an empty one: here both wait as those of every other contender.
//!
//! # Invariants
//! 1. A port stays in the thread that opened it: iceoryx2's are not [`Send`].
//! 2. The name of every file that iceoryx2 makes, in the folder for temporary files or in that for shared memory, begins with
//!    [`PREFIX`] and the round's name, so that [`remove`] finds what a killed process has left, and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use iceoryx2::port::SendError;
use iceoryx2::port::publisher::Publisher as Port;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{
    BackpressureStrategy, Config, FileName, Node, NodeBuilder, PortFactory as _, SemanticString as _,
    SignalHandlingMode, ipc,
};
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use super::between::{Medium, WireKind};
use super::link::{Receiver, Sender, Work};
use super::second::Wire;
use super::waiting::Waiting;
use crate::payload::Payload;

/// Where Linux has shared memory.
const SHARED_MEMORY: &str = "/dev/shm";

/// Begins the name of each file, before the round's name.
const PREFIX: &str = "iceoryx2-";

/// iceoryx2's publish and subscribe.
pub struct Iceoryx;

/// True if the round's name in a file's name is `round`.
pub fn is_of(name: &str, round: &str) -> bool {
    name.strip_prefix(round).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Removes the files whose names, without [`PREFIX`], are `left`.
pub fn remove(left: impl Fn(&str) -> bool) {
    for folder in [std::env::temp_dir().as_path(), Path::new(SHARED_MEMORY)] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(&left) {
                // Another process may do the same now, and this is a file or a folder.
                let _ = std::fs::remove_file(entry.path()).or_else(|_| std::fs::remove_dir_all(entry.path()));
            }
        }
    }
}

/// The files of a round's way. Dropped, they are removed.
struct Files(String);

impl Drop for Files {
    fn drop(&mut self) {
        remove(|name| is_of(name, &self.0));
    }
}

/// A process's part of a service: one for samples of a message, or one for samples of a batch.
enum Service<const N: usize> {
    One(PortFactory<ipc::Service, [u64; N], ()>),
    Slices(PortFactory<ipc::Service, [[u64; N]], ()>),
}

/// What stands while both processes use it. Its fields are dropped in this order.
pub struct Place<const N: usize> {
    _service: Service<N>,
    _node: Node<ipc::Service>,
    _files: Files,
}

enum Publishing<const N: usize> {
    One(Port<ipc::Service, [u64; N], ()>),
    Slices(Port<ipc::Service, [[u64; N]], ()>),
}

/// A publisher, with the service and node that it belongs to.
pub struct Publisher<const N: usize> {
    port: Publishing<N>,
    /// True once the other process has gone: nothing else tells of one that was killed.
    gone: Arc<AtomicBool>,
    service: Service<N>,
    _node: Node<ipc::Service>,
}

enum Subscribed<const N: usize> {
    One(Subscriber<ipc::Service, [u64; N], ()>),
    Slices(Subscriber<ipc::Service, [[u64; N]], ()>),
}

/// A subscriber, with the service and node that it belongs to.
pub struct Reader<const N: usize> {
    port: Subscribed<N>,
    /// As [`Publisher::gone`].
    gone: Arc<AtomicBool>,
    _service: Service<N>,
    _node: Node<ipc::Service>,
}

fn refused(cause: impl std::fmt::Debug) -> String {
    format!("iceoryx2 refused: {cause:?}")
}

/// Opens the service of this name, in a node of its own.
fn open<const N: usize>(name: &str, work: &Work) -> Result<(Service<N>, Node<ipc::Service>), String> {
    let mut config = Config::default();
    let folder = std::env::temp_dir().join(format!("{PREFIX}{name}"));
    let folder = folder.to_str().ok_or("the folder for temporary files has a name that is no text")?;
    config.global.set_root_path(&folder.try_into().map_err(refused)?);
    config.global.prefix = FileName::new(format!("{PREFIX}{name}-").as_bytes()).map_err(refused)?;
    // Ctrl-C ends the process, as it does everywhere else.
    let node = NodeBuilder::new().config(&config).signal_handling_mode(SignalHandlingMode::Disabled);
    let node = node.create().map_err(refused)?;
    let name = name.try_into().map_err(refused)?;
    // The two kinds of services have different types.
    macro_rules! service {
        ($payload:ty, $samples:expr) => {{
            let service = node.service_builder(&name).publish_subscribe::<$payload>();
            let service = service.max_publishers(work.producers).max_subscribers(1).max_nodes(work.producers + 2);
            let service = service.subscriber_max_buffer_size($samples).enable_safe_overflow(false).history_size(0);
            service.open_or_create().map_err(refused)?
        }};
    }
    let service = match work.batch {
        1 => Service::One(service!([u64; N], work.capacity)),
        batch => Service::Slices(service!([[u64; N]], (work.capacity / batch).max(1))),
    };
    Ok((service, node))
}

impl<const N: usize> Publisher<N> {
    /// Sends a sample that `publish` makes, waiting for room. It is not sent if the other process has gone.
    ///
    /// # Panics
    ///
    /// iceoryx2 refuses, or there is no subscriber: the round has failed, and its other half would wait without end.
    #[inline(always)]
    fn until_sent<W: Waiting>(&self, publish: impl Fn(&Publishing<N>) -> Result<usize, SendError>) {
        let mut waiting = W::begin();
        loop {
            match publish(&self.port) {
                Ok(0) if self.gone.load(Ordering::Relaxed) => return,
                Ok(0) => {
                    assert_ne!(self.service.subscribers(), 0, "the subscriber has gone");
                    waiting.idle();
                }
                Ok(_) => return,
                Err(cause) => panic!("iceoryx2 refused to send: {cause:?}"),
            }
        }
    }
}

impl<const N: usize> Service<N> {
    fn subscribers(&self) -> usize {
        match self {
            Self::One(service) => service.dynamic_config().number_of_subscribers(),
            Self::Slices(service) => service.dynamic_config().number_of_subscribers(),
        }
    }
}

impl<const N: usize> Sender<N> for Publisher<N> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        self.until_sent::<W>(|port| match port {
            Publishing::One(port) => port.loan_uninit()?.write_payload([value; N]).send(),
            Publishing::Slices(port) => port.loan_slice_uninit(1)?.write_from_fn(|_| [value; N]).send(),
        });
    }

    #[inline(always)]
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        if matches!(self.port, Publishing::One(_)) {
            return (first..first + count as u64).for_each(|value| self.send::<W>(value));
        }
        self.until_sent::<W>(|port| match port {
            Publishing::One(_) => Ok(0),
            Publishing::Slices(port) => {
                port.loan_slice_uninit(count)?.write_from_fn(|index| [first + index as u64; N]).send()
            }
        });
    }
}

impl<const N: usize> Receiver<N> for Reader<N> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        let mut left = total;
        let mut waiting = W::begin();
        while left > 0 {
            let mut count = |messages: &[[u64; N]]| {
                messages.iter().for_each(|words| see(&Payload::from_words(*words)));
                messages.len() as u64
            };
            let received = match &self.port {
                Subscribed::One(port) => {
                    port.receive().map(|it| it.map(|sample| count(std::slice::from_ref(sample.payload()))))
                }
                Subscribed::Slices(port) => port.receive().map(|it| it.map(|sample| count(sample.payload()))),
            };
            match received {
                Ok(Some(count)) => {
                    left = left.saturating_sub(count);
                    waiting = W::begin();
                }
                Ok(None) if !self.gone.load(Ordering::Relaxed) => waiting.idle(),
                _ => return,
            }
        }
    }
}

impl<const N: usize> Medium<N> for Iceoryx {
    const NAME: &'static str = "iceoryx2";
    const MANY_PRODUCERS: bool = true;
    const BATCHES: bool = true;
    const WIRE: WireKind = WireKind::Lines;
    type Sender = Publisher<N>;
    type Receiver = Reader<N>;
    type Place = Place<N>;

    fn make(name: &str, work: &Work) -> Result<Self::Place, String> {
        let files = Files(name.to_owned());
        let (service, node) = open(name, work)?;
        Ok(Place { _service: service, _node: node, _files: files })
    }

    fn sender(name: &str, work: &Work, wire: &Wire) -> Result<Self::Sender, String> {
        let (service, node) = open(name, work)?;
        // It tells of a full subscriber, and the waiting is ours.
        let full = BackpressureStrategy::DiscardData;
        let port = match &service {
            Service::One(service) => {
                Publishing::One(service.publisher_builder().backpressure_strategy(full).create().map_err(refused)?)
            }
            Service::Slices(service) => {
                let port = service.publisher_builder().backpressure_strategy(full).initial_max_slice_len(work.batch);
                Publishing::Slices(port.create().map_err(refused)?)
            }
        };
        Ok(Publisher { port, gone: Arc::clone(&wire.gone), service, _node: node })
    }

    fn receiver(name: &str, work: &Work, wire: &Wire) -> Result<Self::Receiver, String> {
        let (service, node) = open(name, work)?;
        let port = match &service {
            Service::One(service) => Subscribed::One(service.subscriber_builder().create().map_err(refused)?),
            Service::Slices(service) => Subscribed::Slices(service.subscriber_builder().create().map_err(refused)?),
        };
        Ok(Reader { port, gone: Arc::clone(&wire.gone), _service: service, _node: node })
    }
}
