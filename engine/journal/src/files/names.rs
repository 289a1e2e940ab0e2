//! The names of a journal's files.

use crate::format::MAX_POSITION;

/// The name of the checkpoint file.
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// The name of the file that is locked while a program has the journal open. Its text names the process.
pub(crate) const LOCK: &str = "lock";

/// The name of a segment's file. All names have one length, so they sort by segment number.
pub fn segment_name(number: u64) -> String {
    format!("{number:020}.segment")
}

/// The segment number in a file name; `None` if the name is not a segment's.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { digits.parse().ok() } else { None };
    number.filter(|number| (1..MAX_POSITION).contains(number))
}

pub(crate) fn index_name(number: u64) -> String {
    format!("{number:020}.index")
}

/// The suffix of a file that is still being created.
pub(crate) const UNFINISHED: &str = ".new";

/// True if the journal may have created a file of this name. Files with other names are left alone.
pub(crate) fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
    let put_aside = |name: &str| {
        let name = name.strip_suffix(".bin")?;
        let numbers = name.strip_prefix("torn-").or_else(|| name.strip_prefix("damaged-"))?;
        let (position, turn) = numbers.split_once('-')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        Some(position.len() == 20 && digits(position) && digits(turn))
    };
    let index = || name.strip_suffix(".index").map(|number| format!("{number}.segment"));
    let numbered = |name: &str| segment_number(name).is_some();
    [CHECKPOINT, LOCK].contains(&name)
        || numbered(name)
        || index().is_some_and(|segment| numbered(&segment))
        || put_aside(name) == Some(true)
}
