//! The memory of the slots: aligned, touched before the first event, on huge pages or locked if requested, with a
//! report of what the system granted.

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::ptr::NonNull;

/// Size of a huge page in bytes on x86-64 and on arm64 with 4 KiB pages. Elsewhere it only is a generous alignment.
const HUGE: usize = 2 << 20;
/// Size in bytes of the smallest page of any known system. One write in each such part touches every page.
const PAGE: usize = 4096;
/// Alignment in bytes that keeps the first slot from sharing a pair of cache lines with other data.
const PAIR_OF_LINES: usize = 128;

/// The properties of the memory that the builder requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoryRequest {
    pub(crate) huge_pages: bool,
    pub(crate) lock: bool,
}

/// The result of one request to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obtained {
    /// The property was not requested.
    NotAsked,
    /// This many bytes have the property, as the system reported when the ring was built.
    Bytes(usize),
    /// The system refused the request. The text states the reason and what to do.
    Refused(String),
}

/// The memory of a ring's slots: what was requested of the system, and what it granted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryReport {
    /// Size of the slots in bytes, rounded up to 128 bytes, or to whole huge pages if they were requested. All pages
    /// were touched when the ring was built.
    pub bytes: usize,
    /// The memory on huge pages, at most `bytes`; 0 bytes if the system has no free huge pages. Huge pages of other
    /// memory in the same mapping are counted as well.
    pub huge_pages: Obtained,
    /// The memory that is locked, so that it is never swapped out.
    pub locked: Obtained,
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)?;
        for (what, obtained) in [("on huge pages", &self.huge_pages), ("locked", &self.locked)] {
            match obtained {
                Obtained::NotAsked => {}
                Obtained::Bytes(bytes) => write!(f, ", {bytes} {what}")?,
                Obtained::Refused(why) => write!(f, ", not {what}: {why}")?,
            }
        }
        Ok(())
    }
}

/// The limit of this process's address space, as text to append to an error about refused memory; empty if there is no
/// limit, or if the system is not Linux.
pub(crate) fn limit() -> String {
    #[cfg(all(target_os = "linux", not(miri)))]
    if let Some(bytes) = rustix::process::getrlimit(rustix::process::Resource::As).current {
        return format!(", or raise the limit of this process, {bytes} bytes of address space (`ulimit -v`)");
    }
    String::new()
}

/// An allocation that owns its memory and frees it when dropped.
pub(crate) struct Region {
    start: NonNull<u8>,
    layout: Layout,
    pub(crate) report: MemoryReport,
}

// SAFETY: the region owns its memory and returns only its address; the buffer guards reads and writes.
unsafe impl Send for Region {}
// SAFETY: the region owns its memory, and a shared reference returns only the address.
unsafe impl Sync for Region {}

impl Region {
    /// Allocates and touches memory for `layout`, with the properties of `request` as far as the system grants them.
    /// `None` if the system refuses the memory.
    pub(crate) fn new(layout: Layout, request: MemoryRequest) -> Option<Self> {
        let align = if request.huge_pages { HUGE } else { PAIR_OF_LINES };
        let layout = layout.align_to(align).ok()?.pad_to_align();
        let mut report =
            MemoryReport { bytes: layout.size(), huge_pages: Obtained::NotAsked, locked: Obtained::NotAsked };
        if layout.size() == 0 {
            let nothing = |asked: bool| if asked { Obtained::Bytes(0) } else { Obtained::NotAsked };
            (report.huge_pages, report.locked) = (nothing(request.huge_pages), nothing(request.lock));
            let start = NonNull::new(std::ptr::without_provenance_mut(layout.align()))?;
            return Some(Self { start, layout, report });
        }
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        let mut region = Self { start, layout, report };
        if request.huge_pages {
            // Requested before the first touch, because a page that exists already would have to be moved.
            region.report.huge_pages = region.advise();
        }
        for offset in (0..layout.size()).step_by(PAGE) {
            // SAFETY: the offset is inside the allocation, which no other thread knows yet.
            let byte = unsafe { start.add(offset) };
            // SAFETY: the byte is inside the allocation, which no other thread knows yet, and any byte may be written
            // there.
            unsafe { byte.write_volatile(0) };
        }
        if region.report.huge_pages == Obtained::Bytes(0) {
            region.report.huge_pages = region.count_huge_pages();
        }
        if request.lock {
            region.report.locked = region.lock();
        }
        Some(region)
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
impl Region {
    /// Requests huge pages. Returns `Bytes(0)` if the system accepts the request, because no page exists yet.
    fn advise(&self) -> Obtained {
        let (start, len) = (self.start.as_ptr().cast(), self.layout.size());
        // SAFETY: the range is this region's own allocation and consists of whole huge pages, and the advice changes no
        // content.
        match unsafe { rustix::mm::madvise(start, len, rustix::mm::Advice::LinuxHugepage) } {
            Ok(()) => Obtained::Bytes(0),
            Err(why) => Obtained::Refused(format!("{why}; see /sys/kernel/mm/transparent_hugepage/enabled")),
        }
    }

    fn lock(&self) -> Obtained {
        // SAFETY: the range is this region's own allocation.
        match unsafe { rustix::mm::mlock(self.start.as_ptr().cast(), self.layout.size()) } {
            Ok(()) => Obtained::Bytes(self.layout.size()),
            Err(why) => Obtained::Refused(format!("{why}; raise the limit of locked memory (ulimit -l)")),
        }
    }

    fn unlock(&self) {
        if let Obtained::Bytes(1..) = self.report.locked {
            // SAFETY: the range is this region's own allocation. If the call is refused, the range stays locked until
            // the process ends.
            let _ = unsafe { rustix::mm::munlock(self.start.as_ptr().cast(), self.layout.size()) };
        }
    }

    /// The count of huge-page bytes in the mappings that contain the region, as the kernel reports it, but at most the
    /// region's size. `Refused`, with the reason, if the report cannot be read.
    fn count_huge_pages(&self) -> Obtained {
        let smaps = match std::fs::read_to_string("/proc/self/smaps") {
            Ok(smaps) => smaps,
            Err(why) => return Obtained::Refused(format!("asked for, but whether there are any is not told: {why}")),
        };
        let (first, end) = (self.start.addr().get(), self.start.addr().get() + self.layout.size());
        let (mut inside, mut bytes) = (false, 0);
        for line in smaps.lines() {
            let (head, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let range = head.split_once('-').map(|(a, b)| [a, b].map(|at| usize::from_str_radix(at, 16)));
            if let Some([Ok(from), Ok(to)]) = range {
                inside = from < end && first < to;
            } else if inside && head == "AnonHugePages:" {
                let kilobytes = rest.split_whitespace().next().and_then(|count| count.parse::<usize>().ok());
                bytes += kilobytes.unwrap_or(0) * 1024;
            }
        }
        Obtained::Bytes(bytes.min(self.layout.size()))
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
impl Region {
    fn advise(&self) -> Obtained {
        Obtained::Refused("huge pages are asked for on Linux only".to_owned())
    }

    fn lock(&self) -> Obtained {
        Obtained::Refused("memory is locked on Linux only".to_owned())
    }

    fn unlock(&self) {}

    fn count_huge_pages(&self) -> Obtained {
        Obtained::Bytes(0)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            self.unlock();
            // SAFETY: the memory was allocated with this layout, and its user, the buffer, is gone.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}
