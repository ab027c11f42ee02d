//! JSON lines: one object a line, one field of it the document. Plain, gzip or zstd.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Compression, Counted};
use crate::error::{Error, Result};

/// Rows of a JSONL file. Holds one line at a time.
pub(super) struct Rows {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    name: String,
    field: String,
    line: u64,
    offset: u64,
    buffer: Vec<u8>,
    failed: bool,
}

impl Rows {
    /// Rows of `reader`, the stored bytes of `path`.
    pub(super) fn open(
        reader: Counted,
        path: &Path,
        name: &str,
        compression: Compression,
        field: &str,
    ) -> Result<Self> {
        let reader: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(reader.buffered()),
            Compression::Gzip => {
                Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(reader.buffered())))
            }
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(reader.buffered());
                Box::new(BufReader::new(decoder.map_err(Error::io(path, "read zstd"))?))
            }
        };
        Ok(Self {
            reader,
            path: path.to_path_buf(),
            name: name.to_owned(),
            field: field.to_owned(),
            line: 0,
            offset: 0,
            buffer: Vec::new(),
            failed: false,
        })
    }

    /// The next line that is not blank.
    fn row(&mut self) -> Result<Option<Option<String>>> {
        loop {
            self.offset += self.buffer.len() as u64;
            self.buffer.clear();
            self.line += 1;
            let count = self.reader.read_until(b'\n', &mut self.buffer);
            if count.map_err(Error::io(&self.path, "read"))? == 0 {
                return Ok(None);
            }
            let line = std::str::from_utf8(&self.buffer).map_err(|e| Error::Utf8 {
                file: self.name.clone(),
                offset: self.offset + e.valid_up_to() as u64,
            })?;
            // A byte-order mark is allowed in front of the first line.
            let line = line.trim_start_matches('\u{feff}').trim();
            if !line.is_empty() {
                return self.document(line).map(Some);
            }
        }
    }

    /// The text of one line; none if the field is null.
    fn document(&self, line: &str) -> Result<Option<String>> {
        let mut json = serde_json::Deserializer::from_str(line);
        let found = Field(&self.field).deserialize(&mut json).and_then(|found| json.end().map(|()| found));
        let found = found.map_err(|e| Error::Json {
            file: self.name.clone(),
            line: self.line,
            message: e.to_string(),
        })?;
        match found {
            Found::Text(text) => Ok(Some(text)),
            Found::Null => Ok(None),
            Found::Absent | Found::Other => {
                Err(Error::JsonField { file: self.name.clone(), line: self.line, field: self.field.clone() })
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.row().transpose();
        self.failed = matches!(row, Some(Err(_)));
        row
    }
}

/// What an object holds in the field looked for.
enum Found {
    Absent,
    Null,
    Text(String),
    Other,
}

/// Takes one field out of an object without building the others.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Found, A::Error> {
        let mut found = Found::Absent;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                found = match map.next_value::<serde_json::Value>()? {
                    serde_json::Value::String(text) => Found::Text(text),
                    serde_json::Value::Null => Found::Null,
                    _ => Found::Other,
                };
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
