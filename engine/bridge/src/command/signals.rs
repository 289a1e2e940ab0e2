//! The signals that end the program in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once the program was told to end.
#[derive(Clone, Default)]
pub(crate) struct Ending(Arc<AtomicBool>);

impl Ending {
    /// Waits for signals on a thread of its own.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let ending = Self::default();
        let told = ending.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("slipring-signals".to_owned()).spawn(move || {
            if runtime.block_on(signal()).is_ok() {
                told.0.store(true, Ordering::Release);
            }
        })?;
        Ok(ending)
    }

    pub(crate) fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use std::task::Poll;
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    std::future::poll_fn(|context| {
        match interrupt.poll_recv(context).is_ready() || terminate.poll_recv(context).is_ready() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    Ok(())
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
