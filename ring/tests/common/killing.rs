//! Processes for the tests of shared rings: the test binary, started anew at its test `child`, and killed.
#![allow(dead_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const LONG: Duration = Duration::from_secs(60);
pub const NAME: &str = "SLIPRING_SHARED_NAME";
pub const WHAT: &str = "SLIPRING_SHARED_WHAT";
pub const PROGRESS: &str = "SLIPRING_SHARED_PROGRESS";

/// How many processes are killed: `usual`, or as the environment says, divided by 3 among the tests of a file.
pub fn kills(usual: usize) -> usize {
    std::env::var("SLIPRING_SHARED_KILLS").map_or(usual, |kills| kills.parse::<usize>().unwrap() / 3)
}

pub fn start(what: &str, name: &str, progress: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(NAME, name).env(WHAT, what).env(PROGRESS, progress.unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

pub fn kill(mut child: Child, random: &mut fastrand::Rng) {
    std::thread::sleep(Duration::from_micros(random.u64(0..6_000)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(9), "it ended by itself");
}

/// A file on tmpfs, which survives a killed process, with one number.
pub struct Progress(File, pub String);

impl Progress {
    pub fn new(name: &str) -> Self {
        let path = format!("/dev/shm/{name}.progress");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.write_all_at(&[0; 8], 0).unwrap();
        Self(file, path)
    }

    pub fn read(&self) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0).unwrap();
        u64::from_ne_bytes(bytes)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.1);
    }
}
