//! A Unix socket that shows the engine from outside: what `slipring top` reads.
//!
//! Each connection gets one snapshot and is closed. A line `prometheus` asks for Prometheus' text, an HTTP `GET /metrics`
//! for the same with a header before it, `GET /` or nothing within a moment for JSON. One thread serves all connections,
//! each with one deadline for all of its answer: a slow reader keeps up neither other readers nor the engine nor its end.

#[cfg(unix)]
mod place;
#[cfg(unix)]
mod serve;

use crate::engine::EngineBuilder;
#[cfg(not(unix))]
use crate::engine::ObserveError;
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(not(unix))]
use NoSocket as Observer;
#[cfg(unix)]
pub(crate) use serve::Observer;

/// Where there is no socket to observe an engine at.
#[cfg(not(unix))]
pub(crate) enum NoSocket {}

#[cfg(not(unix))]
impl NoSocket {
    pub(crate) fn start(
        _: &std::path::Path,
        _: std::sync::Weak<crate::topic::registry::Registry>,
    ) -> Result<Self, ObserveError> {
        Err(ObserveError::Unsupported)
    }
}

impl EngineBuilder {
    /// Shows the engine to other processes of this user at a Unix socket, for `slipring top --socket PATH`: each connection
    /// is answered with a snapshot as JSON, or as Prometheus' text if it asks for `prometheus` or `GET /metrics`. The
    /// socket goes with the engine's last handle. With the feature `observe`.
    ///
    /// ```
    /// # use slipring::{Engine, metrics::Metrics};
    /// # use std::{io::{Read, Write}, os::unix::net::UnixStream};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("engine.sock");
    /// let engine = Engine::builder().observe(&path).build()?;
    /// engine.topic::<u64>("ticks").create()?;
    /// let mut text = String::new();
    /// UnixStream::connect(&path)?.read_to_string(&mut text)?;
    /// assert!(text.contains("ticks"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.observer = Some(Box::new(move |engine| Ok(Box::new(Observer::start(&path, Arc::downgrade(engine))?))));
        self
    }
}
