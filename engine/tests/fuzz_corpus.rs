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

/// Every number in every file, forged, with checksums that match: as many of them as fit into a test, and with
/// `SLIPRING_SWEEP=all` all.
fn sweep() {
    let all = std::env::var("SLIPRING_SWEEP").is_ok_and(|asked| asked == "all");
    let (mut states, mut seen) = (0_u64, 0_u64);
    let files = targets::JOURNALS.into_iter().flat_map(|files| files.iter().enumerate().map(move |it| (files, it)));
    for (files, (file, (name, content))) in files {
        for at in targets::numbers(content) {
            for (number, value) in targets::HOSTILE.into_iter().enumerate() {
                for width in [1, 2, 4, 8] {
                    // As many bytes as the number needs, and as a field has.
                    let fits = width == 8 || value >> (8 * width) == 0;
                    seen += 1;
                    if !fits || (width < 4 && number > 2) || (!all && seen % 67 != 0) {
                        continue;
                    }
                    let step = targets::forged(file, at, width, number);
                    if let Err(panic) = std::panic::catch_unwind(|| targets::recover_from(files, &step)) {
                        eprintln!("{name} at {at}: {value} in {width} bytes: {step:?}");
                        std::panic::resume_unwind(panic);
                    }
                    states += 1;
                }
            }
        }
    }
    println!("{states} states");
    assert!(states > 1000);
}

/// Not a test by itself: it aborts where memory is asked for without a look at the number.
#[test]
#[ignore = "started by the test below"]
fn forged_numbers() {
    sweep();
}

#[cfg(unix)]
#[test]
fn each_number_of_each_file_can_be_anything_in_half_a_gigabyte() {
    // The address space of this process, which has a thread for each test, stays as it is.
    let limited = "ulimit -v 524288; exec \"$0\" --exact forged_numbers --ignored --nocapture --test-threads 1";
    let mut command = std::process::Command::new("sh");
    let ended = command.args(["-c", limited]).arg(std::env::current_exe().unwrap()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ended.status.success(), "{}\n{}", text(&ended.stdout), text(&ended.stderr));
    assert!(text(&ended.stdout).contains("1 passed"), "{}", text(&ended.stdout));
}
