//! A Unix socket that shows the engine from outside: what `slipring top` reads.
//!
//! Each connection gets one snapshot and is closed. A line `prometheus` asks for Prometheus' text, an HTTP `GET /metrics`
//! for the same with a header before it, `GET /` or nothing within a moment for JSON. One thread serves all connections,
//! each with one deadline for all of its answer: a slow reader keeps up neither other readers nor the engine nor its end.

#[cfg(unix)]
mod place;
#[cfg(unix)]
mod serve;

use crate::text;
use std::path::PathBuf;

/// The engine cannot be observed there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// Another process, or another engine, answers there.
    #[error("somebody answers at {} already: end that one, or take another path", text::line(path.display()))]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// Something stands there that is no socket.
    #[error("{} is there and is no socket: take another path", text::line(path.display()))]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// A socket of another user stands there. It is not touched.
    #[error("the socket at {} is one of user {owner}: take another path", text::line(path.display()))]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// The number of its user.
        owner: u32,
    },
    /// The path is longer than the address of a socket can be.
    #[error("the path {} has {len} bytes, and a socket's can have {limit}: take a shorter one", text::line(path.display()))]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        len: usize,
        /// The most that it can have.
        limit: usize,
    },
    /// The path holds a zero byte, which ends a path for the system.
    #[error("the path {} holds a zero byte: take another one", text::line(path.display()))]
    ZeroByte {
        /// The path.
        path: PathBuf,
    },
    /// This system has no Unix sockets that only their user can reach.
    #[error("an engine can be observed at a socket on Unix only: read `Engine::metrics` in the program instead")]
    Unsupported,
    /// The system refuses.
    #[error("no socket at {}: {cause}", text::line(path.display()))]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

#[cfg(unix)]
pub(crate) use serve::Observer;

/// Where there is no socket to observe an engine at.
#[cfg(not(unix))]
pub(crate) enum Observer {}

#[cfg(not(unix))]
impl Observer {
    pub(crate) fn start(
        _: &std::path::Path,
        _: std::sync::Weak<crate::topic::registry::Registry>,
    ) -> Result<Self, ObserveError> {
        Err(ObserveError::Unsupported)
    }
}
