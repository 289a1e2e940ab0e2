//! The memory under the slots: aligned, touched before the first event, on huge pages or locked where that was asked
//! for, with a report of what the system gave.

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::ptr::NonNull;

/// The size of a huge page on the systems that we know. Elsewhere it is merely a generous alignment.
const HUGE: usize = 2 << 20;
/// The smallest page of any system that we know: one touch in each is enough.
const PAGE: usize = 4096;
/// So that the first slot shares no pair of cache lines with anything else.
const PAIR_OF_LINES: usize = 128;

/// What is asked for beside the memory itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) huge_pages: bool,
    pub(crate) lock: bool,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obtained {
    /// Nobody asked for it.
    NotAsked,
    /// So many bytes have it, as the system said when the ring was built.
    Bytes(usize),
    /// The system refused it: the reason, and what to do.
    Refused(String),
}

/// The memory of a ring's slots: what was asked of the system, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryReport {
    /// What the slots take. All of it was touched when the ring was built.
    pub bytes: usize,
    /// How much of it is on huge pages. May be more than was needed, and 0 if the system has none free.
    pub huge_pages: Obtained,
    /// How much of it is locked, so that it is never swapped out.
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

/// For an error of memory that was not given: the limit of this process, if it has one.
pub(crate) fn limit() -> String {
    #[cfg(all(target_os = "linux", not(miri)))]
    if let Some(bytes) = rustix::process::getrlimit(rustix::process::Resource::As).current {
        return format!(", or raise the limit of this process, {bytes} bytes of address space (`ulimit -v`)");
    }
    String::new()
}

/// An allocation that nobody moves.
pub(crate) struct Region {
    start: NonNull<u8>,
    layout: Layout,
    pub(crate) report: MemoryReport,
}

// SAFETY: the region owns its memory and lends it to nobody; who reads or writes there is the buffer's business.
unsafe impl Send for Region {}
// SAFETY: the region owns its memory and lends it to nobody; through a shared reference it only gives the address.
unsafe impl Sync for Region {}

impl Region {
    /// Memory for `layout`; none if the system does not give it.
    pub(crate) fn new(layout: Layout, wishes: Wishes) -> Option<Self> {
        let align = if wishes.huge_pages { HUGE } else { PAIR_OF_LINES };
        let layout = layout.align_to(align).ok()?.pad_to_align();
        let mut report =
            MemoryReport { bytes: layout.size(), huge_pages: Obtained::NotAsked, locked: Obtained::NotAsked };
        if layout.size() == 0 {
            let nothing = |asked: bool| if asked { Obtained::Bytes(0) } else { Obtained::NotAsked };
            (report.huge_pages, report.locked) = (nothing(wishes.huge_pages), nothing(wishes.lock));
            let start = NonNull::new(std::ptr::without_provenance_mut(layout.align()))?;
            return Some(Self { start, layout, report });
        }
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        let mut region = Self { start, layout, report };
        if wishes.huge_pages {
            // Before the first touch: a page that is there already would have to be moved.
            region.report.huge_pages = region.advise();
        }
        for offset in (0..layout.size()).step_by(PAGE) {
            // SAFETY: inside the allocation, which nobody else knows yet.
            let byte = unsafe { start.add(offset) };
            // SAFETY: the byte lies inside the allocation, which nobody else knows yet, and any byte may be written there.
            unsafe { byte.write_volatile(0) };
        }
        if region.report.huge_pages == Obtained::Bytes(0) {
            region.report.huge_pages = region.count_huge_pages();
        }
        if wishes.lock {
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
    fn advise(&self) -> Obtained {
        let (start, len) = (self.start.as_ptr().cast(), self.layout.size());
        // SAFETY: the range is our own allocation, whole huge pages of it, and the advice changes no contents.
        match unsafe { rustix::mm::madvise(start, len, rustix::mm::Advice::LinuxHugepage) } {
            Ok(()) => Obtained::Bytes(0),
            Err(why) => Obtained::Refused(format!("{why}; see /sys/kernel/mm/transparent_hugepage/enabled")),
        }
    }

    fn lock(&self) -> Obtained {
        // SAFETY: the range is our own allocation.
        match unsafe { rustix::mm::mlock(self.start.as_ptr().cast(), self.layout.size()) } {
            Ok(()) => Obtained::Bytes(self.layout.size()),
            Err(why) => Obtained::Refused(format!("{why}; raise the limit of locked memory (ulimit -l)")),
        }
    }

    fn unlock(&self) {
        if let Obtained::Bytes(1..) = self.report.locked {
            // SAFETY: the range is our own allocation. A refusal leaves it locked until the process ends.
            let _ = unsafe { rustix::mm::munlock(self.start.as_ptr().cast(), self.layout.size()) };
        }
    }

    /// What the kernel says of the mappings that the region lies in.
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
            // SAFETY: allocated with this layout, and whoever used it is gone.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}
