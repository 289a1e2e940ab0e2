//! The files of a result.

pub mod histogram_files;
pub mod page;
pub mod plot;

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::{Format, OutputArgs};
use crate::failure::Failure;
use slipring::text;

/// The directory of a command's results, which is created with the first file.
pub struct Output {
    directory: PathBuf,
    formats: Vec<Format>,
    written: Vec<PathBuf>,
}

/// The directory of all results without `--out`: `target/bench-harness` if there is a folder `target`, otherwise
/// `bench-results`.
fn base() -> &'static Path {
    Path::new(if Path::new("target").is_dir() { "target/bench-harness" } else { "bench-results" })
}

/// Checks that results can be written: creates their directory (without `--out` the one above all results), and a file
/// in it, which is removed.
///
/// # Errors
///
/// [`Failure::File`]: results could not be written there.
pub fn check(arguments: &OutputArgs) -> Result<(), Failure> {
    let directory = arguments.out.as_deref().unwrap_or_else(|| base());
    fs::create_dir_all(directory).map_err(|error| Failure::file(directory, error))?;
    let probe = directory.join(format!(".probe-{}", std::process::id()));
    fs::write(&probe, "bench-harness").map_err(|error| Failure::file(directory, error))?;
    fs::remove_file(&probe).map_err(|error| Failure::file(&probe, error))
}

/// What a command writes of its result. Each text is made only if the user has asked for its format.
pub struct Results<'r, D> {
    /// The document, which is also the JSON.
    pub document: &'r D,
    /// The name of the files, without their endings.
    pub name: &'static str,
    /// The text, which is also printed.
    pub text: fn(&D) -> String,
    /// The lines of comma-separated values.
    pub csv: fn(&D) -> String,
    /// The pictures: the name of each file, without its ending, and its SVG.
    pub pictures: fn(&D) -> Vec<(String, String)>,
    /// The HTML page.
    pub page: fn(&D) -> String,
}

/// A new folder in `dir` for what a command measures. It is removed when the value is dropped.
///
/// # Errors
///
/// [`Failure::File`]: the folder could not be created.
pub fn scratch(dir: &Path) -> Result<tempfile::TempDir, Failure> {
    let made =
        fs::create_dir_all(dir).and_then(|()| tempfile::Builder::new().prefix("slipring-bench-").tempdir_in(dir));
    made.map_err(|error| Failure::file(dir, error))
}

/// The records as comma-separated values below a line of titles. A record is a tuple or struct of the values.
pub fn csv<R: serde::Serialize>(titles: &[&str], records: impl IntoIterator<Item = R>) -> String {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    // Writing to memory fails only if a record has another number of values than there are titles, which is a bug here.
    let written =
        writer.write_record(titles).and_then(|()| records.into_iter().try_for_each(|it| writer.serialize(it)));
    assert!(written.is_ok(), "{written:?}");
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

impl Output {
    /// The output of a command; `label` names the default directory.
    pub fn new(arguments: &OutputArgs, label: &str) -> Self {
        let directory = arguments.out.clone().unwrap_or_else(|| base().join(label));
        Self { directory, formats: arguments.format.clone(), written: Vec::new() }
    }

    /// True if the user has asked for this format.
    pub fn wants(&self, format: Format) -> bool {
        self.formats.contains(&format)
    }

    /// Writes one file.
    ///
    /// # Errors
    ///
    /// [`Failure::File`] with the path.
    pub fn write(&mut self, name: &str, content: &str) -> Result<(), Failure> {
        fs::create_dir_all(&self.directory).map_err(|error| Failure::file(&self.directory, error))?;
        let path = self.directory.join(name);
        fs::write(&path, content).map_err(|error| Failure::file(&path, error))?;
        self.written.push(path);
        Ok(())
    }

    /// Writes a document as JSON.
    ///
    /// # Errors
    ///
    /// [`Failure::File`] with the path.
    pub fn json(&mut self, name: &str, document: &impl serde::Serialize) -> Result<(), Failure> {
        let text =
            serde_json::to_string_pretty(document).map_err(|error| Failure::Invalid(format!("{name}: {error}")))?;
        self.write(name, &(text + "\n"))
    }

    /// Writes a result in every format asked for, and prints its text.
    ///
    /// # Errors
    ///
    /// [`Failure::File`] with the path.
    pub fn results<D: serde::Serialize>(&mut self, results: &Results<'_, D>) -> Result<(), Failure> {
        let Results { document, name, text, csv, pictures, page } = *results;
        if self.wants(Format::Text) {
            let text = text(document);
            println!("{text}");
            self.write(&format!("{name}.txt"), &text)?;
        }
        if self.wants(Format::Json) {
            self.json(&format!("{name}.json"), document)?;
        }
        if self.wants(Format::Csv) {
            self.write(&format!("{name}.csv"), &csv(document))?;
        }
        if self.wants(Format::Svg) {
            for (name, picture) in pictures(document) {
                self.write(&format!("{name}.svg"), &picture)?;
            }
        }
        if self.wants(Format::Html) {
            self.write(&format!("{name}.html"), &page(document))?;
        }
        Ok(())
    }

    /// Prints the names of the files that were written.
    pub fn announce(&self) {
        for path in &self.written {
            println!("wrote {}", path.display());
        }
    }
}

/// Replaces control characters in all texts of a document, which may come from another machine.
fn show_plainly(document: &mut serde_json::Value) {
    match document {
        serde_json::Value::String(shown) => *shown = text::line(&shown).to_string(),
        serde_json::Value::Array(items) => items.iter_mut().for_each(show_plainly),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(show_plainly),
        _ => {}
    }
}

/// Reads a stored JSON document. Its texts are made [safe to print](text::line).
///
/// # Errors
///
/// [`Failure::File`] if it can't be read, [`Failure::Usage`] if it is no such document.
pub fn load<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, error))?;
    serde_json::from_str(&text)
        .and_then(|mut document| {
            show_plainly(&mut document);
            serde_json::from_value(document)
        })
        .map_err(|error| Failure::usage(format!("{}: not a result of this program: {error}", path.display())))
}
