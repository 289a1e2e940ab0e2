//! The second process of `peers shared`: this program, started anew. It is told what to do on its command line, and the two
//! processes speak in lines over its standard input and output: `ready`, `go`, `done`. A pipe or a socket that is
//! measured is this same wire.
//!
//! # Invariants
//! 1. No process outlives the other by more than a moment. The second one reads the end of its input when the first one dies,
//!    by whatever means; the first one kills it when it drops it.
//! 2. No ring's file stays. Rings are made by the first process only, with its process id in their names, and
//!    [`Janitor`] is a process that removes them when the first one dies. One that was killed with it leaves them to the next run.
//!    A second process removes the files of other media, which it makes, too.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::link::Work;
use super::shared;

/// The hidden command that a second process is started with.
pub const COMMAND: &str = "second";

/// What a second process is started for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// A part of a round.
    Round(Spec),
    /// It waits for the end of the first process, and then removes the rings of the process with this id.
    Sweep(u32),
}

/// The part that a second process has in a round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Part {
    /// It publishes the messages of the producer with this index.
    Produce(usize),
    /// It answers requests.
    Serve,
}

/// The work of a second process in a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The medium, by its name.
    pub medium: String,
    /// Begins the names of what both processes open.
    pub name: String,
    /// What the second process does.
    pub part: Part,
    /// The work of the round.
    pub work: Work,
}

/// The lines and bytes between the two processes, as one of them sees them.
#[derive(Debug)]
pub struct Wire {
    input: File,
    output: File,
    /// True once the other process is known to have gone.
    pub gone: Arc<AtomicBool>,
}

impl Wire {
    fn new(input: impl AsFd, output: impl AsFd) -> Result<Self, String> {
        let own = |end: std::os::fd::BorrowedFd<'_>| end.try_clone_to_owned().map(File::from).map_err(refused);
        Ok(Self { input: own(input.as_fd())?, output: own(output.as_fd())?, gone: Arc::default() })
    }

    /// The wire of a second process.
    ///
    /// # Errors
    ///
    /// The system refused a descriptor.
    pub fn of_second() -> Result<Self, String> {
        Self::new(std::io::stdin(), std::io::stdout())
    }

    /// The same wire, for another thread.
    ///
    /// # Errors
    ///
    /// The system refused a descriptor.
    pub fn share(&self) -> Result<Self, String> {
        Ok(Self { gone: Arc::clone(&self.gone), ..Self::new(&self.input, &self.output)? })
    }

    /// The end to read from. If `blocking`, a read waits; otherwise it fails where there is nothing.
    ///
    /// # Errors
    ///
    /// The system refused it.
    pub fn input(&self, blocking: bool) -> Result<File, String> {
        own(&self.input, blocking)
    }

    /// The end to write to, as [`input`](Self::input).
    ///
    /// # Errors
    ///
    /// The system refused it.
    pub fn output(&self, blocking: bool) -> Result<File, String> {
        own(&self.output, blocking)
    }

    /// Sends a line.
    ///
    /// # Errors
    ///
    /// The other process has gone.
    pub fn tell(&self, line: &str) -> Result<(), String> {
        // A few bytes fit into an empty wire, whether it blocks or not.
        (&self.output).write_all(format!("{line}\n").as_bytes()).map_err(refused)
    }

    /// The next line, byte by byte: what comes behind it belongs to somebody else.
    ///
    /// # Errors
    ///
    /// The other process has gone.
    pub fn hear(&self) -> Result<String, String> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            match (&self.input).read(&mut byte) {
                Ok(0) => return Err("the other process has gone".to_owned()),
                Ok(_) if byte == *b"\n" => return Ok(String::from_utf8_lossy(&line).into_owned()),
                Ok(_) => line.extend(byte),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(refused(error)),
            }
        }
    }

    /// Waits until the other process says that it is done, and returns the number that it says: the time of its first message. An
    /// error is also noted in [`gone`](Self::gone).
    ///
    /// # Errors
    ///
    /// It has gone.
    pub fn done(&self) -> Result<u64, String> {
        let heard = self.hear().and_then(|line| {
            let number = line.strip_prefix("done ").and_then(|number| number.parse().ok());
            number.ok_or_else(|| refused(line))
        });
        if heard.is_err() {
            self.gone.store(true, Ordering::Release);
        }
        heard.map_err(|_| refused("it ended before it was done"))
    }

    /// Waits until the other process closes its end.
    pub fn hear_the_end(&self) {
        while self.hear().is_ok() {}
    }
}

