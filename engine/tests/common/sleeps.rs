//! Whether a thread that should sleep does so, and how often it looks up.

// Each of the binaries needs a part of it.
#![allow(dead_code)]

use std::fs::{read_link, read_to_string};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// How often this thread has gone to sleep.
pub fn sleeps() -> u64 {
    switches(&read_to_string("/proc/thread-self/status").unwrap())
}

fn switches(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// A thread that has gone to sleep in its work.
pub struct Sleeper<T> {
    thread: JoinHandle<T>,
    /// What the system tells of it; nothing but on Linux.
    task: Option<PathBuf>,
}

/// Has a thread do this work, and comes back when the thread sleeps: the system says so, and that it has not run between
/// several looks. Where the system does not tell, that is a guess.
pub fn asleep<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Sleeper<T> {
    let (tell, told) = mpsc::channel();
    let thread = spawn(move || {
        tell.send(read_link("/proc/thread-self").ok()).unwrap();
        work()
    });
    let task = told.recv().unwrap().map(|task| Path::new("/proc").join(task));
    let sleeper = Sleeper { thread, task };
    let (mut looks, mut before) = (0, None);
    while looks < 5 {
        assert!(!sleeper.thread.is_finished(), "it came back without being woken");
        sleep(Duration::from_millis(2));
        let now = sleeper.state();
        looks = if now.is_some() && now == before { looks + 1 } else { 0 };
        before = now;
    }
    sleeper
}

/// Comes back when all other threads of this process sleep: what they do when they begin is done. Where the system does not
/// tell, that is a guess.
pub fn others_sleep() {
    let Ok(this) = read_link("/proc/thread-self") else { return sleep(Duration::from_millis(500)) };
    let is_asleep = |task: PathBuf| {
        task.ends_with(this.file_name().unwrap())
            || read_to_string(task.join("status"))
                .is_ok_and(|status| status.lines().any(|line| line.starts_with("State:\tS")))
    };
    let mut looks = 0;
    while looks < 5 {
        sleep(Duration::from_millis(2));
        let mut tasks = std::fs::read_dir("/proc/self/task").unwrap();
        looks = if tasks.all(|task| is_asleep(task.unwrap().path())) { looks + 1 } else { 0 };
    }
}

impl<T> Sleeper<T> {
    /// While it sleeps, how often it has gone to sleep.
    fn state(&self) -> Option<u64> {
        let Some(task) = &self.task else { return Some(0) };
        let status = read_to_string(task.join("status")).ok()?;
        status.lines().any(|line| line.starts_with("State:\tS")).then(|| switches(&status))
    }

    /// How often it has gone to sleep so far: more after it looked up. Always the same where the system does not tell.
    pub fn sleeps(&self) -> u64 {
        let Some(task) = &self.task else { return 0 };
        switches(&read_to_string(task.join("status")).expect("it sleeps still"))
    }

    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// What comes of its work, which was woken: a sleeper that waits for the end of its own limit, a minute or more, fails.
    pub fn join(self) -> T {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.thread.is_finished() {
            assert!(Instant::now() < until, "it was not woken");
            sleep(Duration::from_millis(1));
        }
        self.thread.join().unwrap()
    }
}
