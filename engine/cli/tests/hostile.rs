//! Directories that hold files of other programs, through the command `slipring`.
#![cfg(unix)]

#[path = "../../tests/common/hostile.rs"]
mod builder;
#[path = "../../tests/common/limited.rs"]
mod limits;

use builder::Hostile;
use limits::limited;
use slipring::journal::storage::Disk;
use slipring::journal::{Options, open};
use std::path::Path;
use std::sync::Arc;

const TIB: u64 = 1 << 40;

fn tool(verb: &str, dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["journal", verb, dir.to_str().unwrap()], more].concat();
    limited("ulimit -v 1048576", Path::new(env!("CARGO_BIN_EXE_slipring")), &arguments)
}

#[test]
fn a_file_of_a_tebibyte_that_is_a_hole_costs_neither_memory_nor_time() {
    let names = [
        "00000000000000000001.index",
        "00000000000000000001.segment",
        "00000000000000000004.segment",
        "00000000000000000005.segment",
        "00000000000000000003.segment.new",
        "checkpoint",
        "lock",
        "torn-00000000000000000064-1.bin",
    ];
    for name in names {
        let place = Hostile::with_a_journal();
        place.grow(name, TIB);
        for verb in ["stat", "cat", "verify", "repair"] {
            let (code, out, err) = tool(verb, &place.dir, &[]);
            assert!(code.is_some_and(|code| code != 101), "{verb} with {name}: {code:?} {out}{err}");
            if verb == "cat" {
                assert_eq!(out.lines().count(), 80, "{verb} with {name}: {err}");
            }
        }
        // It is repaired and written on as any other journal.
        let opened = open(Arc::new(Disk::new(&place.dir)), Options { segment_size: 4096, ..Options::default() });
        let (writer, recovered) = opened.unwrap_or_else(|refused| panic!("{name}: {refused}"));
        assert_eq!(recovered.state.extents().map(|(_, extent)| extent.end).collect::<Vec<_>>(), [40, 40], "{name}");
        writer.close(1).unwrap();
        assert_eq!(tool("verify", &place.dir, &[]).0, Some(0), "{name}");
    }
    // A file of nothing but holes.
    let place = Hostile::new();
    for name in names {
        place.grow(name, TIB);
    }
    let (code, out, err) = tool("verify", &place.dir, &[]);
    assert!(code.is_some_and(|code| code != 0 && code != 101), "{code:?} {out}{err}");
}

#[test]
fn repair_leaves_a_directory_alone_that_has_no_journal() {
    for name in ["00000000000000000001.segment", "00000000000000000001.index", "checkpoint", "notes.segment"] {
        let place = Hostile::new();
        place.put(name, 0, b"not what the name says");
        let before = place.contents();
        for more in [&[][..], &["--dry-run"]] {
            let (code, out, err) = tool("repair", &place.dir, more);
            assert!(code != Some(0) && out.is_empty(), "{name}: {out}{err}");
            assert!(err.contains("no journal"), "{name}: {err}");
            assert_eq!(place.contents(), before, "{name}");
        }
    }
}

#[test]
fn a_partition_that_is_not_there_is_an_error_that_says_which_are() {
    let place = Hostile::with_a_journal();
    for verb in ["cat", "tail", "export"] {
        for more in [&["--partition", "9"][..], &["--topic", "1", "--partition", "9"]] {
            let (code, out, err) = tool(verb, &place.dir, more);
            assert_eq!((code, &*out), (Some(1), ""), "{verb} {more:?}: {err}");
            assert!(err.contains("has no partition 9") && err.contains("0, 1"), "{verb} {more:?}: {err}");
        }
        assert_eq!(tool(verb, &place.dir, &["--partition", "1"]).0, Some(0));
    }
}

#[test]
fn stat_says_where_the_lock_is_weak() {
    let place = Hostile::with_a_journal();
    assert!(!tool("stat", &place.dir, &[]).1.contains("lock "));
    // What the lock file says on a file system that locks no directories: EBADF.
    place.put("lock", 0, b"process 12\ndirectory not locked: error 9\n");
    let (code, out, err) = tool("stat", &place.dir, &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("refuses to lock the directory"), "{out}");
    let (_, out, _) = tool("stat", &place.dir, &["--json"]);
    let stat: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(stat["lock"].as_str().unwrap().contains("refuses to lock"), "{out}");
}

/// `verify` and the rehearsal of a repair called sound what the next opening refused.
#[test]
fn what_refuses_an_opening_is_told_beforehand() {
    let names = [
        "checkpoint",
        "checkpoint.new",
        "lock",
        "00000000000000000001.index",
        "00000000000000000004.index.new",
        "00000000000000000005.segment",
        "00000000000000000005.segment.new",
    ];
    let ways: [fn(&Hostile, &str); 3] = [Hostile::pipe, Hostile::symlink, Hostile::directory];
    for name in names {
        for make in ways {
            let place = Hostile::with_a_journal();
            make(&place, name);
            for more in [&["verify"][..], &["repair", "--dry-run"], &["repair"]] {
                let (code, out, err) = tool(more[0], &place.dir, &more[1..]);
                assert!(code == Some(1) && err.contains(name), "{more:?} with {name}: {code:?} {out}{err}");
            }
            let opened = open(Arc::new(Disk::new(&place.dir)), Options { segment_size: 4096, ..Options::default() });
            assert!(opened.err().unwrap().to_string().contains(name), "{name}");
        }
    }
}
