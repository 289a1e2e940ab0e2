//! Opening the shared ring of a link.

use super::error::RingLinkError;
use slipring_ring::Start;
use slipring_ring::shared::{self, Role, SharedError, SharedRing, Size};

/// The name of a link's ring, and its size if the program has given one.
pub(super) struct RingSettings {
    pub(super) name: String,
    pub(super) size: Option<Size>,
}

impl RingSettings {
    pub(super) fn new(name: String) -> Self {
        Self { name, size: None }
    }

    fn refused(&self, cause: SharedError) -> RingLinkError {
        RingLinkError::Ring { ring: self.name.clone(), cause }
    }

    /// Opens the ring, as it is or with the program's size, and creates it if it is not there, with the size `otherwise` if
    /// the program has given none.
    pub(super) fn open_or_create<E: shared::Event>(&self, otherwise: Size) -> Result<SharedRing<E>, RingLinkError> {
        match self.open() {
            Err(RingLinkError::Ring { cause: SharedError::NotFound { .. }, .. }) => {
                SharedRing::open_or_create(&self.name, self.size.unwrap_or(otherwise))
                    .map_err(|cause| self.refused(cause))
            }
            outcome => outcome,
        }
    }

    /// Opens the ring. Creates it only if the program has given a size.
    pub(super) fn open<E: shared::Event>(&self) -> Result<SharedRing<E>, RingLinkError> {
        let opened = match self.size {
            Some(size) => SharedRing::open_or_create(&self.name, size),
            None => SharedRing::open(&self.name),
        };
        opened.map_err(|cause| self.refused(cause))
    }
}

/// Makes sure that the ring keeps a position for each of these consumers.
pub(super) fn hold_for<E: shared::Event>(ring: &SharedRing<E>, consumers: Vec<String>) -> Result<(), RingLinkError> {
    let refused = |cause| RingLinkError::Ring { ring: ring.name().to_owned(), cause };
    for name in consumers {
        let reads = |known: &shared::Participant| known.role != Role::Producer && known.name == name;
        if ring.participants().iter().any(|known| reads(known) && (known.is_held || known.is_alive)) {
            continue;
        }
        match ring.consumer(name).hold().start(Start::Earliest).join() {
            // It has joined by itself meanwhile.
            Ok(_) | Err(SharedError::NameTaken { .. }) => {}
            Err(cause) => return Err(refused(cause)),
        }
    }
    Ok(())
}
