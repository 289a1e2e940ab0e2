//! Failures of a command: the exit codes, and the message on standard error.

use slipring::journal::repair::RepairError;
use slipring::journal::{ConvertError, CopyError, OpenError, ReplayError, WriteError};
use slipring::queue::recorded::ChangeError;
use slipring::text;
use slipring_ring::shared::{Ended, Property, SharedError};
use std::error::Error;
use std::io;
use std::process::ExitCode;

/// Exit code: the command could not be carried out.
pub(crate) const FAILED: u8 = 1;
/// Exit code: data that was durable is damaged.
pub(crate) const DAMAGED: u8 = 3;
/// Exit code of `journal verify`: the journal ends in a torn tail (bytes of an unfinished write).
pub(crate) const TORN: u8 = 4;
/// Exit code: a newer version of slipring wrote the journal.
pub(crate) const NEWER: u8 = 5;
/// Exit code of `journal verify`: bytes that belong to no record have changed.
pub(crate) const STRAY: u8 = 6;

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

    /// True if data that was durable is damaged.
    pub(crate) fn is_damage(&self) -> bool {
        self.code == DAMAGED
    }

    /// Prints the message and returns the exit code. If the reader of the output pipe has closed it, prints nothing and
    /// returns success.
    pub(crate) fn report(self) -> ExitCode {
        let io = self.cause.downcast_ref::<io::Error>();
        if io.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        eprintln!("slipring: {}", text::line(self.cause));
        ExitCode::from(self.code)
    }
}

impl From<OpenError> for Failure {
    fn from(cause: OpenError) -> Self {
        let code = match cause {
            OpenError::Damaged { .. } => DAMAGED,
            OpenError::Newer { .. } => NEWER,
            _ => FAILED,
        };
        Self::new(code, cause)
    }
}

impl From<CopyError> for Failure {
    fn from(cause: CopyError) -> Self {
        match cause {
            CopyError::Source(cause) | CopyError::Target(cause) => cause.into(),
            CopyError::Unsound(_) => Self::new(DAMAGED, cause),
            cause => Self::new(FAILED, cause),
        }
    }
}

impl From<ConvertError> for Failure {
    fn from(cause: ConvertError) -> Self {
        match cause {
            ConvertError::Source(cause) | ConvertError::Target(cause) => cause.into(),
            ConvertError::Read(cause) => cause.into(),
            cause @ ConvertError::NoUpgrade { .. } => Self::new(
                FAILED,
                format!("{cause}: let the program convert (slipring::journal::convert), or see `--by-name` in --help"),
            ),
            cause => Self::new(FAILED, cause),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(cause: ReplayError) -> Self {
        Self::new(if matches!(cause, ReplayError::Damaged { .. }) { DAMAGED } else { FAILED }, cause)
    }
}

impl From<RepairError> for Failure {
    fn from(cause: RepairError) -> Self {
        match cause {
            RepairError::Open(cause) => cause.into(),
            RepairError::Replay(cause) => cause.into(),
            RepairError::Irreparable { .. } => Self::new(DAMAGED, cause),
            cause => Self::new(FAILED, cause),
        }
    }
}

impl From<ChangeError> for Failure {
    fn from(cause: ChangeError) -> Self {
        match cause {
            ChangeError::Read(cause) => cause.into(),
            cause => Self::new(FAILED, cause),
        }
    }
}

impl From<SharedError> for Failure {
    fn from(cause: SharedError) -> Self {
        let code = match cause {
            SharedError::Mismatch { property: Property::Version | Property::Kind | Property::Fence, .. } => NEWER,
            SharedError::Mismatch { .. } | SharedError::Ended(Ended::Damaged { .. }) => DAMAGED,
            _ => FAILED,
        };
        Self::new(code, cause)
    }
}

impl From<WriteError> for Failure {
    fn from(cause: WriteError) -> Self {
        Self::new(FAILED, cause)
    }
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Self {
        Self::new(FAILED, cause)
    }
}

impl From<csv::Error> for Failure {
    fn from(cause: csv::Error) -> Self {
        match cause.into_kind() {
            csv::ErrorKind::Io(cause) => cause.into(),
            other => Self::new(FAILED, format!("cannot write CSV: {other:?}")),
        }
    }
}
