//! Shared rings by name: creating, opening, joining, looking at them, closing and removing.

use super::consumer_builder::ConsumerBuilder;
use super::error::{Ended, Property, SharedError};
use super::event_layout::EventLayout;
use super::header::Geometry;
use super::heir;
use super::layout::Event;
use super::lock::Locks;
use super::member;
use super::participant::{Participant, participants};
use super::producer::SharedProducer;
use super::region::{Region, phase};
use super::size::Size;
use super::{claims, ending};
use crate::sequence::Sequence;
use std::fmt;

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
use super::{
    event_layout::LARGEST_EVENT,
    folder::{Folder, LONGEST_RING, path_of},
    header::LONGEST_LAYOUT,
    member::{Register, check_name, system, vacate},
    region::{LARGEST_CAPACITY, role},
};
#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
use crate::ordering::SHARED_LOOK_AT_ROLE;
#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
use std::os::fd::AsFd;

/// A ring in shared memory, which the processes of one user open by its name. See the [module's page](super).
///
/// This handle is no participant: it neither gates producers nor keeps the ring alive. The ring stays, with its events,
/// until it is [removed](Self::remove) or the machine restarts.
pub struct SharedRing<E: Event> {
    name: String,
    geometry: Geometry,
    region: Region<E>,
    locks: Locks,
}

impl<E: Event> fmt::Debug for SharedRing<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRing")
            .field("name", &self.name)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl<E: Event> SharedRing<E> {
    /// The ring's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Count of slots.
    pub fn capacity(&self) -> usize {
        self.region.capacity() as usize
    }

    /// Count of events that are kept for consumers that join later: [`Size::retain`].
    pub fn retained(&self) -> usize {
        self.region.retain as usize
    }

    /// Size of the ring's file in bytes.
    pub fn file_size(&self) -> u64 {
        self.geometry.bytes()
    }

    /// The text of the events' layout.
    pub(crate) fn layout(&self) -> &str {
        &self.geometry.layout
    }

    /// The place of an event in this handle's mapping.
    pub(crate) fn event_ptr(&self, sequence: Sequence) -> *const E {
        self.region.event(sequence.0)
    }

    /// Why the ring has ended; `None` while it is open.
    pub fn ended(&self) -> Option<Ended> {
        ending::reason(&self.region).or_else(|| check_file(&self.locks).err())
    }

    /// True if several producers may join: [`Size::multi_producer`].
    pub fn is_multi_producer(&self) -> bool {
        self.region.is_multi
    }

    /// The next sequence to be published: all below it are published, or skipped.
    pub fn published(&self) -> Sequence {
        Sequence(heir::published(&self.region))
    }

    /// The next sequence to be claimed, in a ring for several producers; otherwise [`published`](Self::published).
    pub fn claimed(&self) -> Sequence {
        if self.region.is_multi { Sequence(claims::claimed(&self.region)) } else { self.published() }
    }

    /// The participants: those that are alive, those that are held, and those that have died and were not yet noticed.
    pub fn participants(&self) -> Vec<Participant> {
        participants(&self.region, &self.locks)
    }

    /// A consumer that joins under `name`: 1 to 48 letters, digits, dots, underscores and hyphens. No two living
    /// consumers have one name.
    pub fn consumer(&self, name: impl Into<String>) -> ConsumerBuilder<'_, E> {
        ConsumerBuilder::new(self, name.into())
    }

    /// Joins as the only producer.
    ///
    /// # Errors
    /// [`SharedError::ProducerTaken`]: another producer lives. [`SharedError::Mismatch`]: the ring is for several
    /// producers. [`SharedError::Ended`]: the ring has ended, or is damaged.
    pub fn producer(&self) -> Result<SharedProducer<E>, SharedError> {
        self.check_kind(false)?;
        self.produce("producer")
    }

    /// Joins as one of several producers, each with its own place, in a ring that was created with
    /// [`Size::multi_producer`]. The order of their events is that of their claims.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use slipring_ring::shared::{SharedRing, Size};
    /// # let name = format!("doc-several-{}", std::process::id());
    /// # let name = &*name;
    /// let ring = SharedRing::<u64>::open_or_create(name, Size::slots(8).multi_producer())?;
    /// let mut tape = ring.consumer("tape").join()?;
    /// // In one process, and in another.
    /// let mut one = ring.multi_producer()?;
    /// let mut other = ring.multi_producer_named("gateway-2")?;
    /// one.publish(|value| *value = 7)?;
    /// other.publish(|value| *value = 8)?;
    /// let mut batch = tape.poll(10)?;
    /// assert_eq!((&mut batch).into_iter().map(|(_, value)| *value).collect::<Vec<_>>(), [7, 8]);
    /// # drop(batch);
    /// # drop((one, other, tape));
    /// SharedRing::<u64>::remove(name)?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SharedError::Mismatch`]: the ring is for one producer. [`SharedError::Full`]; [`SharedError::Ended`].
    pub fn multi_producer(&self) -> Result<SharedProducer<E>, SharedError> {
        self.multi_producer_named("producer")
    }

    /// As [`multi_producer`](Self::multi_producer), under a name that [`participants`](Self::participants) and errors
    /// show. Several producers may have one name.
    ///
    /// # Errors
    /// As for `multi_producer`; [`SharedError::Name`].
    pub fn multi_producer_named(&self, name: &str) -> Result<SharedProducer<E>, SharedError> {
        self.check_kind(true)?;
        self.produce(name)
    }

    /// Joins as a producer, the only one or one of several, as the ring is.
    pub(crate) fn produce(&self, name: &str) -> Result<SharedProducer<E>, SharedError> {
        self.check_open()?;
        let (region, locks) = self.open_own(true)?;
        Ok(SharedProducer::new(member::produce(region, locks, name)?)?)
    }

    fn check_kind(&self, is_multi: bool) -> Result<(), SharedError> {
        let (expected, found) = (kind(is_multi), kind(self.region.is_multi));
        if found == expected { Ok(()) } else { Err(self.mismatch(Property::Kind, expected, found)) }
    }

    fn mismatch(&self, property: Property, expected: String, found: String) -> SharedError {
        #[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
        let path = path_of(&self.name);
        #[cfg(any(loom, shuttle, not(target_os = "linux")))]
        let path = self.name().into();
        SharedError::Mismatch { path, property, expected, found }
    }

    /// Ends the ring for all participants. Producers get [`Ended::Closed`]; consumers read what was published, and then
    /// get it, too. The file stays until it is removed.
    pub fn close(&self) {
        ending::end(&self.region, phase::CLOSED);
    }

    fn check_open(&self) -> Result<(), SharedError> {
        ending::reason(&self.region).map_or(Ok(()), |reason| Err(reason.into()))
    }
}

