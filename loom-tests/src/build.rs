//! Builds of the test binaries with their flags. Each build has a target folder of its own, so that no build makes
//! cargo rebuild another.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test binary, built with its flags.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The path of the program.
    pub path: PathBuf,
    /// The configuration that it was built with.
    pub configuration: Configuration,
}

/// The version of ring's module `sync` that a binary is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// loom; replaced gating sets are not reclaimed.
    Loom,
    /// loom, with crossbeam-epoch under loom as well.
    Reclaim,
    /// shuttle, which runs random schedules.
    Shuttle,
}

impl Configuration {
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Loom => ("loom", "models", "--cfg loom"),
            Self::Reclaim => ("reclaim", "reclaim", "--cfg loom --cfg crossbeam_loom --cfg crossbeam_sanitize"),
            Self::Shuttle => ("shuttle", "shuttle", "--cfg shuttle"),
        }
    }
}

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("loom-tests lies in the workspace")
}

/// Count of tests in the source of a configuration's binary. If the binary has fewer, a file is missing from its
/// `mod`s.
pub fn tests_written(configuration: Configuration) -> Result<usize, String> {
    let (_, test, _) = configuration.parts();
    let folder = workspace().join("loom-tests/tests").join(test);
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut count = 0;
    for file in fs::read_dir(&folder).map_err(wrong)? {
        let source = fs::read_to_string(file.map_err(wrong)?.path()).map_err(wrong)?;
        count += source.lines().filter(|line| line.trim() == "#[test]").count();
    }
    Ok(count)
}

/// The cargo that runs this program, or the one in the path.
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The folder that has the builds' target folders: `CARGO_TARGET_DIR`, or `target` in the workspace.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Builds the test binary of a configuration.
pub fn build(configuration: Configuration) -> Result<Binary, String> {
    build_in(workspace(), &target(), configuration)
}

/// As [`build`], for the workspace in `root` and the target folder `target`.
pub fn build_in(root: &Path, target: &Path, configuration: Configuration) -> Result<Binary, String> {
    let (folder, test, flags) = configuration.parts();
    let built = Command::new(cargo())
        .current_dir(root)
        .args(["test", "-p", "loom-tests", "--profile", "model", "--no-run", "--message-format=json", "--test", test])
        .arg("--target-dir")
        .arg(target.join(folder))
        .env("RUSTFLAGS", flags)
        // The flags of an outer build would override `RUSTFLAGS`.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if !built.status.success() {
        return Err(format!("the {folder} build failed"));
    }
    // Cargo names the package's other programs too, in any order.
    let program = programs(&built.stdout).filter(|program| program.is_test && program.name == test).last();
    let program = program.ok_or_else(|| format!("the {folder} build made no test binary"))?;
    Ok(Binary { path: program.path, configuration })
}

/// A program that cargo has built.
pub struct Program {
    /// The name of its target.
    pub name: String,
    /// True if its target is one of `tests/`.
    pub is_test: bool,
    /// The path of the executable.
    pub path: PathBuf,
}

/// The programs that cargo names in its messages (`--message-format=json`).
pub fn programs(messages: &[u8]) -> impl Iterator<Item = Program> {
    let messages = serde_json::Deserializer::from_slice(messages).into_iter::<serde_json::Value>();
    messages.map_while(Result::ok).filter_map(|message| {
        let (target, path) = (&message["target"], message["executable"].as_str()?);
        let is_test = target["kind"].as_array()?.iter().any(|kind| kind == "test");
        Some(Program { name: target["name"].as_str()?.to_owned(), is_test, path: path.into() })
    })
}
