//! The thread that answers requests at the socket.

use super::place::{self, Place};
use crate::base::threads::caught;
use crate::engine::Engine;
use crate::engine::ObserveError;
use crate::topic::registry::Registry;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// The time that a client has to send its request; `ANSWER` is the time that it then has to read the answer.
const ASK: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(1);

/// Greatest length of a request that is read, in bytes. Of a longer one, only the beginning is read.
const REQUEST: usize = 16 << 10;

/// Greatest count of connections that are served at a time. Further clients wait to be accepted, each for at most the
/// sum of both time limits.
const SERVED: usize = 32;

/// How long no connection is accepted after the system refused one, for want of descriptors or memory. Without a pause
/// the listener would be ready again at once, and the thread would spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The observing thread and its socket. Dropping it ends the thread and removes the socket.
pub(crate) struct Observer {
    place: Place,
    /// One end of a pair of sockets. The drop closes it, which the thread sees at the other end; then the thread ends,
    /// even if another file has the socket's path by now.
    _end: UnixStream,
}

impl Observer {
    pub(crate) fn start(path: &Path, engine: Weak<Registry>) -> Result<Self, ObserveError> {
        let io = |cause| ObserveError::Io { path: path.to_owned(), cause };
        let (listener, place) = place::bind(path)?;
        let started = listener.set_nonblocking(true).and_then(|()| UnixStream::pair()).and_then(|(end, over)| {
            let thread = std::thread::Builder::new().name("slipring-watch".to_owned());
            thread.spawn(move || serve(&listener, &over, &engine))?;
            Ok(end)
        });
        match started {
            Ok(end) => Ok(Self { place, _end: end }),
            Err(cause) => {
                place.remove();
                Err(io(cause))
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Removed before the thread closes the socket, because until then no other file can have its device and inode.
        self.place.remove();
    }
}

struct Connection {
    stream: UnixStream,
    until: Instant,
    state: State,
    /// True once the client has closed its sending side.
    input_closed: bool,
}

enum State {
    Asking(Vec<u8>),
    Answering {
        answer: Vec<u8>,
        sent: usize,
    },
    /// The answer is sent. Further input is read and ignored until the client closes its sending side or the deadline
    /// passes, because the client could lose the answer if this side closed with unread input.
    Leaving,
}

fn serve(listener: &UnixListener, over: &UnixStream, engine: &Weak<Registry>) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut closed_until: Option<Instant> = None;
    loop {
        let now = Instant::now();
        closed_until = closed_until.filter(|until| *until > now);
        let accepts = closed_until.is_none() && connections.len() < SERVED;
        let mut polled = vec![PollFd::new(over, PollFlags::IN)];
        polled.extend(connections.iter().map(|it| PollFd::new(&it.stream, it.interest())));
        polled.extend(accepts.then(|| PollFd::new(listener, PollFlags::IN)));
        let next = connections.iter().map(|it| it.until).chain(closed_until).min();
        let timeout = next.map(|next| Timespec::try_from(next.saturating_duration_since(now)).unwrap_or_default());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            // `poll` failed for want of memory.
            Err(_) => {
                std::thread::sleep(BACK_OFF);
                continue;
            }
        }
        let ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        if ready[0] {
            return;
        }
        let is_ready = &ready[1..];
        let (now, mut index) = (Instant::now(), 0);
        connections.retain_mut(|it| {
            index += 1;
            // A panic of the engine's clock ends only this connection.
            matches!(caught(|| it.step(is_ready[index - 1], now, engine)), Ok(Ok(_)))
        });
        if accepts && ready.last() == Some(&true) {
            closed_until = accept(listener, &mut connections, now).map(|()| now + BACK_OFF);
        }
    }
}

/// Accepts the clients that wait to connect, until [`SERVED`] are connected. `Some` if the operating system refuses to
/// accept one, for want of descriptors or memory.
fn accept(listener: &UnixListener, connections: &mut Vec<Connection>, now: Instant) -> Option<()> {
    while connections.len() < SERVED {
        match listener.accept() {
            Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                connections.push(Connection {
                    stream,
                    until: now + ASK,
                    state: State::Asking(Vec::new()),
                    input_closed: false,
                });
            }
            Ok(_) => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return None,
            // The client has gone.
            Err(cause) if matches!(cause.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(_) => return Some(()),
        }
    }
    None
}

/// The result of a step that ends its connection: the client was answered or has left, the deadline has passed, or the
/// engine is gone.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        // The client has left or reads too slowly, which is no error of the engine.
        Self
    }
}

impl Connection {
    fn interest(&self) -> PollFlags {
        let input = if self.input_closed { PollFlags::empty() } else { PollFlags::IN };
        match self.state {
            State::Answering { .. } => input | PollFlags::OUT,
            _ => input,
        }
    }

    fn step(&mut self, ready: bool, now: Instant, engine: &Weak<Registry>) -> Result<(), Over> {
        let late = self.until <= now;
        if ready && !self.input_closed {
            self.hear()?;
        }
        if let State::Asking(asked) = &self.state {
            if !late && !self.input_closed && !is_whole(asked) {
                return Ok(());
            }
            self.state = State::Answering { answer: answer(asked, engine)?, sent: 0 };
            self.until = now + ANSWER;
        } else if late {
            return Err(Over);
        }
        if let State::Answering { answer, sent } = &mut self.state {
            while *sent < answer.len() {
                match self.stream.write(&answer[*sent..]) {
                    Ok(0) => return Err(Over),
                    Ok(len) => *sent += len,
                    Err(cause) if cause.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(Over),
                }
            }
            self.stream.shutdown(Shutdown::Write)?;
            self.state = State::Leaving;
        }
        if self.input_closed { Err(Over) } else { Ok(()) }
    }

    /// Reads what the client has sent, and appends it to the request.
    fn hear(&mut self) -> Result<(), Over> {
        let mut part = [0; 4096];
        match self.stream.read(&mut part) {
            Ok(0) => self.input_closed = true,
            Ok(len) => {
                if let State::Asking(asked) = &mut self.state {
                    asked.extend_from_slice(&part[..len]);
                }
            }
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Err(Over),
        }
        Ok(())
    }
}

fn is_whole(asked: &[u8]) -> bool {
    let ends = |end: &[u8]| asked.windows(end.len()).any(|part| part == end);
    let lines = if asked.starts_with(b"GET ") { ends(b"\r\n\r\n") || ends(b"\n\n") } else { ends(b"\n") };
    lines || asked.len() >= REQUEST
}

/// The whole answer. It is built before any of it is sent, so that the engine is not kept alive while a client reads.
fn answer(asked: &[u8], engine: &Weak<Registry>) -> Result<Vec<u8>, Over> {
    let asked = String::from_utf8_lossy(asked);
    let as_text = asked.starts_with("prometheus") || asked.starts_with("GET /metrics");
    let metrics = Engine { shared: engine.upgrade().ok_or(Over)? }.metrics();
    let (kind, body) = match as_text {
        true => ("text/plain; version=0.0.4", metrics.to_prometheus()),
        false => ("application/json", serde_json::to_string(&metrics).map_err(|_| Over)? + "\n"),
    };
    if !asked.starts_with("GET ") {
        return Ok(body.into_bytes());
    }
    let len = body.len();
    let head = format!("HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\r\n");
    Ok([head.into_bytes(), body.into_bytes()].concat())
}
