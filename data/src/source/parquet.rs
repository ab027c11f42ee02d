//! Parquet: one column of text, one document a row. Row groups are opened one after another; of an open one,
//! a batch of rows is in memory.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::IntoIter;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::ByteArrayType;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::error::{Error, Result};

/// Rows decoded at once.
const BATCH_ROWS: usize = 256;

/// Rows of a Parquet file.
pub(super) struct Rows {
    file: SerializedFileReader<File>,
    name: String,
    column: usize,
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    batch: IntoIter<Option<String>>,
    row: u64,
    consumed: Arc<AtomicU64>,
    failed: bool,
}

impl Rows {
    /// Rows of column `field` (dots for nested names) of the file at `path`.
    pub(super) fn open(path: &Path, name: &str, field: &str, consumed: Arc<AtomicU64>) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let file = SerializedFileReader::new(file).map_err(|e| bad(name, &e))?;
        let column = column(&file, name, field)?;
        let batch = Vec::new().into_iter();
        let name = name.to_owned();
        Ok(Self { file, name, column, group: 0, reader: None, batch, row: 0, consumed, failed: false })
    }

    /// Decodes the next batch; false at the end of the file.
    fn fill(&mut self) -> Result<bool> {
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None if self.group == self.file.num_row_groups() => return Ok(false),
                None => {
                    let group = self.file.get_row_group(self.group).map_err(|e| bad(&self.name, &e))?;
                    let reader = group.get_column_reader(self.column).map_err(|e| bad(&self.name, &e))?;
                    let ColumnReader::ByteArrayColumnReader(reader) = reader else {
                        return Err(bad(&self.name, &"the column changes its type between row groups"));
                    };
                    self.reader.insert(reader)
                }
            };
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let (rows, _, _) = reader
                .read_records(BATCH_ROWS, Some(&mut levels), None, &mut values)
                .map_err(|e| bad(&self.name, &e))?;
            if rows == 0 {
                let bytes = self.file.metadata().row_group(self.group).compressed_size();
                self.consumed.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
                self.reader = None;
                self.group += 1;
                continue;
            }
            let defined =
                self.file.metadata().file_metadata().schema_descr().column(self.column).max_def_level();
            let mut values = values.into_iter();
            let mut batch = Vec::with_capacity(rows);
            for i in 0..rows {
                // Required columns have no definition levels: every row has a value.
                let present = defined == 0 || levels.get(i) == Some(&defined);
                let bytes = if present { values.next() } else { None };
                let text = bytes.map(|bytes| String::from_utf8(bytes.data().to_vec())).transpose();
                let message = format!("row {} of the column is not UTF-8", self.row + i as u64);
                batch.push(text.map_err(|_| bad(&self.name, &message))?);
            }
            self.row += rows as u64;
            self.batch = batch.into_iter();
            return Ok(true);
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(text) = self.batch.next() {
            return Some(Ok(text));
        }
        if self.failed {
            return None;
        }
        // Crate parquet answers some damaged pages with a panic, and a file must not end the process. After an
        // error nothing of this reader is used again.
        let filled = catch_unwind(AssertUnwindSafe(|| self.fill())).unwrap_or_else(|_| {
            Err(bad(&self.name, "its pages are damaged; copy or download the file again"))
        });
        match filled {
            Ok(true) => self.batch.next().map(Ok),
            Ok(false) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// The index of the text column `field`: bytes, and one value a row.
fn column(file: &SerializedFileReader<File>, name: &str, field: &str) -> Result<usize> {
    let schema = file.metadata().file_metadata().schema_descr();
    let text = |i: usize| {
        let column = schema.column(i);
        (column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0)
            .then(|| column.path().string())
    };
    let names: Vec<(usize, String)> =
        (0..schema.num_columns()).filter_map(|i| text(i).map(|name| (i, name))).collect();
    match names.iter().find(|(_, column)| column == field) {
        Some((i, _)) => Ok(*i),
        None => Err(Error::ParquetColumn {
            file: name.to_owned(),
            column: field.to_owned(),
            found: names.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", "),
        }),
    }
}

fn bad(name: &str, message: &(impl ToString + ?Sized)) -> Error {
    Error::Parquet { file: name.to_owned(), message: message.to_string() }
}
