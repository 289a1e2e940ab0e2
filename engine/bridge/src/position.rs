//! What a bridge records in the journal beside its position: under which epochs it has written, and the last record that
//! the stream has confirmed.

/// The most epochs that are kept, the newest ones.
const MOST: usize = 16;

/// The bridge's own bytes of a [`BridgePosition`](slipring::replication::BridgePosition).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The epochs and nonces under which this journal's bridge has written, or has been about to; newest last.
    pub(crate) known: Vec<(u64, u64)>,
    /// The offset after the last confirmed record, and that record's checksum; `None` if none was confirmed.
    pub(crate) last: Option<(u64, u32)>,
    /// The number of the stream's first message; 0 if nothing was written yet. It only moves when messages are lost.
    pub(crate) first: u64,
}

const FORMAT: u8 = 1;

impl Position {
    pub(crate) fn know(&mut self, epoch: u64, nonce: u64) {
        self.known.push((epoch, nonce));
        let surplus = self.known.len().saturating_sub(MOST);
        self.known.drain(..surplus);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (next, checksum) = self.last.unwrap_or((u64::MAX, 0));
        let mut bytes = vec![FORMAT];
        bytes.extend(next.to_le_bytes());
        bytes.extend(checksum.to_le_bytes());
        bytes.extend(self.first.to_le_bytes());
        for (epoch, nonce) in &self.known {
            bytes.extend(epoch.to_le_bytes());
            bytes.extend(nonce.to_le_bytes());
        }
        bytes
    }

    /// The position in these bytes; the default for no bytes, `None` if they are malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let Some((format, rest)) = bytes.split_first() else { return Some(Self::default()) };
        let (next, rest) = rest.split_first_chunk()?;
        let (checksum, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (known, odd) = rest.as_chunks::<16>();
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let next = u64::from_le_bytes(*next);
        (*format == FORMAT && odd.is_empty()).then(|| Self {
            known: known.iter().map(|pair| (word(&pair[..8]), word(&pair[8..]))).collect(),
            first: u64::from_le_bytes(*first),
            last: (next != u64::MAX).then_some((next, u32::from_le_bytes(*checksum))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_and_stays_small() {
        let mut position = Position { known: Vec::new(), last: Some((7, 8)), first: 9 };
        (0..40).for_each(|epoch| position.know(epoch, epoch + 1));
        assert_eq!((position.known.len(), position.known.last()), (MOST, Some(&(39, 40))));
        let bytes = position.encode();
        assert!(bytes.len() <= slipring::replication::MAX_DETAIL);
        assert_eq!(Position::decode(&bytes), Some(position));
        assert_eq!(Position::decode(&[]), Some(Position::default()));
        assert_eq!((Position::decode(&bytes[..20]), Position::decode(&[2; 13])), (None, None));
    }
}
