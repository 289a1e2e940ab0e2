//! Exact decimal numbers from text, as integers. No floats: `7.18e-06` of a coin is 718, not nearly.

/// Why a text is no number that we can keep exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed,
    TooFine,
    TooLarge,
}

/// Reads a whole number: digits and nothing else.
pub fn whole(field: &[u8]) -> Option<u64> {
    if field.is_empty() || !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Reads `12`, `12.5`, `.5` or `1.25e-06`, scaled by 10^`decimals`.
///
/// # Errors
/// [`Refused`] when the text is no number of zero or more, or its value does not fit exactly.
pub fn scaled(field: &[u8], decimals: u32) -> Result<u64, Refused> {
    let e = field.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = field.split_at(e.unwrap_or(field.len()));
    let exponent = match exponent {
        [] => 0,
        [_, b'-', digits @ ..] => -power(digits)?,
        [_, b'+', digits @ ..] | [_, digits @ ..] => power(digits)?,
    };
    let point = mantissa.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = mantissa.split_at(point.unwrap_or(mantissa.len()));
    let fraction = fraction.get(1..).unwrap_or_default();
    if whole.is_empty() && fraction.is_empty() {
        return Err(Refused::Malformed);
    }
    let mut number: u128 = 0;
    for byte in whole.iter().chain(fraction) {
        if !byte.is_ascii_digit() {
            return Err(Refused::Malformed);
        }
        number = number
            .checked_mul(10)
            .and_then(|number| number.checked_add(u128::from(byte - b'0')))
            .ok_or(Refused::TooLarge)?;
    }
    if number == 0 {
        return Ok(0);
    }
    let shift = exponent + i64::from(decimals) - fraction.len() as i64;
    let factor = u32::try_from(shift.unsigned_abs()).ok().and_then(|shift| 10_u128.checked_pow(shift));
    let scaled = match factor {
        Some(factor) if shift >= 0 => number.checked_mul(factor).ok_or(Refused::TooLarge)?,
        Some(factor) if number.is_multiple_of(factor) => number / factor,
        None if shift >= 0 => return Err(Refused::TooLarge),
        _ => return Err(Refused::TooFine),
    };
    u64::try_from(scaled).map_err(|_| Refused::TooLarge)
}

fn power(digits: &[u8]) -> Result<i64, Refused> {
    let number = whole(digits).ok_or(Refused::Malformed)?;
    u32::try_from(number).map(i64::from).map_err(|_| Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_decimals_of_any_form_are_taken() {
        for (field, wanted) in [
            ("1", 100),
            ("1.", 100),
            (".5", 50),
            ("1.500", 150),
            ("15e-1", 150),
            ("1.5E+1", 1500),
            ("0e99999", 0),
            ("0.0000000000", 0),
            ("184467440737095516.15", u64::MAX),
        ] {
            assert_eq!(scaled(field.as_bytes(), 2), Ok(wanted), "{field}");
        }
    }

    #[test]
    fn what_does_not_fit_exactly_is_refused() {
        for (field, wanted) in [
            ("", Refused::Malformed),
            (".", Refused::Malformed),
            ("1e", Refused::Malformed),
            ("1e+", Refused::Malformed),
            ("+1", Refused::Malformed),
            ("-1", Refused::Malformed),
            ("nan", Refused::Malformed),
            ("1.2.3", Refused::Malformed),
            ("1e99999999999", Refused::Malformed),
            ("0.001", Refused::TooFine),
            ("1e-400000", Refused::TooFine),
            ("184467440737095516.16", Refused::TooLarge),
            ("1e30", Refused::TooLarge),
            ("1e400000", Refused::TooLarge),
            ("9999999999999999999999999999999999999999", Refused::TooLarge),
        ] {
            assert_eq!(scaled(field.as_bytes(), 2), Err(wanted), "{field}");
        }
    }
}
