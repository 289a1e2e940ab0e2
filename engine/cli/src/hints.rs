//! The commands that answer what operators ask, in the help and for words that are no commands here.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Shown below the help of the command `slipring`.
pub(crate) const QUESTIONS: &str = "\
Questions and their commands. DIR is the directory of a journal; SOCKET is what the program gave Engine::builder().observe.
  What runs, and how fast?            slipring top --socket SOCKET
                                      slipring top --socket SOCKET --web
  Which topics, which offsets?        slipring topic ls DIR
                                      slipring topic describe DIR TOPIC
  Who is behind, and how far (lag)?   slipring group ls DIR
                                      slipring group describe DIR GROUP
  Read again from the beginning?      slipring group reset DIR GROUP --to-earliest --dry-run
  What is leased, delayed or dead?    slipring queue ls DIR
                                      slipring queue peek DIR TOPIC QUEUE --dead
  What do the records say?            slipring journal tail DIR -f
                                      slipring journal export DIR --topic TOPIC
  Is it sound? A backup?              slipring journal verify DIR
                                      slipring journal copy DIR BACKUP
  What is between processes?          slipring shm ls";

/// For words that other systems' commands have: the command that does it here.
const ELSEWHERE: [(&[&str], &str); 9] = [
    (
        &["lag", "behind", "consumer", "consumers", "member", "members", "offset", "offsets"],
        "slipring group describe DIR GROUP",
    ),
    (&["reset-offsets", "seek", "rewind"], "slipring group reset DIR GROUP --to-earliest --dry-run"),
    (&["ls", "list", "partition", "partitions"], "slipring topic ls DIR"),
    (&["purge"], "slipring queue purge DIR TOPIC QUEUE --dry-run"),
    (&["dead", "dead-letters", "dlq", "peek", "lease", "leases"], "slipring queue peek DIR TOPIC QUEUE --dead"),
    (&["retry", "redrive"], "slipring queue redrive DIR TOPIC QUEUE --dry-run"),
    (&["dump", "export", "records", "events", "consume"], "slipring journal export DIR --topic TOPIC"),
    (&["backup"], "slipring journal copy DIR BACKUP"),
    (&["metrics", "monitor", "stats", "status", "watch", "web"], "slipring top --socket SOCKET"),
];

/// The words of `slipring journal`, which people also type without it.
const OF_THE_JOURNAL: [&str; 7] = ["cat", "convert", "copy", "repair", "stat", "tail", "verify"];

/// The command that does what the unknown subcommand of `refused` means elsewhere; `None` if no subcommand is unknown or
/// nothing is known of its word.
pub(crate) fn elsewhere(refused: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = refused.get(ContextKind::InvalidSubcommand) else { return None };
    if refused.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    of(word)
}

fn of(word: &str) -> Option<String> {
    let known = ELSEWHERE.iter().find(|(words, _)| words.contains(&word)).map(|(_, command)| (*command).to_owned());
    known.or_else(|| OF_THE_JOURNAL.contains(&word).then(|| format!("slipring journal {word} DIR")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arguments;
    use clap::CommandFactory;

    /// Each command that a hint or the help names is there, with its options.
    #[test]
    fn what_the_hints_name_is_there() {
        let words = ELSEWHERE.iter().flat_map(|(words, _)| *words).chain(&OF_THE_JOURNAL);
        let hints: Vec<String> = words.map(|word| of(word).unwrap()).collect();
        let named = QUESTIONS.lines().filter_map(|line| line.find("slipring ").map(|at| line[at..].to_owned()));
        let mut tried = 0;
        for command in hints.into_iter().chain(named) {
            let words = command.split_whitespace().chain(["--help"]);
            let refused = Arguments::command().try_get_matches_from(words).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::DisplayHelp, "{command}: {refused}");
            tried += 1;
        }
        assert!(tried > 40, "only {tried} were tried");
    }

    #[test]
    fn a_word_of_another_system_is_answered_with_the_command_that_does_it_here() {
        let of = |words: &[&str]| {
            let refused = Arguments::command().try_get_matches_from([&["slipring"], words].concat()).unwrap_err();
            elsewhere(&refused)
        };
        assert_eq!(of(&["lag"]).unwrap(), "slipring group describe DIR GROUP");
        assert_eq!(of(&["group", "offsets", "DIR"]).unwrap(), "slipring group describe DIR GROUP");
        assert_eq!(of(&["verify", "DIR"]).unwrap(), "slipring journal verify DIR");
        assert_eq!((of(&["nonsense"]), of(&["group", "ls"]), of(&["--help"])), (None, None, None));
    }
}