/// Elsewhere there are no shared rings; the models make theirs in `model`.
#[cfg(any(loom, shuttle, not(target_os = "linux")))]
impl<E: Event> SharedRing<E> {
    /// Opens the ring called `name`.
    ///
    /// # Errors
    /// [`SharedError::Unsupported`] on this system.
    pub fn open(name: &str) -> Result<Self, SharedError> {
        let _ = name;
        Err(SharedError::Unsupported { system: std::env::consts::OS })
    }

    /// Creates a ring.
    ///
    /// # Errors
    /// [`SharedError::Unsupported`] on this system.
    pub fn create(name: &str, size: impl Into<Size>) -> Result<Self, SharedError> {
        let _ = (size.into(), name);
        Err(SharedError::Unsupported { system: std::env::consts::OS })
    }

    /// Opens the ring called `name`, and creates it if it is not there.
    ///
    /// # Errors
    /// [`SharedError::Unsupported`] on this system.
    pub fn open_or_create(name: &str, size: impl Into<Size>) -> Result<Self, SharedError> {
        Self::create(name, size)
    }

    pub(crate) fn create_as(name: &str, size: Size, _: &EventLayout) -> Result<Self, SharedError> {
        Self::create(name, size)
    }

    pub(crate) fn open_or_create_as(name: &str, size: Size, _: &EventLayout) -> Result<Self, SharedError> {
        Self::create(name, size)
    }

    /// Removes the ring called `name`.
    ///
    /// # Errors
    /// [`SharedError::Unsupported`] on this system.
    pub fn remove(name: &str) -> Result<(), SharedError> {
        Self::open(name).map(drop)
    }

    /// Removes the ring called `name`, also if participants are alive.
    ///
    /// # Errors
    /// [`SharedError::Unsupported`] on this system.
    pub fn remove_forced(name: &str) -> Result<(), SharedError> {
        Self::open(name).map(drop)
    }

    /// Gives up the position of a held consumer.
    ///
    /// # Errors
    /// [`SharedError::Unsupported`] on this system.
    pub fn release(&self, name: &str) -> Result<(), SharedError> {
        Self::open(name).map(drop)
    }

    pub(crate) fn open_own(&self, _: bool) -> Result<(Region<E>, Locks), SharedError> {
        Err(SharedError::Unsupported { system: std::env::consts::OS })
    }
}