fn own(end: &File, blocking: bool) -> Result<File, String> {
    let end = end.try_clone().map_err(refused)?;
    rustix::io::ioctl_fionbio(&end, !blocking).map_err(refused)?;
    Ok(end)
}

/// The words for a call that the system refused.
pub fn refused(cause: impl std::fmt::Display) -> String {
    format!("the second process: {cause}")
}

/// The time of the system's monotonic clock at `moment`, in nanoseconds: it is the same in all processes.
pub fn nanos_of(moment: Instant) -> u64 {
    let (passed, now) = (moment.elapsed(), clock_gettime(ClockId::Monotonic));
    (now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64).saturating_sub(passed.as_nanos() as u64)
}

/// A second process, as the first one sees it. Dropped, it ends.
#[derive(Debug)]
pub struct Second {
    child: Child,
    wire: Option<Wire>,
}

impl Second {
    /// Starts it. Its input and output are a pipe each, or one socket.
    ///
    /// # Errors
    ///
    /// The system refused.
    pub fn start(order: &Order, socket: bool) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(refused)?;
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(serde_json::to_string(order).map_err(refused)?);
        // Of a group of its own, so that Ctrl-C ends the first process, and the end of its input the second one.
        command.process_group(0);
        if socket {
            let (near, far) = UnixStream::pair().map_err(refused)?;
            let far = OwnedFd::from(far);
            command.stdin(far.try_clone().map_err(refused)?).stdout(far);
            let child = command.spawn().map_err(refused)?;
            return Ok(Self { child, wire: Some(Wire::new(&near, &near)?) });
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(refused)?;
        let wire = match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Some(Wire::new(output, input)?),
            _ => None,
        };
        Ok(Self { child, wire })
    }

    /// The wire to it.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn wire(&self) -> Result<&Wire, String> {
        self.wire.as_ref().ok_or_else(|| refused("it has no wire"))
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn ready(&self) -> Result<(), String> {
        let line = self.wire()?.hear().map_err(|_| refused("it ended before it was ready"))?;
        if line == "ready" { Ok(()) } else { Err(refused(line)) }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // The end of its input ends it, unless it hangs.
        self.wire = None;
        let limit = Instant::now() + Duration::from_secs(5);
        while Instant::now() < limit {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill();
        let _ = self.child.wait();
    }
}

/// A process that removes the rings of this one when it dies. Dropped, it ends.
#[derive(Debug)]
pub struct Janitor {
    _second: Second,
}

impl Janitor {
    /// Removes what runs left that were killed with their janitors, and starts one for this run.
    ///
    /// # Errors
    ///
    /// The system refused.
    pub fn start() -> Result<Self, String> {
        shared::sweep(None);
        let second = Second::start(&Order::Sweep(std::process::id()), false)?;
        second.ready()?;
        Ok(Self { _second: second })
    }
}

/// Ends this second process when the first one dies, unless its work is done by then, and removes what it made for the round
/// `name`. `done` is set when it is. Returns when the first process needs it no more.
pub fn watch(wire: &Wire, done: &Arc<AtomicBool>, name: &str) -> Result<std::thread::JoinHandle<()>, String> {
    let wire = wire.share()?;
    let (done, name) = (Arc::clone(done), name.to_owned());
    let watch = move || {
        wire.hear_the_end();
        if !done.load(Ordering::Acquire) {
            shared::remove_files(&name);
            std::process::exit(1);
        }
    };
    std::thread::Builder::new().name("watch".to_owned()).spawn(watch).map_err(refused)
}
