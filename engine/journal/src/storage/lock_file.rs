//! The text of the file `lock`. Its first line names the process that holds the lock.

/// The text that this process writes. `weakness` is empty, or a line that says why the lock is weak.
pub(super) fn text(weakness: &str) -> String {
    format!("process {}\n{weakness}", std::process::id())
}

/// The process that a text names. The file may hold any bytes, so only a process number is taken from it.
pub(super) fn holder(text: &str) -> String {
    let number = text.lines().next().and_then(|line| line.strip_prefix("process ")?.parse::<u32>().ok());
    number.map_or_else(|| "another process".to_owned(), |number| format!("process {number}"))
}
