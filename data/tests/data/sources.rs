//! Every format, and what is said about wrong files.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use gauntlet_data::{Error, Result, Silent, Source, SourceOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::tempdir;

use crate::tools::write;

/// Names and documents of the source at `path`.
fn read(path: &Path, field: &str) -> Result<Vec<(String, Vec<Option<String>>)>> {
    let options = SourceOptions { field: field.to_owned(), ..SourceOptions::default() };
    let source = Source::open(path.to_str().unwrap(), &options)?;
    let documents = |input| source.documents(input, &Silent)?.collect::<Result<Vec<_>>>();
    source.inputs().iter().map(|input| Ok((input.name().to_owned(), documents(input)?))).collect()
}

/// The documents of a source with one input.
fn single(path: &Path, field: &str) -> Result<Vec<Option<String>>> {
    read(path, field).map(|mut inputs| inputs.remove(0).1)
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

#[test]
fn folders_are_read_in_order_and_other_files_counted() {
    let folder = tempdir().unwrap();
    write(folder.path(), "b.txt", "two");
    write(folder.path(), "a/z.md", "one");
    write(folder.path(), "c.jsonl", "{\"text\":\"three\"}\n");
    write(folder.path(), "picture.png", [0xff]);
    write(folder.path(), ".hidden/x.txt", "no");
    let inputs = read(folder.path(), "text").unwrap();
    let expected = [("a/z.md", "one"), ("b.txt", "two"), ("c.jsonl", "three")];
    assert_eq!(inputs, expected.map(|(name, text)| (name.to_owned(), some(&[text]))));
    let source = Source::open(folder.path().to_str().unwrap(), &SourceOptions::default()).unwrap();
    assert_eq!(source.skipped(), 1);
}

#[test]
fn a_named_file_of_any_ending_is_text() {
    let folder = tempdir().unwrap();
    write(folder.path(), "notes.log", "line");
    assert_eq!(single(&folder.path().join("notes.log"), "text").unwrap(), some(&["line"]));
}

#[test]
fn missing_and_empty_sources() {
    let folder = tempdir().unwrap();
    write(folder.path(), "picture.png", "");
    assert!(matches!(read(&folder.path().join("x"), "text"), Err(Error::NotFound { .. })));
    assert!(matches!(read(folder.path(), "text"), Err(Error::EmptySource { .. })));
}

#[cfg(unix)]
#[test]
fn a_loop_of_links_ends() {
    let folder = tempdir().unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
    assert!(matches!(read(folder.path(), "text"), Err(Error::TooDeep { .. })));
}

#[test]
fn wrong_utf8_names_file_and_byte() {
    let folder = tempdir().unwrap();
    write(folder.path(), "sub/bad.txt", b"good \xff");
    write(folder.path(), "lines.jsonl", b"{\"text\":\"ok\"}\n{\"text\":\"\xe9\"}\n");
    let errors = ["sub", "lines.jsonl"].map(|name| read(&folder.path().join(name), "text").unwrap_err());
    assert_eq!(errors[0].to_string(), "bad.txt: not UTF-8 at byte 5; convert the file to UTF-8");
    assert_eq!(errors[1].to_string(), "lines.jsonl: not UTF-8 at byte 23; convert the file to UTF-8");
}

const LINES: &str =
    "\u{feff}{\"text\": \"one\\n\", \"n\": [1, {\"text\": 2}]}\r\n\n{\"n\":0,\"text\":null}\n{\"text\":\"\"}";

#[test]
fn json_lines_plain_gzip_and_zstd() {
    let folder = tempdir().unwrap();
    let mut gzip = Vec::new();
    // Two members behind each other, as `cat a.gz b.gz` makes.
    let (first, second) = LINES.split_at(LINES.find("\n\n").unwrap() + 1);
    for part in [first, second] {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(part.as_bytes()).unwrap();
        gzip.extend(encoder.finish().unwrap());
    }
    write(folder.path(), "a.jsonl", LINES);
    write(folder.path(), "b.jsonl.gz", gzip);
    write(folder.path(), "c.jsonl.zst", zstd::encode_all(LINES.as_bytes(), 1).unwrap());
    for (name, documents) in read(folder.path(), "text").unwrap() {
        assert_eq!(documents, [Some("one\n".to_owned()), None, Some(String::new())], "{name}");
    }
}

#[test]
fn json_lines_errors_name_file_line_and_field() {
    let folder = tempdir().unwrap();
    write(folder.path(), "a.jsonl", "{\"body\":\"x\"}\n{\"body\":3}\n");
    let path = folder.path().join("a.jsonl");
    assert_eq!(
        single(&path, "text").unwrap_err().to_string(),
        "a.jsonl, line 1: no field `text` that holds text; choose the field of the text with --field"
    );
    assert!(matches!(single(&path, "body"), Err(Error::JsonField { line: 2, .. })));
    for wrong in ["{\"text\":\"x\"", "[1]", "{\"text\":\"x\"} {}", "\"text\""] {
        write(folder.path(), "b.jsonl", format!("{{\"text\":\"\"}}\n{wrong}\n"));
        let error = single(&folder.path().join("b.jsonl"), "text").unwrap_err();
        assert!(matches!(error, Error::Json { line: 2, .. }), "{wrong}: {error}");
    }
    write(folder.path(), "c.jsonl.zst", "{}");
    assert!(matches!(single(&folder.path().join("c.jsonl.zst"), "text"), Err(Error::Io { .. })));
}

/// Writes a Parquet file with columns n: INT64, text: optional, body: required; a row group for each of
/// `groups`. Body is the text of the row or `-`.
fn parquet_file(path: &Path, groups: &[&[Option<&str>]], compression: Compression) {
    let schema = "message m { required int64 n; optional binary text (UTF8); required binary body; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for rows in groups {
        let texts: Vec<ByteArray> = rows.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        let bodies: Vec<ByteArray> = rows.iter().map(|text| ByteArray::from(text.unwrap_or("-"))).collect();
        let present: Vec<i16> = rows.iter().map(|text| i16::from(text.is_some())).collect();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&vec![7; rows.len()], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&present), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bodies, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_columns_row_groups_and_codecs() {
    let folder = tempdir().unwrap();
    let many: Vec<String> = (0..1000).map(|i| format!("row {i}")).collect();
    let many: Vec<Option<&str>> = many.iter().map(|row| Some(row.as_str())).collect();
    let groups: [&[Option<&str>]; 4] = [&[Some("a"), None, Some("ü")], &[], &[None], &many];
    for (i, codec) in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::GZIP(Default::default()),
        Compression::LZ4_RAW,
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("{i}.parquet"));
        parquet_file(&path, &groups, codec);
        let texts = single(&path, "text").unwrap();
        let expected: Vec<Option<&str>> = groups.concat();
        assert_eq!(texts.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        let bodies = single(&path, "body").unwrap();
        assert_eq!(bodies.len(), 1004);
        assert_eq!(bodies[1].as_deref(), Some("-"));
    }
}

#[test]
fn parquet_errors() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    parquet_file(&path, &[&[Some("a")]], Compression::UNCOMPRESSED);
    assert_eq!(
        single(&path, "n").unwrap_err().to_string(),
        "a.parquet: no text column `n`; the text columns are text, body; choose one with --field"
    );
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 3, 40, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = single(&path, "text").unwrap_err();
        assert!(matches!(error, Error::Parquet { .. }), "{length}: {error}");
    }
}

#[test]
fn a_damaged_parquet_file_never_panics() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let rows: Vec<Option<&str>> = vec![Some("abc"), None, Some("defg")];
    parquet_file(&path, &[&rows, &rows], Compression::SNAPPY);
    let whole = std::fs::read(&path).unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    let mut put = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    for (at, byte) in whole.iter().enumerate() {
        for flip in [0x01, 0x80, 0xff] {
            put(at, byte ^ flip);
            let _ = single(&path, "text");
        }
        put(at, *byte);
    }
    assert_eq!(single(&path, "text").unwrap().len(), 6);
}
