//! Programs under limits.

use std::path::Path;
use std::process::Command;

/// Runs `program` under limits of the shell's `ulimit`: code, standard output and error.
pub fn limited(limits: &str, program: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]).arg(program).args(arguments);
    let ended = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}
