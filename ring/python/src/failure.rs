//! Errors of shared rings as Python's exceptions, which are defined in `python/slipring/_errors.py`.

use pyo3::prelude::*;
use slipring_ring::shared::{Ended, PublishError, SharedError};

fn raised(class: &str, text: String) -> PyErr {
    Python::attach(|py| {
        let error = py.import("slipring._errors").and_then(|module| module.getattr(class)?.call1((text,)));
        error.map_or_else(|cause| cause, PyErr::from_value)
    })
}

pub(crate) fn ended(error: Ended) -> PyErr {
    let class = match &error {
        Ended::Closed => "Closed",
        Ended::ProducerDied => "ProducerDied",
        Ended::Replaced => "Replaced",
        Ended::Forked => "Forked",
        _ => "Damaged",
    };
    raised(class, error.to_string())
}

pub(crate) fn refused(error: SharedError) -> PyErr {
    let class = match &error {
        SharedError::Ended(of) => return ended(of.clone()),
        SharedError::System { cause, .. } => return PyErr::from(std::io::Error::new(cause.kind(), error.to_string())),
        SharedError::NotFound { .. } => "NotFound",
        SharedError::Exists { .. } => "Exists",
        SharedError::Mismatch { .. } => "Mismatch",
        SharedError::InUse { .. } | SharedError::ProducerTaken { .. } | SharedError::NameTaken { .. } => "InUse",
        SharedError::OutOfRange { .. } => "OutOfRange",
        SharedError::Name { .. }
        | SharedError::Capacity { .. }
        | SharedError::Retain { .. }
        | SharedError::EventType { .. }
        | SharedError::LayoutText { .. } => "Invalid",
        _ => "Error",
    };
    raised(class, error.to_string())
}

pub(crate) fn not_published(error: PublishError) -> PyErr {
    let class = match &error {
        PublishError::Ended(of) => return ended(of.clone()),
        PublishError::Full { .. } | PublishError::TimedOut { .. } => "Full",
        _ => "Invalid",
    };
    raised(class, error.to_string())
}
