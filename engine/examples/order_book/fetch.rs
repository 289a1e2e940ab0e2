//! Finds the real feed, and fetches it into the target folder the first time.
//!
//! The data is GPL-2.0-or-later, so it is fetched from the Python package that publishes it, and is
//! never part of this repository. Where that can't be done, [`FIXTURE`] stands in.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// A small feed of our own making, for machines without a network. See `tests/order_book.rs`.
pub const FIXTURE: &[u8] = include_bytes!("../../tests/data/orders.csv.gz");
/// What the fixture is called in errors and reports.
pub const FIXTURE_NAME: &str = "engine/tests/data/orders.csv.gz";

const PACKAGE: &str = "ob-analytics==0.1.0";
const MEMBER: &str = "ob_analytics/_sample_data/orders.csv.gz";
const SHA256: &str = "880501e94fb43942b7f98cbc37bab421d72703d85898aae8de5da117bf62cdfc";
const FOLDER: &str = "order_book_data";
const DEADLINE: Duration = Duration::from_secs(120);

/// Why the real feed could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no cargo target folder around this program to keep it in")]
    NoTarget,
    #[error("{path}: {cause}")]
    File { path: String, cause: io::Error },
    #[error("no Python to run pip with: neither `python3` nor `python` is there; `--python` names another one")]
    NoPython,
    #[error("`{program}`, which `--python` names, does not start: {cause}")]
    Python { program: String, cause: io::Error },
    #[error("pip could not download {PACKAGE}: {0}")]
    Pip(String),
    #[error("pip did not finish within {} s", DEADLINE.as_secs())]
    Slow,
    #[error("the package {PACKAGE} is not as expected: {0}")]
    Package(String),
    #[error("the feed's SHA-256 is {0}, expected {SHA256}")]
    Sum(String),
}

/// Gives the path of the real feed; downloads it when it is not there yet, and calls `say` first.
/// It is kept in `cache`, or else in the target folder; `python` runs pip, or else what is there.
///
/// # Errors
/// [`FetchError`]; nothing half-fetched is left in place then.
pub fn real_feed(
    cache: Option<&Path>,
    python: Option<&OsStr>,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf, FetchError> {
    let folder = match cache {
        Some(folder) => folder.to_path_buf(),
        None => target_folder().ok_or(FetchError::NoTarget)?.join(FOLDER),
    };
    let path = folder.join("orders.csv.gz");
    if let Ok(bytes) = fs::read(&path) {
        match check(&bytes) {
            Ok(()) => return Ok(path),
            Err(error) => say(&format!("The feed that was fetched before is damaged ({error}).")),
        }
    }
    say(&format!("Fetching the real feed once, with pip: {PACKAGE} (about 3 MB)."));
    // A folder of our own, so that two runs at a time can't read each other's halves.
    let work = folder.join(format!("download-{}", std::process::id()));
    fs::create_dir_all(&work).map_err(at(&work))?;
    let fetched = download(&work, python).and_then(|bytes| {
        let whole = work.join("orders.csv.gz");
        fs::write(&whole, bytes).map_err(at(&whole))?;
        fs::rename(&whole, &path).map_err(at(&path))
    });
    // Only scratch: what is left of it harms nobody.
    let _ = fs::remove_dir_all(&work);
    fetched.map(|()| path)
}

/// Cargo keeps what it knows of the compiler in its target folder, and marks one that it made itself with a tag; the running
/// program stands somewhere below it.
fn target_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    let program = std::env::current_exe().ok()?;
    let is_cargos =
        |folder: &&Path| [".rustc_info.json", "CACHEDIR.TAG"].iter().any(|name| folder.join(name).is_file());
    program.ancestors().find(is_cargos).map(Path::to_path_buf)
}

fn download(work: &Path, python: Option<&OsStr>) -> Result<Vec<u8>, FetchError> {
    pip(work, python)?;
    let wheel = fs::read_dir(work)
        .map_err(at(work))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension() == Some(OsStr::new("whl")))
        .ok_or_else(|| FetchError::Package("pip left no wheel".into()))?;
    let broken = |cause: zip::result::ZipError| FetchError::Package(cause.to_string());
    let mut archive = zip::ZipArchive::new(File::open(&wheel).map_err(at(&wheel))?).map_err(broken)?;
    let mut bytes = Vec::new();
    archive.by_name(MEMBER).map_err(broken)?.read_to_end(&mut bytes).map_err(at(&wheel))?;
    check(&bytes)?;
    Ok(bytes)
}

