//! `report`: writes the tables and charts of a stored result again, from its JSON alone.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Format, OutputArgs};
use crate::failure::Failure;
use crate::growth::GrowthDocument;
use crate::output::{Output, load};
use crate::peers::PeersDocument;
use crate::run::document::RunDocument;
use crate::sweep::SweepDocument;

/// Options of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A directory with run.json, peers.json, sweep.json or growth.json
    pub dir: PathBuf,
    /// What to write, by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Format::Text, Format::Html])]
    pub format: Vec<Format>,
}

/// Runs `report`.
///
/// # Errors
///
/// [`Failure`]: the directory has no result, or one that can't be read.
pub fn command(arguments: &ReportArgs) -> Result<(), Failure> {
    let directory = &arguments.dir;
    if let Err(missing) = std::fs::read_dir(directory) {
        return Err(Failure::file(directory, missing));
    }
    let into = OutputArgs { out: Some(directory.clone()), format: arguments.format.clone() };
    let mut output = Output::new(&into, "");
    let mut found = false;
    let run = directory.join("run.json");
    if run.is_file() {
        found = true;
        crate::run::render::write_document(&load::<RunDocument>(&run)?, &mut output)?;
    }
    let peers = directory.join("peers.json");
    if peers.is_file() {
        found = true;
        crate::peers::write(&load::<PeersDocument>(&peers)?, &mut output)?;
    }
    let sweep = directory.join("sweep.json");
    if sweep.is_file() {
        found = true;
        crate::sweep::write(&load::<SweepDocument>(&sweep)?, &mut output)?;
    }
    let growth = directory.join("growth.json");
    if growth.is_file() {
        found = true;
        crate::growth::write(&load::<GrowthDocument>(&growth)?, &mut output)?;
    }
    if !found {
        return Err(Failure::usage(format!(
            "{} holds no run.json, peers.json, sweep.json or growth.json; make one with --out {} --format json",
            directory.display(),
            directory.display()
        )));
    }
    output.announce();
    Ok(())
}
