//! Requests to the observing socket of an engine.

use slipring::text;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest time to wait for the engine's complete answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes. An engine with 10,000 consumers sends about 4 MB.
const LARGEST: usize = 64 << 20;

/// Sends a request, which is `json` or `prometheus` and a line's end, to the engine's `socket`, and returns the answer.
///
/// # Errors
/// No engine answers, or not in time; or the answer is too large or no UTF-8. The message names the socket.
pub(super) fn ask(socket: &Path, what: &str) -> Result<String, String> {
    let path = text::line(socket.display());
    let no_engine = |cause: io::Error| {
        format!(
            "no engine answers at {path} ({cause}): is it running, and was it built with `Engine::builder().observe`?"
        )
    };
    let mut connection = UnixStream::connect(socket).map_err(no_engine)?;
    connection.write_all(what.as_bytes()).map_err(no_engine)?;
    let mut answer = Vec::new();
    let (begun, mut part) = (Instant::now(), vec![0; 1 << 16]);
    loop {
        // The standard library refuses a timeout of zero.
        let left = PATIENCE.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        connection.set_read_timeout(Some(left)).map_err(no_engine)?;
        let len = connection.read(&mut part).map_err(no_engine)?;
        if len == 0 {
            return String::from_utf8(answer).map_err(|cause| format!("{path} sent what is no text: {cause}"));
        }
        answer.extend_from_slice(&part[..len]);
        if answer.len() > LARGEST || begun.elapsed() > PATIENCE {
            let (size, time) = (answer.len(), begun.elapsed());
            return Err(format!("{path} sent {size} bytes in {time:.1?} and no end: is it the socket of an engine?"));
        }
    }
}
