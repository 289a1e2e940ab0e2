//! The README's first code is the example `quickstart`, so that it is compiled and run.

#[test]
fn the_readme_shows_the_quickstart() {
    let readme = include_str!("../../README.md");
    let (_, code) = readme.split_once("```rust\n").expect("the README has code");
    let (code, _) = code.split_once("```").expect("the code ends");
    let example = include_str!("../examples/quickstart.rs");
    assert_eq!(code, example);
    assert!(example.lines().count() <= 25);
}
