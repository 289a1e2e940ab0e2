//! Failures of a command: the exit codes, and the message on standard error.

use slipring::text;
use std::error::Error;
use std::process::ExitCode;

/// Exit code: the command could not be carried out.
pub(crate) const FAILED: u8 = 1;
/// Exit code of `verify`: the sides differ.
pub(crate) const DIFFERS: u8 = 3;
/// Exit code of `run` and `take-over`: a bridge has stopped for good, or journal and streams do not fit.
pub(crate) const STOPPED: u8 = 7;
/// Exit code of `run`: the lease is lost, or the program that runs with it has failed.
pub(crate) const LOST: u8 = 8;

/// A command's exit code and the message that it prints.
pub(crate) struct Failure {
    code: u8,
    cause: Box<dyn Error>,
}

pub(crate) type Done = Result<(), Failure>;

impl Failure {
    pub(crate) fn new(code: u8, cause: impl Into<Box<dyn Error>>) -> Self {
        Self { code, cause: cause.into() }
    }

    /// Prints the message and returns the exit code. If the reader of the output pipe has closed it, prints nothing and
    /// returns success.
    pub(crate) fn report(self) -> ExitCode {
        let io = self.cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        eprintln!("slipring-bridge: {}", text::line(self.cause));
        ExitCode::from(self.code)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self::new(FAILED, Box::new(cause) as Box<dyn Error>)
    }
}
