//! Errors of building an engine.

use crate::base::cores::CoresError;
use crate::topic::error::Contradiction;
use slipring_journal::OpenError;
#[cfg(feature = "observe")]
use {slipring_ring::text, std::path::PathBuf};

/// Why an engine was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The journal cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The core plan asks for a core that this process may not use, or for too many spinning threads.
    #[error("the plan of cores cannot be kept: {0}")]
    Cores(CoresError),
    /// Two settings contradict each other.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The thread that forgets unused groups could not be started: the error of the operating system.
    #[error("the timer that forgets unused groups got no thread: {0}")]
    Timer(std::io::Error),
    /// The observing socket cannot be created.
    #[cfg(feature = "observe")]
    #[error(transparent)]
    Observe(#[from] ObserveError),
}

/// Why the observing socket of an engine cannot be created.
#[cfg(feature = "observe")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// Another process or engine listens on the socket at this path.
    #[error("somebody answers at {} already: end that one, or take another path", text::line(path.display()))]
    Taken {
        /// The socket's path.
        path: PathBuf,
    },
    /// The path is that of a file which is not a socket. The file is left as it is.
    #[error("{} is there and is no socket: take another path", text::line(path.display()))]
    NoSocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// The path is that of another user's socket, at which nothing answers. The socket is left as it is.
    #[error("the socket at {} is one of user {owner}: take another path", text::line(path.display()))]
    NotOurs {
        /// The socket's path.
        path: PathBuf,
        /// The operating system's user id of the socket's owner.
        owner: u32,
    },
    /// The path is too long for the address of a Unix socket.
    #[error("the path {} has {len} bytes, and a socket's can have {limit}: take a shorter one", text::line(path.display()))]
    TooLong {
        /// The socket's path.
        path: PathBuf,
        /// The length of the path, in bytes.
        len: usize,
        /// The greatest length of such a path, in bytes.
        limit: usize,
    },
    /// The path has a zero byte, at which the operating system would end the path.
    #[error("the path {} holds a zero byte: take another one", text::line(path.display()))]
    ZeroByte {
        /// The socket's path.
        path: PathBuf,
    },
    /// This operating system has no Unix sockets that only their owner can connect to.
    #[error("an engine can be observed at a socket on Unix only: read `Engine::metrics` in the program instead")]
    Unsupported,
    /// The operating system refused to create the socket.
    #[error("no socket at {}: {cause}", text::line(path.display()))]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The error of the operating system.
        cause: std::io::Error,
    },
}
