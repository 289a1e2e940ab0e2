//! The bytes of a file, in pages that copies of them share: a journal's file is nearly all zeros, and it is copied at each sync.

use std::sync::Arc;

/// Size of a sector in bytes. A power cut keeps or loses each sector independently.
pub(super) const SECTOR: usize = 512;

/// Size of a page in bytes, a whole number of sectors.
const PAGE: usize = 8 * SECTOR;

static ZEROS: [u8; PAGE] = [0; PAGE];

/// The bytes of a file. Pages that are `None` are all zeros, and so are the bytes of the last page behind the file's end.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    len: usize,
}

impl From<Vec<u8>> for Contents {
    fn from(bytes: Vec<u8>) -> Self {
        let mut contents = Self::default();
        contents.resize(bytes.len());
        for (at, page) in bytes.chunks(PAGE).enumerate() {
            if *page != ZEROS[..page.len()] {
                contents.write(at * PAGE, page);
            }
        }
        contents
    }
}

impl Contents {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        for (page, into) in self.pages.iter().zip(bytes.chunks_mut(PAGE)) {
            if let Some(page) = page {
                into.copy_from_slice(&page[..into.len()]);
            }
        }
        bytes
    }

    /// Cuts the file, or lengthens it with zeros.
    pub(super) fn resize(&mut self, size: usize) {
        self.pages.resize(size.div_ceil(PAGE), None);
        if size < self.len
            && let Some(Some(last)) = self.pages.last_mut()
            && !size.is_multiple_of(PAGE)
        {
            Arc::make_mut(last)[size % PAGE..].fill(0);
        }
        self.len = size;
    }

    /// Copies the bytes from `at` on to `into`, as many as there are. Returns their count.
    pub(super) fn read(&self, mut at: usize, into: &mut [u8]) -> usize {
        let len = into.len().min(self.len.saturating_sub(at));
        let mut rest = &mut into[..len];
        while !rest.is_empty() {
            let page = self.page(at / PAGE);
            let (part, after) = rest.split_at_mut(rest.len().min(PAGE - at % PAGE));
            part.copy_from_slice(&page[at % PAGE..at % PAGE + part.len()]);
            at += part.len();
            rest = after;
        }
        len
    }

    /// Writes bytes at `at`, and lengthens the file where they go beyond its end.
    pub(super) fn write(&mut self, mut at: usize, bytes: &[u8]) {
        if self.len < at + bytes.len() {
            self.resize(at + bytes.len());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(PAGE - at % PAGE));
            let page = self.pages[at / PAGE].get_or_insert_with(|| Arc::new(ZEROS));
            Arc::make_mut(page)[at % PAGE..at % PAGE + part.len()].copy_from_slice(part);
            at += part.len();
            rest = after;
        }
    }

    fn page(&self, number: usize) -> &[u8; PAGE] {
        self.pages.get(number).and_then(Option::as_deref).unwrap_or(&ZEROS)
    }

    /// The bytes of a sector, of which the file may have only a part, or none.
    pub(super) fn sector(&self, number: usize) -> &[u8] {
        let len = self.len.saturating_sub(number * SECTOR).min(SECTOR);
        let at = number * SECTOR % PAGE;
        &self.page(number * SECTOR / PAGE)[at..at + len]
    }

    /// Sets a sector, or as much of it as the file has, to `from`, followed by zeros.
    pub(super) fn set_sector(&mut self, number: usize, from: &[u8]) {
        let len = self.sector(number).len();
        let mut sector = [0; SECTOR];
        let kept = len.min(from.len());
        sector[..kept].copy_from_slice(&from[..kept]);
        if *self.sector(number) != sector[..len] {
            self.write(number * SECTOR, &sector[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Change {
        Resize(usize),
        Write(usize, u8, usize),
        Sector(usize, u8, usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        let size = 0..3 * PAGE + 100;
        prop_oneof![
            size.clone().prop_map(Change::Resize),
            (size.clone(), any::<u8>(), size).prop_map(|(at, byte, len)| Change::Write(at, byte, len)),
            (0..30_usize, any::<u8>(), 0..=SECTOR).prop_map(|(at, byte, len)| Change::Sector(at, byte, len)),
        ]
    }

    proptest! {
        #[test]
        fn it_is_as_a_plain_vector(changes in prop::collection::vec(change(), 1..20), reads in prop::collection::vec(0..4 * PAGE, 8)) {
            let (mut contents, mut plain) = (Contents::default(), Vec::new());
            for change in changes {
                let before = (contents.clone(), plain.clone());
                match change {
                    Change::Resize(size) => {
                        contents.resize(size);
                        plain.resize(size, 0);
                    }
                    Change::Write(at, byte, len) => {
                        contents.write(at, &vec![byte; len]);
                        plain.resize(plain.len().max(at + len), 0);
                        plain[at..at + len].fill(byte);
                    }
                    Change::Sector(number, byte, len) => {
                        contents.set_sector(number, &vec![byte; len]);
                        let rest = plain.get_mut(number * SECTOR..).unwrap_or(&mut []);
                        let has = rest.len().min(SECTOR);
                        rest[..has].fill(0);
                        rest[..has.min(len)].fill(byte);
                    }
                }
                prop_assert_eq!(before.0.to_vec(), before.1, "a copy changes with it");
                prop_assert_eq!((contents.len(), contents.to_vec()), (plain.len(), plain.clone()));
                prop_assert_eq!(Contents::from(plain.clone()).to_vec(), plain.clone());
                for at in &reads {
                    let mut into = vec![7; 1000];
                    let len = contents.read(*at, &mut into);
                    let rest = plain.get(*at..).unwrap_or(&[]);
                    prop_assert_eq!(&into[..len], &rest[..rest.len().min(1000)]);
                    let sector = plain.get(at / 100 * SECTOR..).unwrap_or(&[]);
                    prop_assert_eq!(contents.sector(at / 100), &sector[..sector.len().min(SECTOR)]);
                }
            }
        }
    }
}
