//! The header is what cbindgen makes from the source. `SLIPRING_BLESS=1` writes it.

use std::path::Path;

#[test]
fn the_header_is_that_of_the_source() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).unwrap();
    // The other files are found from there.
    let builder = cbindgen::Builder::new().with_config(config).with_src(package.join("src/lib.rs"));
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let path = package.join("include/slipring.h");
    if std::env::var_os("SLIPRING_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let made = String::from_utf8(made).unwrap();
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(there, made, "SLIPRING_BLESS=1 cargo test -p slipring-capi --test header");
}
