//! A Unix socket that shows the engine's metrics to other processes, such as `slipring top`.
//!
//! Each connection gets one snapshot and is closed. The request `prometheus` gets Prometheus text; an HTTP `GET
//! /metrics` gets that text with an HTTP header; an HTTP `GET /`, or no request within 100 ms, gets JSON. One thread
//! serves all connections, each with one deadline for its whole answer, so a slow client delays neither other clients
//! nor the engine nor the engine's end.

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

/// The observer on systems without Unix sockets, which cannot be started.
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
    /// Opens a Unix socket at which other processes of this user can observe the engine, for example with `slipring top
    /// --socket PATH`. Each connection gets a snapshot of the metrics as JSON, or as Prometheus text for the request
    /// `prometheus` or `GET /metrics`. The socket is removed when the engine's last handle is dropped. Needs the
    /// feature `observe`.
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
