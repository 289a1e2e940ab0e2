//! What must not compile, each with the compiler's reason. The cases stand in `compile/`.
#![cfg(not(any(loom, shuttle, miri)))]

use std::io::Write as _;

/// The compiler whose words are recorded. Another one may refuse the same in other words.
const RECORDED_WITH: &str = "rustc 1.95.";

#[test]
fn what_would_be_unsound_does_not_compile() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("--version").output().expect("the compiler tells its version");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with(RECORDED_WITH) {
        // Not `println!`, which a test that passes keeps to itself: the gate lists what was skipped.
        let _ = writeln!(std::io::stderr(), "SKIPPED: recorded with {RECORDED_WITH}x, and this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/compile/*.rs");
}
