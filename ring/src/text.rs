//! Safe display of text from outside the program: names, causes and values from a file, a socket, a user's handler or
//! another process.
//!
//! Such text can contain characters that a terminal or a log interprets instead of showing: an escape sequence that
//! renames the window, a newline that forges a line of the log, a bidirectional override that reverses a name. These
//! functions write such a character as an escape, for example `\n` or `\u{1b}`.
//!
//! - [`line`](line()) for a cause, a reason or a name inside a sentence. Every error and report of these crates uses
//!   it.
//! - [`value`] for a user's bytes, where two different values must look different.
//! - [`json`] for a JSON document: it writes these characters as `\uXXXX`, so that the document keeps its meaning.
//!
//! ```
//! # use slipring_ring::text;
//! assert_eq!(text::line("no\x1b[2J\nINFO all is well").to_string(), r"no\u{1b}[2J\nINFO all is well");
//! assert_eq!(text::value(b"a\\b").to_string(), r"a\\b");
//! assert_eq!(text::value(b"\xff").to_string(), "0xff");
//! assert_eq!(text::value(b"0xff").to_string(), r"\u{30}xff");
//! assert_eq!(text::json("[\"\u{9b}2J\"]"), "[\"\\u009b2J\"]");
//! ```

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// True for a character that a terminal or a log may interpret or hide: control characters (C0, DEL and C1, including
/// newlines and tabs), bidirectional controls, line and paragraph separators, and invisible format characters. The two
/// joiners (U+200C, U+200D) are excluded, because ordinary words of some languages need them.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Displays `shown` in one line, with every [hidden](is_hidden) character as an escape.
///
/// Applying it twice has no further effect, so that a cause can be nested in another error. A backslash stays a
/// backslash, so two different texts can look equal: use [`value`] for values.
pub fn line<T: Display>(shown: T) -> Line<T> {
    Line(shown)
}

/// The result of [`line`](line()), which implements `Display`.
#[derive(Clone, Copy, Debug)]
pub struct Line<T>(T);

impl<T: Display> Display for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping { into: f, backslash: false }, "{}", self.0)
    }
}

/// Displays the bytes of a user's value in one line. Two different values never look equal.
///
/// - UTF-8 text is shown unchanged, except that a backslash is doubled and every [hidden](is_hidden) character is an
///   escape. Text that begins with `0x` is shown with `\u{30}` for its zero.
/// - Other bytes are shown as `0x` and hexadecimal digits; see [`as_text`].
pub fn value(bytes: &[u8]) -> Value<'_> {
    Value(bytes)
}

/// The text of a value; `None` unless it is UTF-8 without control characters other than tabs and line ends.
pub fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))).then_some(text)
}

/// Displays bytes as lowercase hexadecimal digits, two per byte.
pub fn hex(bytes: &[u8]) -> Hex<'_> {
    Hex(bytes)
}

/// The result of [`hex`], which implements `Display`.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'b>(&'b [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The result of [`value`], which implements `Display`.
#[derive(Clone, Copy, Debug)]
pub struct Value<'b>(&'b [u8]);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match as_text(self.0) {
            Some(text) => {
                let digits = text.strip_prefix("0x");
                if digits.is_some() {
                    write!(f, "{}x", '0'.escape_unicode())?;
                }
                Escaping { into: f, backslash: true }.write_str(digits.unwrap_or(text))
            }
            None => write!(f, "0x{}", hex(self.0)),
        }
    }
}

/// Writes every [hidden](is_hidden) character of a JSON document except newlines as `\uXXXX`. In a string the escape
/// means the same text. Outside the strings of `document` there must be no such character, so no tab or carriage
/// return.
pub fn json(document: &str) -> Cow<'_, str> {
    let escaped = |c: char| c != '\n' && is_hidden(c);
    if !document.contains(escaped) {
        return Cow::Borrowed(document);
    }
    let mut shown = String::with_capacity(document.len());
    for c in document.chars() {
        if escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Writes text to `into`, with its hidden characters escaped.
struct Escaping<'f, W> {
    into: &'f mut W,
    /// True if backslashes are doubled.
    backslash: bool,
}

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        let escaped = |c: char| is_hidden(c) || (self.backslash && c == '\\');
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| escaped(*c)) {
            self.into.write_str(&rest[..at])?;
            write!(self.into, "{}", c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.into.write_str(rest)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// A hidden character of each kind.
    const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\u{7f}\n\r\t\0\u{202e}gpj\u{2066}\u{2028}\u{feff}\u{e0041}";

    #[test]
    fn no_hidden_character_is_shown_as_it_is_and_plain_text_is() {
        let document = format!("[\"{}\"]", HOSTILE.replace('\n', ""));
        for shown in [&line(HOSTILE).to_string(), &value(HOSTILE.as_bytes()).to_string(), &*json(&document)] {
            assert!(!shown.chars().any(is_hidden), "{shown:?}");
        }
        for plain in ["", "größe \"a\" 'b' 漢字 ทดสอบ नमस्ते 👩‍👩‍👧", "می\u{200c}خواهم"]
        {
            assert_eq!(line(plain).to_string(), plain);
            assert_eq!(value(plain.as_bytes()).to_string(), plain);
            assert_eq!(json(plain), plain);
        }
    }

    #[test]
    fn what_is_shown_in_a_line_is_not_changed_again() {
        let once = line(HOSTILE).to_string();
        assert_eq!(line(line(&once)).to_string(), once);
    }

    #[test]
    fn values_that_differ_look_different() {
        let values: [&[u8]; 12] = [
            b"0xff",
            b"\xff",
            b"\\u{30}xff",
            b"0x",
            b"",
            b"\\n",
            b"\n",
            b"\\",
            b"\\\\",
            b"\0",
            b"0x00",
            "\u{202e}".as_bytes(),
        ];
        let shown: std::collections::HashSet<_> = values.iter().map(|bytes| value(bytes).to_string()).collect();
        assert_eq!(shown.len(), values.len(), "{shown:?}");
    }
}
