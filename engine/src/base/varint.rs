//! Variable-length integers: seven bits per byte, the lowest first (LEB128).

/// Greatest length of an encoded `u64`, in bytes.
pub(crate) const LONGEST: usize = 10;

pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps a signed number to an unsigned one that is small if the signed one is near 0: 0, -1, 1, -2 become 0, 1, 2, 3.
pub(crate) fn zigzag(difference: i64) -> u64 {
    (difference << 1 ^ difference >> 63) as u64
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Decodes the number at the front of `bytes` and removes its bytes. `None` if the bytes are incomplete or exceed a
/// `u64`.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // The tenth byte has room for one bit.
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_back_and_one_beyond_64_bits_is_none() {
        for number in [0, 1, 127, 128, 1 << 63, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            assert_eq!(take(&mut &bytes[..]), Some(number));
            assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None, "{number}, cut off");
        }
        let nine = [0xff; 9];
        for tenth in [2, 0x7f, 0x81] {
            assert_eq!(take(&mut &[&nine[..], &[tenth, 0]].concat()[..]), None, "{tenth}");
        }
    }
}