fn pip(work: &Path, python: Option<&OsStr>) -> Result<(), FetchError> {
    let log = work.join("pip.log");
    let mut pip = None;
    let usual = ["python3", "python"].map(OsStr::new);
    for program in python.as_ref().map_or(&usual[..], std::slice::from_ref) {
        let stderr = File::create(&log).map_err(at(&log))?;
        let spawned = Command::new(program)
            .args(["-m", "pip", "download", "--quiet", "--no-input"])
            .args(["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"])
            .args(["--disable-pip-version-check", "--retries", "1", "--timeout", "15"])
            .arg("--dest")
            .arg(work)
            .arg(PACKAGE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn();
        match spawned {
            Ok(child) => {
                pip = Some(child);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && python.is_none() => {}
            Err(cause) => return Err(FetchError::Python { program: program.display().to_string(), cause }),
        }
    }
    let mut pip = pip.ok_or(FetchError::NoPython)?;
    let started = Instant::now();
    let status = loop {
        match pip.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < DEADLINE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(None) => {
                let _ = pip.kill();
                let _ = pip.wait();
                return Err(FetchError::Slow);
            }
            Err(error) => return Err(FetchError::Pip(error.to_string())),
        }
    };
    if status.success() {
        return Ok(());
    }
    let log = fs::read_to_string(&log).unwrap_or_default();
    // pip's last word is its reason.
    let last = log.lines().rev().find(|line| !line.trim().is_empty());
    Err(FetchError::Pip(last.map_or(status.to_string(), |line| line.trim().to_string())))
}

fn check(bytes: &[u8]) -> Result<(), FetchError> {
    let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match sum == SHA256 {
        true => Ok(()),
        false => Err(FetchError::Sum(sum)),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> FetchError + use<> {
    let path = path.display().to_string();
    move |cause| FetchError::File { path: path.clone(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_is_not_taken_for_the_feed() {
        let found = check(FIXTURE).unwrap_err().to_string();
        assert!(found.contains(SHA256), "{found}");
    }

    #[test]
    fn the_target_folder_is_found_from_the_program() {
        assert!(target_folder().is_some());
    }

    fn fetch(folder: &Path, python: &Path) -> FetchError {
        let found = real_feed(Some(folder), Some(python.as_os_str()), &mut |_| ()).unwrap_err();
        assert!(!folder.join("orders.csv.gz").exists());
        let left = fs::read_dir(folder).unwrap().flatten();
        assert!(left.map(|e| e.file_name()).all(|name| name == "python"));
        found
    }

    #[test]
    fn without_python_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let found = fetch(folder.path(), Path::new("no-such-python"));
        assert!(matches!(&found, FetchError::Python { program, .. } if program == "no-such-python"), "{found}");
    }

    /// A Python that does with its `--dest` what the test wants.
    #[cfg(unix)]
    fn python(folder: &Path, script: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join("python");
        let script = format!("#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\n{script}\n");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[cfg(unix)]
    #[test]
    fn what_pip_says_last_is_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let python = python(folder.path(), "echo first >&2; echo 'ERROR: no network' >&2; exit 1");
        let found = fetch(folder.path(), &python).to_string();
        assert!(found.ends_with(": ERROR: no network"), "{found}");
    }

    #[cfg(unix)]
    #[test]
    fn a_package_that_is_not_ours_is_refused() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let found = fetch(folder.path(), &python(folder.path(), "exit 0"));
        assert!(found.to_string().contains("no wheel"), "{found}");
        let found = fetch(folder.path(), &python(folder.path(), "echo rubbish >\"$2/a.whl\""));
        assert!(matches!(found, FetchError::Package(_)), "{found}");

        let wheel = tempfile::NamedTempFile::new().unwrap();
        let mut archive = zip::ZipWriter::new(wheel.reopen().unwrap());
        archive.start_file(MEMBER, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(b"another feed").unwrap();
        archive.finish().unwrap();
        let copy = format!("cp '{}' \"$2/a.whl\"", wheel.path().display());
        let found = fetch(folder.path(), &python(folder.path(), &copy));
        assert!(matches!(found, FetchError::Sum(_)), "{found}");
    }
}
