//! What the fuzzer of the journal has kept, again: `engine/fuzz` says how it is run.

#[path = "../fuzz/targets.rs"]
mod targets;

fn replay(corpus: &str, target: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| target(&bytes)) {
            eprintln!("{}", path.display());
            std::panic::resume_unwind(panic);
        }
        inputs += 1;
    }
    assert!(inputs > 20, "{corpus}: {inputs} inputs");
}

#[test]
fn bytes_that_are_decoded() {
    replay("decode", targets::decode);
}

#[test]
fn journals_that_are_recovered() {
    replay("recover", targets::recover);
}

#[test]
fn anything_the_fuzzer_might_begin_with() {
    for len in 0..300_usize {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7919 + len * 31) as u8).collect();
        targets::decode(&bytes);
        targets::recover(&bytes);
    }
}
