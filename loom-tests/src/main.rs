//! `loom-tests/run`: every model, then every mutant.

use loom_tests::sanitize::Tool;
use loom_tests::{Options, everything};
use std::process::ExitCode;

const USAGE: &str = "loom-tests/run [--quick] [--models] [--filter NAME] [--write-docs] | --miri | --tsan";

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--models" => options.models_only = true,
            "--miri" => options.tool = Some(Tool::Miri),
            "--tsan" => options.tool = Some(Tool::ThreadSanitizer),
            "--write-docs" => options.write_docs = true,
            "--filter" => options.filter = Some(arguments.next().ok_or("--filter needs a part of a name")?),
            other => return Err(format!("{other:?} is no option\n{USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options().and_then(|options| everything(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
    }
}
