//! The native half of the Python package `slipring`; its other half, `python/slipring/__init__.py`, is what users call.
//!
//! Everything that waits lets go of the GIL and comes back ten times a second to see whether a signal has arrived.
//! Errors are raised as the classes of `slipring._errors`.

mod failure;
mod participants;
mod void;

use failure::{ended, not_published, refused};
use participants::{SnapshotOfParticipant, snapshot};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use slipring_ring::shared::{self, EventLayout, PublishError, RawConsumer, RawProducer, RawRing, Size};
use slipring_ring::{Sequence, Start, Wait};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest time without a look for signals.
const SLICE: Duration = Duration::from_millis(100);

/// An open ring. Arrays of events keep it, and with it the memory that they show.
#[pyclass(frozen, module = "slipring._native")]
struct Ring(RawRing);

fn layout_of(text: &str) -> PyResult<EventLayout> {
    text.parse().map_err(refused)
}

fn size_of(capacity: usize, retain: usize, several: bool) -> Size {
    let size = Size::slots(capacity).retain(retain);
    if several { size.multi_producer() } else { size }
}

/// When a timeout is over; `None` for one without end.
fn deadline(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(seconds) = timeout else { return Ok(None) };
    let timeout = Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!("a timeout of {seconds} seconds is refused: take 0 or more, or None"))
    })?;
    Ok(Instant::now().checked_add(timeout))
}

fn strategy(name: Option<&str>) -> PyResult<Wait> {
    name.map_or_else(
        || Ok(Wait::default()),
        |name| name.parse().map_err(|it: slipring_ring::UnknownWait| PyValueError::new_err(it.to_string())),
    )
}

/// Waits in slices: `look` gets the end of its slice, and returns `None` if there was nothing until then.
fn wait<T: Send>(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut look: impl FnMut(Instant) -> PyResult<Option<T>> + Send,
) -> PyResult<Option<T>> {
    loop {
        let slice = Instant::now() + SLICE;
        let until = deadline.map_or(slice, |deadline| deadline.min(slice));
        if let Some(found) = py.detach(|| look(until))? {
            return Ok(Some(found));
        }
        py.check_signals()?;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
    }
}

