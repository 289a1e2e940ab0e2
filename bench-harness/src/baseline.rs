//! `baseline`: stores results under names.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::failure::Failure;

/// Options of `baseline`.
#[derive(Debug, Args)]
pub struct BaselineArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: BaselineAction,
    /// Directory of the baselines [default: bench-harness/baselines in the user's data directory]
    #[arg(long, env = "BENCH_HARNESS_STORE", global = true)]
    pub store: Option<PathBuf>,
}

/// What to do with baselines.
#[derive(Debug, Subcommand)]
pub enum BaselineAction {
    /// Keep the result in DIR under a name
    Save {
        /// The name
        name: String,
        /// A directory with run.json or peers.json
        dir: PathBuf,
    },
    /// List them
    Ls,
    /// Remove one
    Rm {
        /// The name
        name: String,
    },
}

const FILES: [&str; 2] = ["run.json", "peers.json"];

/// The directory of the baselines: `given`, or one in the user's data directory.
///
/// # Errors
///
/// [`Failure::Usage`] if neither is known.
pub fn directory(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))
        .map(|base| base.join("bench-harness/baselines"))
        .ok_or_else(|| Failure::usage("no home directory is known: say --store DIR"))
}

/// Runs `baseline`.
///
/// # Errors
///
/// [`Failure::Usage`] or [`Failure::File`].
pub fn command(arguments: &BaselineArgs) -> Result<(), Failure> {
    let store = directory(arguments.store.as_deref())?;
    match &arguments.action {
        BaselineAction::Save { name, dir } => save(&store, name, dir),
        BaselineAction::Ls => list(&store),
        BaselineAction::Rm { name } => {
            let path = store.join(checked(name)?);
            if !path.is_dir() {
                return Err(Failure::usage(format!("there is no baseline {name}")));
            }
            fs::remove_dir_all(&path).map_err(|error| Failure::file(&path, error))?;
            println!("removed {name}");
            Ok(())
        }
    }
}

/// Returns `name` if it has only ASCII letters, digits, `-`, `_` and `.`, and does not begin with `.`: then it can't
/// lead out of the store.
fn checked(name: &str) -> Result<&str, Failure> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Failure::usage(format!(
            "`{name}` is not a name: letters, digits, '-', '_' and '.', not beginning with '.'"
        )));
    }
    Ok(name)
}

fn save(store: &Path, name: &str, from: &Path) -> Result<(), Failure> {
    let into = store.join(checked(name)?);
    let results: Vec<&str> = FILES.into_iter().filter(|file| from.join(file).is_file()).collect();
    if results.is_empty() {
        return Err(Failure::usage(format!("{} holds no run.json and no peers.json", from.display())));
    }
    fs::create_dir_all(&into).map_err(|error| Failure::file(&into, error))?;
    for file in FILES {
        let (source, target) = (from.join(file), into.join(file));
        if source.is_file() {
            fs::copy(&source, &target).map_err(|error| Failure::file(&target, error))?;
        } else {
            // A baseline is one result: an older result of the other kind is removed.
            let _ = fs::remove_file(&target);
        }
    }
    println!("saved {name} ({})", results.join(", "));
    Ok(())
}

fn list(store: &Path) -> Result<(), Failure> {
    let mut names: Vec<String> = match fs::read_dir(store) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::file(store, error)),
    };
    names.sort();
    for name in &names {
        let kept: Vec<&str> = FILES.into_iter().filter(|file| store.join(name).join(file).is_file()).collect();
        println!("{name}  {}", kept.join(", "));
    }
    if names.is_empty() {
        println!("no baselines in {}", store.display());
    }
    Ok(())
}
