//! The live display of percentiles, rate and lag, on standard error.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slipring_ring::pin;

use super::recorder::Live;
use crate::quantity::{nanos, per_second};

/// A display that runs until it is dropped.
pub struct Display {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Shows `live` four times a second, on an allowed core outside of `measured`. If there is no such core, the
    /// display warns and is not pinned.
    pub fn start(live: Arc<Live>, measured: &[usize]) -> Self {
        let free = pin::allowed_cores().into_iter().find(|core| !measured.contains(core));
        if free.is_none() {
            eprintln!("live: no core is left beside the measured ones; looking disturbs what is measured");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            if let Some(core) = free {
                let _ = pin::pin_current(core);
            }
            show(&live, &stopped);
        });
        Self { stop, thread: Some(thread) }
    }
}

fn show(live: &Live, stopped: &AtomicBool) {
    let terminal = std::io::stderr().is_terminal();
    let (mut before, mut looked) = (live.snapshot(), Instant::now());
    while !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(250));
        let now = live.snapshot();
        let fresh: Vec<u64> = now.iter().zip(&before).map(|(new, old)| new - old).collect();
        let count: u64 = fresh.iter().sum();
        let rate = count as f64 / looked.elapsed().as_secs_f64();
        (before, looked) = (now, Instant::now());
        if count == 0 {
            continue;
        }
        let at = |quantile| nanos(Live::quantile(&fresh, quantile));
        // Messages that are published but not read yet, by Little's law: their rate times their latency.
        let lag = rate * Live::quantile(&fresh, 0.5) as f64 / 1e9;
        let line = format!(
            "live: {:>9}  p50 {:>8}  p99 {:>8}  p99.9 {:>8}  max {:>8}  lag {lag:.0}",
            per_second(rate),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
        if terminal {
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }
    if terminal {
        eprintln!();
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