/// What one thread uses at a time, until it is closed.
struct Used<T>(Mutex<Option<T>>, &'static str);

impl<T> Used<T> {
    fn new(what: &'static str, value: T) -> Self {
        Self(Mutex::new(Some(value)), what)
    }

    fn lock(&self) -> PyResult<MutexGuard<'_, Option<T>>> {
        match self.0.try_lock() {
            Ok(guard) => Ok(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Ok(PoisonError::into_inner(poisoned)),
            Err(std::sync::TryLockError::WouldBlock) => {
                Err(PyRuntimeError::new_err(format!("another thread is using this {}", self.1)))
            }
        }
    }

    fn with<R>(&self, then: impl FnOnce(&mut T) -> PyResult<R>) -> PyResult<R> {
        let mut guard = self.lock()?;
        let value = guard.as_mut().ok_or_else(|| PyValueError::new_err(format!("this {} is closed", self.1)))?;
        then(value)
    }

    fn take(&self) -> PyResult<Option<T>> {
        Ok(self.lock()?.take())
    }
}

#[pymethods]
impl Ring {
    #[staticmethod]
    fn open(name: &str) -> PyResult<Self> {
        RawRing::open(name).map(Self).map_err(refused)
    }

    #[staticmethod]
    fn create(name: &str, layout: &str, capacity: usize, retain: usize, several: bool) -> PyResult<Self> {
        let layout = layout_of(layout)?;
        RawRing::create(name, size_of(capacity, retain, several), &layout).map(Self).map_err(refused)
    }

    #[staticmethod]
    fn open_or_create(name: &str, layout: &str, capacity: usize, retain: usize, several: bool) -> PyResult<Self> {
        let layout = layout_of(layout)?;
        RawRing::open_or_create(name, size_of(capacity, retain, several), &layout).map(Self).map_err(refused)
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn layout(&self) -> String {
        self.0.layout().to_string()
    }

    /// Name, type, count (`None` for a single number) and offset of each field.
    #[getter]
    fn fields(&self) -> Vec<(String, &'static str, Option<usize>, usize)> {
        let fields = self.0.layout().fields().iter();
        fields.map(|it| (it.name().to_owned(), it.number_type().name(), it.len(), it.offset())).collect()
    }

    #[getter]
    fn event_size(&self) -> usize {
        self.0.layout().size()
    }

    #[getter]
    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    #[getter]
    fn retained(&self) -> usize {
        self.0.retained()
    }

    #[getter]
    fn several(&self) -> bool {
        self.0.is_multi_producer()
    }

    #[getter]
    fn published(&self) -> u64 {
        self.0.published().0
    }

    fn participants(&self) -> Vec<SnapshotOfParticipant> {
        snapshot(&self.0)
    }

    fn close(&self) {
        self.0.close();
    }

    fn release(&self, name: &str) -> PyResult<()> {
        self.0.release(name).map_err(refused)
    }

    /// The address of an event.
    fn address(&self, sequence: u64) -> usize {
        self.0.event_ptr(Sequence(sequence)).expose_provenance()
    }

    fn producer(&self, name: &str, wait: Option<&str>) -> PyResult<Producer> {
        let producer = self.0.producer_named(name).map_err(refused)?.wait(strategy(wait)?);
        Ok(Producer { producer: Used::new("producer", producer), event_size: self.0.layout().size() })
    }

    /// `start` is "earliest", "latest" or a sequence.
    fn consumer(&self, name: &str, start: StartAt, hold: bool, wait: Option<&str>) -> PyResult<Consumer> {
        let builder = self.0.consumer(name).start(start.0).wait(strategy(wait)?);
        let builder = if hold { builder.hold() } else { builder };
        let consumer = builder.join().map_err(refused)?;
        Ok(Consumer { consumer: Used::new("consumer", consumer), capacity: self.0.capacity() as u64 })
    }
}

/// Where a consumer begins.
struct StartAt(Start);

impl<'py> FromPyObject<'py> for StartAt {
    fn extract_bound(given: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(sequence) = given.extract::<u64>() {
            return Ok(Self(Start::At(Sequence(sequence))));
        }
        match given.extract::<String>().as_deref() {
            Ok("earliest") => Ok(Self(Start::Earliest)),
            Ok("latest") => Ok(Self(Start::Latest)),
            _ => Err(PyValueError::new_err("a start is \"earliest\", \"latest\" or a sequence")),
        }
    }
}

/// A producer of a ring.
#[pyclass(frozen, module = "slipring._native")]
struct Producer {
    producer: Used<RawProducer>,
    event_size: usize,
}

#[pymethods]
impl Producer {
    /// Publishes the events with these bytes. Returns the sequence of the first.
    fn publish(&self, py: Python<'_>, events: &[u8], timeout: Option<f64>) -> PyResult<u64> {
        let len = events.len() / self.event_size;
        if !events.len().is_multiple_of(self.event_size) {
            return Err(PyValueError::new_err("the bytes are no whole number of events"));
        }
        let deadline = deadline(timeout)?;
        let mut last = None;
        let published = wait(py, deadline, |until| {
            self.producer.with(|producer| {
                let claim =
                    if timeout == Some(0.0) { producer.try_claim(len) } else { producer.claim_until(len, until) };
                let mut claim = match claim {
                    Err(full @ (PublishError::Full { .. } | PublishError::TimedOut { .. })) => {
                        last = Some(full);
                        return Ok(None);
                    }
                    other => other.map_err(not_published)?,
                };
                let (before, after) = claim.events_mut();
                let (first, rest) = events.split_at(before.len());
                before.copy_from_slice(first);
                after.copy_from_slice(rest);
                Ok(Some(claim.commit().map_err(ended)?.first.0))
            })
        })?;
        published.ok_or_else(|| last.map_or_else(|| PyRuntimeError::new_err("no claim was tried"), not_published))
    }

    /// Ends the ring for all participants.
    fn end(&self) -> PyResult<()> {
        if let Some(producer) = self.producer.take()? {
            producer.close();
        }
        Ok(())
    }

    /// Leaves.
    fn close(&self) -> PyResult<()> {
        self.producer.take().map(drop)
    }
}

/// A consumer of a ring.
#[pyclass(frozen, module = "slipring._native")]
struct Consumer {
    consumer: Used<RawConsumer>,
    capacity: u64,
}

#[pymethods]
impl Consumer {
    #[getter]
    fn position(&self) -> PyResult<u64> {
        self.consumer.with(|consumer| Ok(consumer.position().0))
    }

    /// Waits for events. Returns the sequence of the first and their count, up to `limit` and not past the end of the
    /// slots; `None` after the timeout. They stay in place until they are consumed.
    fn poll(&self, py: Python<'_>, limit: usize, timeout: Option<f64>) -> PyResult<Option<(u64, usize)>> {
        if limit == 0 {
            return Err(PyValueError::new_err("the limit is 0: ask for 1 or more events"));
        }
        let deadline = deadline(timeout)?;
        wait(py, deadline, |until| {
            self.consumer.with(|consumer| {
                let before_the_end = self.capacity - (consumer.position().0 & (self.capacity - 1));
                let limit = limit.min(usize::try_from(before_the_end).unwrap_or(usize::MAX));
                let batch = if timeout == Some(0.0) { consumer.poll(limit) } else { consumer.poll_until(limit, until) };
                let batch = batch.map_err(ended)?;
                // It may begin behind skipped slots, and so pass the end of the slots although the limit did not.
                let fits = self.capacity - (batch.first().0 & (self.capacity - 1));
                let len = batch.len().min(usize::try_from(fits).unwrap_or(usize::MAX));
                Ok((len > 0).then(|| (batch.first().0, len)))
            })
        })
    }

    /// Moves the position past the next `count` events, which a poll has returned.
    fn consume(&self, count: usize) -> PyResult<()> {
        self.consumer.with(|consumer| {
            // Everything up to there is published, so this poll finds it. The drop of the batch moves the position.
            consumer.poll(count).map_err(ended)?.consume(count);
            Ok(())
        })
    }

    /// Leaves; a held consumer keeps its position, unless `for_good`.
    fn close(&self, for_good: bool) -> PyResult<()> {
        match self.consumer.take()? {
            Some(consumer) if for_good => consumer.leave(),
            _ => {}
        }
        Ok(())
    }
}

/// The names of this user's rings.
#[pyfunction]
fn names() -> PyResult<Vec<String>> {
    shared::names().map_err(refused)
}

/// Removes a ring.
#[pyfunction]
fn remove(name: &str, force: bool) -> PyResult<()> {
    if force { RawRing::remove_forced(name) } else { RawRing::remove(name) }.map_err(refused)
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{Consumer, Producer, Ring, names, remove, void::void};
}
