//! `loom-tests/run`: every model, then every mutant.

use loom_tests::edits::Part;
use loom_tests::sanitize::Tool;
use loom_tests::trial::Draw;
use loom_tests::{Options, everything};
use std::process::ExitCode;

const USAGE: &str = "loom-tests/run [--quick] [--models] [--filter NAME] [--write-docs] | --miri | --tsan | \
    --generated SEED COUNT [close]";

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
            "--generated" => {
                let mut number = || arguments.next().and_then(|number| number.parse::<u32>().ok());
                let (seed, count) = number().zip(number()).ok_or("--generated needs a seed and a count")?;
                let part = match arguments.next().as_deref() {
                    None => Part::Ring,
                    Some("close") => Part::Close,
                    Some(other) => return Err(format!("{other:?} is no part of ring\n{USAGE}")),
                };
                options.draw = Some(Draw { seed: seed.into(), count: count as usize, part });
            }
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
