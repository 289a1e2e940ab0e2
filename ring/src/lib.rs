//! The lock-free core.
