//! Lines of a JSONL file, read with errors that name file, line and field.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

/// A JSON object and the fields asked of it.
pub(crate) struct Record(Map<String, Value>);

/// Reads every line of `path` that is not blank through `parse`; its problems become errors with the place.
pub(crate) fn read<T>(path: &Path, parse: impl Fn(&Record) -> Result<T, String>) -> Result<Vec<T>> {
    let file = path.display();
    let mut lines = BufReader::new(File::open(path).with_context(|| format!("cannot read {file}"))?);
    let (mut bytes, mut number, mut found) = (Vec::new(), 0, Vec::new());
    while lines.read_until(b'\n', &mut bytes).with_context(|| format!("cannot read {file}"))? > 0 {
        number += 1;
        let record = match std::str::from_utf8(&bytes) {
            Err(_) => Err("not UTF-8; convert the file to UTF-8".to_owned()),
            Ok(line) if line.trim().is_empty() => {
                bytes.clear();
                continue;
            }
            Ok(line) => Record::parse(line),
        };
        let item = record.and_then(|record| parse(&record));
        found.push(item.map_err(|problem| anyhow!("{file}, line {number}: {problem}"))?);
        bytes.clear();
    }
    if found.is_empty() {
        bail!("{file}: no lines; give a file with one JSON object a line");
    }
    Ok(found)
}

impl Record {
    fn parse(line: &str) -> Result<Self, String> {
        match serde_json::from_str(line) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err("not a JSON object; write one object a line".to_owned()),
            Err(e) => Err(format!("not JSON ({e}); write one object a line")),
        }
    }

    /// A string.
    pub(crate) fn text(&self, field: &str) -> Result<&str, String> {
        self.get(field)?.as_str().ok_or_else(|| wrong(field, "a string"))
    }

    /// A list of two strings or more.
    pub(crate) fn texts(&self, field: &str) -> Result<Vec<String>, String> {
        strings(self.get(field)?)
            .filter(|list| list.len() >= 2)
            .ok_or_else(|| wrong(field, "a list of at least two strings"))
    }

    /// A whole number below `count`, also written as a string.
    pub(crate) fn index(&self, field: &str, count: usize) -> Result<usize, String> {
        let value = self.get(field)?;
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        match number.and_then(|n| usize::try_from(n).ok()) {
            Some(index) if index < count => Ok(index),
            _ => Err(wrong(field, &format!("the number of a choice, 0 to {}", count.saturating_sub(1)))),
        }
    }

    /// An object.
    pub(crate) fn object(&self, field: &str) -> Result<Self, String> {
        match self.get(field)? {
            Value::Object(map) => Ok(Self(map.clone())),
            _ => Err(wrong(field, "an object")),
        }
    }

    fn get(&self, field: &str) -> Result<&Value, String> {
        self.0.get(field).ok_or_else(|| format!("field `{field}` is missing; is this the right --task?"))
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The message for a field of the wrong kind.
pub(crate) fn wrong(field: &str, expected: &str) -> String {
    format!("field `{field}` is not {expected}")
}