/// The text of a kind of rings.
fn kind(is_multi: bool) -> String {
    if is_multi { "several producers" } else { "one producer" }.to_owned()
}

/// An error if the ring's file has no name any more.
pub(crate) fn check_file(locks: &Locks) -> Result<(), Ended> {
    #[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
    if rustix::fs::fstat(locks).is_ok_and(|stat| stat.st_nlink == 0) {
        return Err(Ended::Replaced);
    }
    let _ = locks;
    Ok(())
}

/// The names of this user's shared rings, in order.
///
/// # Errors
/// The folder cannot be read, or is not this user's; [`SharedError::Unsupported`] on other systems than Linux.
pub fn names() -> Result<Vec<String>, SharedError> {
    #[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
    return Folder::open()?.rings();
    #[cfg(any(loom, shuttle, not(target_os = "linux")))]
    Err(SharedError::Unsupported { system: std::env::consts::OS })
}

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
impl<E: Event> SharedRing<E> {
    /// Opens the ring called `name`.
    ///
    /// # Errors
    /// [`SharedError::NotFound`]; [`SharedError::Mismatch`] with both sides if the file is not a ring of this user with
    /// such events.
    pub fn open(name: &str) -> Result<Self, SharedError> {
        check_name(name, LONGEST_RING)?;
        let folder = Folder::open()?;
        folder.sweep();
        Self::open_in(&folder, name, false)
    }

    fn open_in(folder: &Folder, name: &str, writes: bool) -> Result<Self, SharedError> {
        let (file, geometry) = folder.open_ring(name)?;
        geometry.check::<E>().map_err(|it| SharedError::Mismatch {
            path: folder.path_of(name),
            property: it.property,
            expected: it.expected,
            found: it.found,
        })?;
        let locks = Locks::new(file);
        // SAFETY: `open_ring` has compared the size of the file with the geometry, which was checked for `E`.
        let region = unsafe { Region::map(locks.as_fd(), &geometry, writes) }.map_err(system("mapping the ring"))?;
        Ok(Self { name: name.to_owned(), geometry, region, locks })
    }

    /// Creates a ring called `name`: 1 to 100 letters, digits, dots, underscores and hyphens, no dot first. `size` is a
    /// count of slots, a power of two, or a [`Size`]. All memory is allocated now.
    ///
    /// # Errors
    /// [`SharedError::Exists`]; [`SharedError::Capacity`], [`SharedError::Retain`] and [`SharedError::Memory`] for a size
    /// that is refused.
    pub fn create(name: &str, size: impl Into<Size>) -> Result<Self, SharedError> {
        Self::create_as(name, size.into(), &EventLayout::of::<E>())
    }

    /// As [`create`](Self::create), for events with `layout`, which is that of `E` unless `E` is raw.
    pub(crate) fn create_as(name: &str, size: Size, layout: &EventLayout) -> Result<Self, SharedError> {
        check_name(name, LONGEST_RING)?;
        let Size { capacity, retain, is_multi } = size;
        let (bytes, text) = (layout.size(), layout.to_string());
        let refused = |limit| Err(SharedError::EventType { size: bytes, layout: layout.to_string(), limit });
        if bytes == 0 || bytes > LARGEST_EVENT {
            return refused("an event has 1 byte to 1 gigabyte");
        }
        if layout.align() > 4096 || text.len() > LONGEST_LAYOUT {
            return refused("the text of the layout has at most 4,000 bytes: take fewer or shorter fields");
        }
        let largest = (LARGEST_CAPACITY / (bytes as u64).max(8)) as usize;
        let largest = (largest / 2 + 1).next_power_of_two();
        if !capacity.is_power_of_two() || capacity > largest {
            return Err(SharedError::Capacity { asked: capacity, largest });
        }
        if retain >= capacity {
            return Err(SharedError::Retain { asked: retain, capacity });
        }
        let geometry = Geometry::new(is_multi, capacity as u64, retain as u64, layout);
        let folder = Folder::open()?;
        folder.sweep();
        folder.create_ring(name, &geometry, |locks| {
            // SAFETY: the file was allocated with the size of this geometry, which is that of `E`, or `E` is raw.
            let region = unsafe { Region::<E>::map(locks.as_fd(), &geometry, true) };
            region.map_err(system("mapping the new ring"))?.init();
            Ok(())
        })?;
        Self::open_in(&folder, name, false)
    }

