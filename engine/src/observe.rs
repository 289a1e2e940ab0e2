//! A Unix socket that shows the engine from outside: what `slipring top` reads.
//!
//! Each connection gets one snapshot and is closed. A line `prometheus` asks for Prometheus' text, an HTTP `GET /metrics`
//! for the same with a header before it, `GET /` or nothing within a moment for JSON. One connection at a time, each with a
//! limit of time: a slow reader can keep others waiting, but neither the engine nor its end.

use crate::engine::{Engine, Shared};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The engine cannot be observed there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// Another process, or another engine, answers there.
    #[error("somebody answers at {} already: end that one, or take another path", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// Something stands there that is no socket.
    #[error("{} is there and is no socket: take another path", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("no socket at {}: {cause}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// Ends with its engine, and takes the socket away.
pub(crate) struct Observer {
    path: PathBuf,
    over: Arc<AtomicBool>,
}

/// How long a connection may take to ask, and to be answered.
const ASK: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(1);

impl Observer {
    pub(crate) fn start(path: &Path, engine: Weak<Shared>) -> Result<Self, ObserveError> {
        let io = |cause| ObserveError::Io { path: path.to_owned(), cause };
        if let Ok(there) = std::fs::symlink_metadata(path) {
            use std::os::unix::fs::FileTypeExt;
            if !there.file_type().is_socket() {
                return Err(ObserveError::NoSocket { path: path.to_owned() });
            }
            if UnixStream::connect(path).is_ok() {
                return Err(ObserveError::Taken { path: path.to_owned() });
            }
            // Left by a process that was killed.
            std::fs::remove_file(path).map_err(io)?;
        }
        let listener = bind_private(path).map_err(io)?;
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("slipring-watch".to_owned());
        let thread = thread.spawn(move || {
            for connection in listener.incoming() {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                let Some(shared) = engine.upgrade() else { return };
                if let Ok(connection) = connection {
                    // Whoever asked has gone, or reads too slowly: that is theirs.
                    let _ = answer(connection, &Engine { shared });
                }
            }
        });
        let observer = Self { path: path.to_owned(), over };
        thread.map(|_| observer).map_err(io)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread, which then sees the end.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Nobody else can connect at any moment: the socket is made in a folder of its own, closed to others, and moved out when
/// it is closed to others itself.
fn bind_private(path: &Path) -> std::io::Result<UnixListener> {
    let mut folder = path.as_os_str().to_owned();
    folder.push(format!(".{}", std::process::id()));
    let folder = PathBuf::from(folder);
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let inside = folder.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&inside, path)?;
        Ok(listener)
    });
    let _ = std::fs::remove_file(&inside);
    std::fs::remove_dir(&folder)?;
    bound
}

fn answer(mut connection: UnixStream, engine: &Engine) -> std::io::Result<()> {
    connection.set_read_timeout(Some(ASK))?;
    connection.set_write_timeout(Some(ANSWER))?;
    let mut asked = [0; 64];
    let len = connection.read(&mut asked).unwrap_or(0);
    let asked = String::from_utf8_lossy(&asked[..len]);
    let http = asked.starts_with("GET ");
    let as_text = asked.starts_with("prometheus") || asked.starts_with("GET /metrics");
    let metrics = engine.metrics();
    let (kind, body) = match as_text {
        true => ("text/plain; version=0.0.4", metrics.to_prometheus()),
        false => ("application/json", serde_json::to_string(&metrics).map_err(std::io::Error::other)? + "\n"),
    };
    if http {
        let len = body.len();
        write!(connection, "HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\r\n")?;
    }
    connection.write_all(body.as_bytes())
}
