//! The commands of the documents, with the options that they name, are there.

use std::path::Path;
use std::process::Command;

/// The commands of a page: lines of its code blocks, and quoted pieces of its sentences and tables.
fn commands(page: &str) -> Vec<String> {
    let (blocks, text): (Vec<_>, Vec<_>) =
        page.split("```").enumerate().partition::<Vec<_>, _>(|(index, _)| index % 2 == 1);
    let lines = blocks.into_iter().flat_map(|(_, block)| block.lines());
    let quoted = text.into_iter().flat_map(|(_, text)| text.split('`').skip(1).step_by(2));
    let plain = |command: &str| {
        let command = command.trim().strip_prefix("slipring ").filter(|it| it.starts_with(char::is_alphabetic))?;
        Some(command.split(" #").next()?.split(['|', '>', ';']).next()?.trim().to_owned())
    };
    lines.chain(quoted).filter_map(plain).collect()
}

/// A page told operators of an option that was never there.
#[test]
fn every_command_and_option_of_the_documents_is_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    pages.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    // The page of the journal's bytes quotes layouts, which begin with the same word.
    pages.retain(|page| page.extension().is_some_and(|it| it == "md") && !page.ends_with("JOURNAL_FORMAT.md"));
    pages.sort();
    let (mut tried, mut refused) = (0, Vec::new());
    for page in pages {
        let mut found = commands(&std::fs::read_to_string(&page).unwrap());
        found.sort();
        found.dedup();
        for command in found {
            // Options before the help are read; what is missing is not missed.
            let words = command.split_whitespace().chain(["--help"]);
            let output = Command::new(env!("CARGO_BIN_EXE_slipring")).args(words).output().unwrap();
            tried += 1;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
                refused.push(format!("{}: slipring {command}: {why}", page.file_name().unwrap().display()));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(tried > 40, "only {tried} were tried");
}
