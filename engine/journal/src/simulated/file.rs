//! An open file of a [`SimulatedDisk`].

use super::inode::{FileChange, Inode};
use super::{Fault, SimulatedDisk, error};
use crate::storage::File;
use std::io;
use std::sync::PoisonError;

pub(super) struct SimulatedFile {
    pub(super) disk: SimulatedDisk,
    pub(super) inode: usize,
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.disk.inner().open -= 1;
    }
}

impl SimulatedFile {
    fn change(&self, change: FileChange) -> io::Result<()> {
        let mut inner = self.disk.inner();
        if inner.off {
            return Err(error(Fault::PowerCut));
        }
        let outcome = inner.call();
        let inode = &mut inner.inodes[self.inode];
        let change = match (outcome, change) {
            (Ok(()), change) => change,
            (Err(Fault::Short), FileChange::Write { at, bytes }) => {
                FileChange::Write { at, bytes: bytes[..bytes.len() / 2].to_vec() }
            }
            // A write during which the power was cut may have reached the disk.
            (Err(Fault::PowerCut), change @ FileChange::Write { .. }) => {
                inode.pending.push(change);
                return Err(error(Fault::PowerCut));
            }
            (Err(fault), _) => return Err(error(fault)),
        };
        let size = match &change {
            FileChange::Write { at, bytes } => inode.now.len().max(at + bytes.len()),
            FileChange::Size(size) => *size,
        };
        inner.resize(self.inode, size)?;
        let inode = &mut inner.inodes[self.inode];
        if let FileChange::Write { bytes, .. } = &change {
            inode.traffic.written += bytes.len() as u64;
        }
        Inode::apply(&mut inode.now, &change);
        inode.pending.push(change);
        outcome.map_err(error)
    }
}

impl File for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.inner().inodes[self.inode].now.len() as u64)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.disk.inner().links(self.inode))
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        if inner.off {
            return Err(error(Fault::PowerCut));
        }
        let Inode { now, traffic, .. } = &mut inner.inodes[self.inode];
        let len = now.read(at as usize, into);
        (traffic.read, traffic.reads) = (traffic.read + len as u64, traffic.reads + 1);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.change(FileChange::Write { at: at as usize, bytes: bytes.to_vec() })
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let now = self.size()?;
        self.change(FileChange::Size(size.max(now) as usize))
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.change(FileChange::Size(size as usize))
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.syncs_held += 1;
        let released = &self.disk.shared.released;
        inner = released.wait_while(inner, |inner| inner.hold_syncs).unwrap_or_else(PoisonError::into_inner);
        inner.syncs_held -= 1;
        let outcome = inner.call();
        inner.syncs += 1;
        let ignore = inner.ignore_sync;
        let inode = &mut inner.inodes[self.inode];
        inode.traffic.syncs += 1;
        match outcome {
            Ok(()) if ignore => {}
            Ok(()) => inode.sync(),
            Err(Fault::PowerCut) => {}
            Err(_) => inode.fail_sync(),
        }
        outcome.map_err(error)
    }
}
