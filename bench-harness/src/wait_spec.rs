//! Wait strategies as text: a name, and settings by commas.

use slipring_ring::Wait;

/// Reads `spin-then-park` or `spin-then-park,pause=0,spins=2000,yields=20`.
///
/// # Errors
///
/// What is wrong with the text, and the forms that are expected.
pub fn parse(text: &str) -> Result<Wait, String> {
    let mut words = text.split(',');
    let name = words.next().unwrap_or_default();
    let wait: Wait = name.parse().map_err(|error: slipring_ring::UnknownWait| error.to_string())?;
    words.try_fold(wait, |wait, word| {
        let (setting, number) = word.split_once('=').unwrap_or((word, ""));
        let wrong = || format!("`{word}` is no setting of a wait: pause=N, spins=N or yields=N");
        let number = number.parse().map_err(|_| wrong())?;
        match setting {
            "pause" => Ok(wait.pause(number)),
            "spins" => Ok(wait.spins(number)),
            "yields" => Ok(wait.yields(number)),
            _ => Err(wrong()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_the_name() {
        assert_eq!(parse("spin"), Ok(Wait::spin()));
        let asked = Wait::spin_then_park().pause(0).spins(9).yields(3);
        assert_eq!(parse("spin-then-park,pause=0,spins=9,yields=3"), Ok(asked));
        for wrong in ["sleepy", "spin,pause", "spin,pause=x", "spin,naps=3", "spin,"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
