//! A C program that shares rings with this process, compiled against the header and linked with the library.
#![cfg(target_os = "linux")]

use slipring_ring::Start;
use slipring_ring::shared::{Ended, SharedRing, layout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

slipring_ring::shared_event! {
    struct Quote { px: i64, qty: u32, venue: [u8; 4] }
}

/// The folder of the shared library, which cargo has built for this test.
fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let folders = [deps.clone(), deps.parent().unwrap().to_owned()];
    let built = folders.into_iter().find(|folder| folder.join("libslipring_capi.so").exists());
    built.expect("cargo has built the shared library")
}

/// Compiles the program; `None` where there is no C compiler.
fn compiled(compiler: &str, folder: &Path) -> Option<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = folder.join(format!("program-{}", compiler.replace('+', "p")));
    let library = library();
    let mut command = Command::new(compiler);
    if compiler == "cc" {
        command.args(["-std=c11", "-Wpedantic"]);
    }
    command.args(["-Wall", "-Wextra", "-Werror", "-I"]).arg(package.join("include"));
    command.arg(package.join("tests/c/program.c")).arg("-L").arg(&library).arg("-lslipring_capi");
    command.arg(format!("-Wl,-rpath,{}", library.display())).arg("-o").arg(&program);
    let Ok(output) = command.output() else {
        println!("SKIPPED: there is no C compiler called {compiler}");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

struct Folder(PathBuf);

impl Folder {
    fn new(what: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("slipring-capi-{}-{what}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_c_program_gets_the_promised_values_and_codes() {
    let folder = Folder::new("alone");
    // g++ shows that the header is one for C++, too.
    for compiler in ["cc", "g++"] {
        let Some(program) = compiled(compiler, &folder.0) else { continue };
        let name = format!("capi-alone-{}", std::process::id());
        let output = Command::new(&program).args(["alone", &name]).output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{compiler}: {told}");
        // The text that C made from its own struct, by offsetof and sizeof.
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), layout::<Quote>());
        let output = Command::new(&program).args(["several", &name]).output().unwrap();
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn rust_and_c_read_one_another_and_learn_of_the_end() {
    let folder = Folder::new("pair");
    let Some(program) = compiled("cc", &folder.0) else { return };
    let name = format!("capi-pair-{}", std::process::id());
    let answers = format!("{name}-answers");
    let ring = SharedRing::<Quote>::create(&name, 8).unwrap();
    let back = SharedRing::<Quote>::create(&answers, 8).unwrap();
    let mut out = ring.producer().unwrap();
    let mut tape = back.consumer("rust").start(Start::Earliest).join().unwrap();
    let child = Command::new(program).args(["echo", &name, &answers]).stdout(Stdio::piped()).spawn().unwrap();
    // The ring would not wait for a consumer that has not joined.
    let begun = Instant::now();
    while ring.participants().len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the program has not joined");
        std::thread::yield_now();
    }
    let mut answered = 0;
    for px in 0..100 {
        out.publish(|quote| *quote = Quote { px, qty: 7, venue: *b"XETR" }).unwrap();
        let mut batch = tape.poll_wait(8).unwrap();
        for (sequence, quote) in &mut batch {
            assert_eq!((sequence.0 as i64, quote.px, quote.qty, quote.venue), (answered, -answered, 8, *b"XETR"));
            answered += 1;
        }
    }
    out.close();
    while answered < 100 {
        let mut batch = tape.poll_wait(8).unwrap();
        answered += (&mut batch).into_iter().count() as i64;
    }
    assert_eq!(tape.poll_wait(8).err(), Some(Ended::Closed));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "the shared ring was closed");
    drop(tape);
    SharedRing::<Quote>::remove(&name).unwrap();
    SharedRing::<Quote>::remove(&answers).unwrap();
}
