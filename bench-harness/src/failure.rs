//! The failures of a command and their exit codes, which are a contract.

use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An assertion or a comparison failed: exit code 1.
    #[error("{0}")]
    Regression(String),
    /// The measurement is invalid: exit code 2.
    #[error("{0}")]
    Invalid(String),
    /// The command line asks for something impossible: exit code 64.
    #[error("{0}")]
    Usage(String),
    /// A file could not be written or read: exit code 74.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Failure {
    /// A failure of usage, with exit code 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The engine or the journal refused a call: a usage failure with its cause.
    pub fn refused(cause: impl std::fmt::Display) -> Self {
        Self::Usage(format!("the engine refused: {cause}"))
    }

    /// A failure of this file or folder, with exit code 74.
    pub fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), source }
    }

    /// The exit code: 1 assertion or regression, 2 invalid run, 64 usage, 74 files.
    pub fn code(&self) -> u8 {
        match self {
            Self::Regression(_) => 1,
            Self::Invalid(_) => 2,
            Self::Usage(_) => 64,
            Self::File { .. } => 74,
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}
