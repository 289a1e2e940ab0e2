//! Golden files: a journal that format version 1 wrote, in `engine/tests/data/journal-1`. They are never written again:
//! a change that cannot read them needs a new major version.

use super::*;
use crate::simulated::SimulatedDisk;
use std::path::Path;
use std::sync::Arc;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/journal-1")
}

/// Writes several segments in two openings, with compressed payloads, a state, and records with a fixed size and with
/// times.
fn write(disk: &SimulatedDisk) {
    for opening in 0..2_u64 {
        let codec = if opening == 0 { Codec::Plain } else { Codec::Lz4 };
        let (mut writer, _) = open(Arc::new(disk.clone()), Options { codec, ..small() }).unwrap();
        for step in 0..20_u64 {
            let offset = opening * 20 + step;
            let mut frame = FrameBuilder::new();
            frame.record(part(0), offset, Some(1000 + offset), &body(part(0), offset, opening));
            frame.fixed(part(1), offset, None, &offset.to_le_bytes());
            frame.put(STATE_KIND, b"last", &offset.to_le_bytes());
            writer.append(&mut frame, 5000 + offset).unwrap();
        }
        writer.sync().unwrap();
        if opening == 0 {
            writer.close(6000).unwrap();
        }
    }
}

/// `cargo test -p slipring-journal --lib write_golden -- --ignored` wrote the files once.
#[test]
#[ignore = "writes the golden files: for a new major version only"]
fn write_golden_files() {
    assert!(!folder().exists(), "{} is never made again", folder().display());
    let disk = SimulatedDisk::new();
    write(&disk);
    disk.save(&folder()).unwrap();
}

#[test]
fn version_1_is_read_for_ever() {
    let disk = SimulatedDisk::load(&folder()).unwrap();
    let (writer, recovered) = open(Arc::new(disk), small()).unwrap();
    assert_eq!((recovered.incarnation, recovered.torn), (3, None));
    assert_eq!(recovered.state.get(STATE_KIND, b"last"), Some(&39_u64.to_le_bytes()[..]));
    let journal = writer.journal();
    let mut words = journal.reader(part(0), Start::Earliest, Visible::Durable).unwrap();
    let mut numbers = journal.reader(part(1), Start::Earliest, Visible::Durable).unwrap();
    for offset in 0..40_u64 {
        let word = words.next().unwrap().unwrap();
        assert_eq!((word.offset, word.time, word.bytes), (offset, 1000 + offset, &*body(part(0), offset, offset / 20)));
        let number = numbers.next().unwrap().unwrap();
        assert_eq!((number.offset, number.time, number.bytes), (offset, 5000 + offset, &offset.to_le_bytes()[..]));
    }
    assert!(words.next().unwrap().is_none() && numbers.next().unwrap().is_none());
}
