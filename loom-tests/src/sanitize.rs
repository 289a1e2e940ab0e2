//! Tests of ring and of engine's events under Miri and ThreadSanitizer, if a nightly toolchain has them.

use crate::build::workspace;
use std::process::{Command, Stdio};

/// A tool that checks a program while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Finds undefined behaviour, and data races in the schedules that it happens to run.
    Miri,
    /// Finds data races in the schedules that happen to run.
    ThreadSanitizer,
}

/// The target that `-Zbuild-std` requires.
const TARGET: &str = "x86_64-unknown-linux-gnu";

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Miri => "miri",
            Self::ThreadSanitizer => "tsan",
        }
    }

    /// Why this machine cannot run the tool; `None` if it can.
    fn missing(self) -> Option<&'static str> {
        let succeeds = |arguments: &[&str]| {
            let mut probe = cargo(arguments);
            probe.stdout(Stdio::null()).stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        };
        if !succeeds(&["--version"]) {
            return Some("there is no nightly toolchain (rustup toolchain install nightly)");
        }
        match self {
            Self::Miri => (!succeeds(&["miri", "--version"]))
                .then_some("the nightly has no Miri (rustup +nightly component add miri)"),
            Self::ThreadSanitizer if !cfg!(all(target_os = "linux", target_arch = "x86_64")) => {
                Some("it is set up for Linux on x86-64 only")
            }
            Self::ThreadSanitizer => {
                (!has_source()).then_some("the nightly has no source (rustup +nightly component add rust-src)")
            }
        }
    }

    /// The command `cargo test` with the tool and these arguments.
    fn command(self, arguments: &[&str]) -> Command {
        let target = workspace().join("target").join(self.name());
        let mut command = match self {
            // Stacked Borrows, the default, reports errors in crossbeam-epoch; Tree Borrows accepts it.
            Self::Miri => {
                let mut command = cargo(&["miri", "test"]);
                let flags =
                    "-Zmiri-tree-borrows -Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-ignore-leaks";
                // The backtrace of a test's intended panic would take Miri too long.
                command.env("MIRIFLAGS", flags).env("RUST_BACKTRACE", "0");
                command
            }
            Self::ThreadSanitizer => {
                let mut command = cargo(&["test", "-Zbuild-std", "--target", TARGET]);
                // One test requests more memory than exists, and must get an error instead of an abort.
                command.env("RUSTFLAGS", "-Zsanitizer=thread --cfg slipring_tsan");
                command.env("TSAN_OPTIONS", "allocator_may_return_null=1");
                command
            }
        };
        command.arg("--target-dir").arg(target).args(arguments);
        command
    }

    /// The arguments of each `cargo test`. Code runs a thousand times slower under Miri, and slower still where threads
    /// spin, so Miri gets fewer tests, and these are smaller under `cfg!(miri)`.
    fn runs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Miri => &[
                // Of the unit tests those whose code has `unsafe` in it or that share memory.
                &[
                    "-p",
                    "slipring-ring",
                    "--lib",
                    "--",
                    "buffer::",
                    "held::",
                    "lossy::",
                    "panics::",
                    "sequence::",
                    "workers::",
                ],
                // Without those that take Miri minutes each: claims in parts, and waits for the last reader.
                &[
                    "-p",
                    "slipring-ring",
                    "--test",
                    "claims",
                    "--test",
                    "events",
                    "--test",
                    "ending",
                    "--",
                    "--skip",
                    "in_parts",
                    "--skip",
                    "parts_of",
                    "--skip",
                    "iterator",
                    "--skip",
                    "last_reader",
                ],
                &["-p", "slipring-ring", "--test", "order", "--test", "wakers"],
                &["-p", "slipring", "--lib", "event::"],
                &["-p", "slipring", "--test", "produce", "messages::"],
            ],
            Self::ThreadSanitizer => &[
                &["-p", "slipring-ring", "--lib"],
                &["-p", "slipring-ring", "--test", "claims", "--test", "stages", "--test", "ending"],
                &["-p", "slipring-ring", "--test", "order", "--test", "wakers"],
            ],
        }
    }

    /// Runs the tests, or prints that they were skipped and why.
    pub fn run(self) -> Result<(), String> {
        let name = self.name();
        if let Some(missing) = self.missing() {
            println!("{name}: SKIPPED, {missing}");
            return Ok(());
        }
        for &arguments in self.runs() {
            println!("{name}: cargo test {}", arguments.join(" "));
            match self.command(arguments).status() {
                Ok(status) if status.success() => {}
                Ok(_) => return Err(format!("{name}: failed")),
                Err(error) => return Err(format!("{name}: {error}")),
            }
        }
        println!("{name}: passed");
        Ok(())
    }
}

/// The cargo of the nightly toolchain, run by rustup.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(arguments).current_dir(workspace());
    for variable in ["CARGO", "RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"] {
        command.env_remove(variable);
    }
    command
}

fn has_source() -> bool {
    let root = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    let root = root.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    std::path::Path::new(&root).join("lib/rustlib/src/rust/library/std").exists()
}
