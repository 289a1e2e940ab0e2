//! Runs the program and reads its files.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Runs the program with these words.
pub fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench-harness")).args(words).current_dir(std::env::temp_dir()).output().unwrap()
}

/// Runs the program with these words and returns its exit code.
pub fn code(words: &[&str]) -> i32 {
    bench(words).status.code().unwrap()
}

/// A directory for one test, removed when this is dropped.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new(name: &str) -> Self {
        Self(tempfile::Builder::new().prefix(&format!("bench-test-{name}-")).tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap()
    }

    pub fn json(&self, file: &str) -> Value {
        serde_json::from_str(&self.read(file)).unwrap()
    }
}

/// The JSON Schema of this name.
pub fn schema(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Checks a value by the part of JSON Schema that the contracts use. Any other word in a schema is a failure, since it would
/// not be checked.
pub fn check(schema: &Value, value: &Value, at: &str) {
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "$schema" | "title" | "properties" => {}
            "type" => {
                let wanted: Vec<&str> = match rule {
                    Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
                    kind => vec![kind.as_str().unwrap()],
                };
                assert!(wanted.iter().any(|kind| is_of(value, kind)), "{at}: {value} is no {rule}");
            }
            "const" => assert_eq!(value, rule, "{at}"),
            "enum" => assert!(rule.as_array().unwrap().contains(value), "{at}: {value}"),
            "required" => {
                for name in rule.as_array().unwrap() {
                    assert!(value.get(name.as_str().unwrap()).is_some(), "{at}: no {name}");
                }
            }
            "items" => {
                for (index, item) in value.as_array().unwrap().iter().enumerate() {
                    check(rule, item, &format!("{at}[{index}]"));
                }
            }
            "additionalProperties" => {
                for name in value.as_object().unwrap().keys() {
                    assert!(schema["properties"].get(name).is_some(), "{at}: unknown {name}");
                }
            }
            other => panic!("{at}: the schema uses {other}, which is not checked"),
        }
    }
    if let Some(properties) = schema.get("properties") {
        for (name, rule) in properties.as_object().unwrap() {
            if let Some(value) = value.get(name) {
                check(rule, value, &format!("{at}.{name}"));
            }
        }
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        _ => false,
    }
}