    /// Opens the ring called `name`, and creates it if it is not there. `size` is as for [`create`](Self::create).
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and of [`create`](Self::create). [`SharedError::Mismatch`] if the ring that is there
    /// has another capacity.
    pub fn open_or_create(name: &str, size: impl Into<Size>) -> Result<Self, SharedError> {
        Self::open_or_create_as(name, size.into(), &EventLayout::of::<E>())
    }

    /// As [`open_or_create`](Self::open_or_create), for events with `layout`, which is that of `E` unless `E` is raw.
    pub(crate) fn open_or_create_as(name: &str, size: Size, layout: &EventLayout) -> Result<Self, SharedError> {
        loop {
            match Self::open(name) {
                Err(SharedError::NotFound { .. }) => {}
                Ok(ring) => {
                    ring.check_same(size, layout)?;
                    return Ok(ring);
                }
                Err(other) => return Err(other),
            }
            match Self::create_as(name, size, layout) {
                // Another process was quicker.
                Err(SharedError::Exists { .. }) => {}
                other => return other,
            }
        }
    }

    fn check_same(&self, size: Size, layout: &EventLayout) -> Result<(), SharedError> {
        let sides = [
            (Property::Layout, layout.to_string(), self.geometry.layout.clone()),
            (Property::Capacity, size.capacity.to_string(), self.capacity().to_string()),
            (Property::Retain, size.retain.to_string(), self.retained().to_string()),
            (Property::Kind, kind(size.is_multi), kind(self.region.is_multi)),
        ];
        for (property, expected, found) in sides {
            if found != expected {
                return Err(self.mismatch(property, expected, found));
            }
        }
        Ok(())
    }

    /// Removes the ring called `name`, whose participants have all gone. Held positions go with it.
    ///
    /// # Errors
    /// [`SharedError::InUse`] if participants are alive; [`SharedError::NotFound`].
    pub fn remove(name: &str) -> Result<(), SharedError> {
        Self::remove_if(name, false)
    }

    /// Removes the ring called `name`, also if participants are alive. They get [`Ended::Replaced`]; consumers read what
    /// was published before.
    ///
    /// # Errors
    /// [`SharedError::NotFound`]; [`SharedError::Busy`].
    pub fn remove_forced(name: &str) -> Result<(), SharedError> {
        Self::remove_if(name, true)
    }

    fn remove_if(name: &str, by_force: bool) -> Result<(), SharedError> {
        let ring = Self::open(name)?;
        let register = Register::lock(&ring.locks)?;
        let alive: Vec<String> = ring.participants().into_iter().filter(|it| it.is_alive).map(|it| it.name).collect();
        if !alive.is_empty() && !by_force {
            return Err(SharedError::InUse { name: name.to_owned(), participants: alive });
        }
        let folder = Folder::open()?;
        folder.unlink(name, inode(&ring.locks)?)?;
        ending::end(&ring.region, phase::REMOVED);
        drop(register);
        Ok(())
    }

    /// Gives up the position of the held consumer `name`, whose process has gone.
    ///
    /// # Errors
    /// [`SharedError::NotHeld`] if there is none, or if it is alive.
    pub fn release(&self, name: &str) -> Result<(), SharedError> {
        // An open file of its own: this handle may be used by several threads at once.
        let (region, locks) = self.open_own(false)?;
        let _register = Register::lock(&locks)?;
        for (index, entry) in region.control().table.iter().enumerate() {
            if entry.role.load(SHARED_LOOK_AT_ROLE.get()) == role::CONSUMER
                && entry.name() == name
                && locks.try_lock(index).map_err(system("locking an entry of the ring"))?
            {
                vacate(entry);
                region.control().room.0.ring(0);
                return Ok(());
            }
        }
        Err(SharedError::NotHeld { name: name.to_owned() })
    }

    /// The ring opened anew, for a participant: its own open file and its own mapping.
    pub(crate) fn open_own(&self, writes: bool) -> Result<(Region<E>, Locks), SharedError> {
        let own = Self::open_in(&Folder::open()?, &self.name, writes);
        let own = match own {
            Err(SharedError::NotFound { .. }) => return Err(Ended::Replaced.into()),
            other => other?,
        };
        if inode(&own.locks)? != inode(&self.locks)? {
            return Err(Ended::Replaced.into());
        }
        Ok((own.region, own.locks))
    }
}

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
fn inode(locks: &Locks) -> Result<u64, SharedError> {
    rustix::fs::fstat(locks).map(|stat| stat.st_ino).map_err(|it| system("looking at the file of the ring")(it.into()))
}
