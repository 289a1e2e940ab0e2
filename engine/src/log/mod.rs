//! What the journal's one writer thread is handed, and what of the engine's state is kept with the events.

pub(crate) mod offsets;
