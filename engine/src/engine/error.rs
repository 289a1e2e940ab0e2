//! Why an engine is not built.

use crate::base::cores::CoresError;
use crate::topic::error::Contradiction;
use slipring_journal::OpenError;
#[cfg(feature = "observe")]
use {slipring_ring::text, std::path::PathBuf};

/// An engine was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The journal was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The plan of cores cannot be kept.
    #[error("the plan of cores cannot be kept: {0}")]
    Cores(CoresError),
    /// Two settings cannot both be.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The engine cannot be observed where it was to be.
    #[cfg(feature = "observe")]
    #[error(transparent)]
    Observe(#[from] ObserveError),
}

/// The engine cannot be observed there.
#[cfg(feature = "observe")]
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
        /// The error of the operating system.
        cause: std::io::Error,
    },
}
