//! Wait strategies as text: a name, and settings by commas.

use slipring_ring::Wait;

use crate::quantity::duration;

/// Reads `spin-then-park` or `spin-then-park,pause=0ns,spin=80us,yields=20`.
///
/// # Errors
///
/// What is wrong with the text, and the forms that are expected.
pub fn parse(text: &str) -> Result<Wait, String> {
    let mut words = text.split(',');
    let name = words.next().unwrap_or_default();
    let wait: Wait = name.parse().map_err(|error: slipring_ring::UnknownWait| error.to_string())?;
    words.try_fold(wait, |wait, word| {
        let (setting, value) = word.split_once('=').unwrap_or((word, ""));
        let wrong = || format!("`{word}` is no setting of a wait: pause=720ns, spin=80us or yields=20");
        // A number without a unit would be seconds.
        let has_unit = value == "0" || value.ends_with(char::is_alphabetic);
        let time = || duration(value).ok().filter(|_| has_unit).ok_or_else(wrong);
        match setting {
            "pause" => Ok(wait.pause(time()?)),
            "spin" => Ok(wait.spin_for(time()?)),
            "yields" => Ok(wait.yields(value.parse().map_err(|_| wrong())?)),
            _ => Err(wrong()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn settings_follow_the_name() {
        assert_eq!(parse("spin"), Ok(Wait::spin()));
        let asked = Wait::spin_then_park().pause(Duration::ZERO).spin_for(Duration::from_micros(9)).yields(3);
        assert_eq!(parse("spin-then-park,pause=0,spin=9us,yields=3"), Ok(asked));
        for wrong in ["sleepy", "spin,pause", "spin,pause=9", "spin,yields=x", "spin,naps=3", "spin,"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
