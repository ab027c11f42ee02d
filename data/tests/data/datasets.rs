//! Sequences over shards: every id full, borders crossed, wrong files found.

use std::fs::OpenOptions;

use gauntlet_data::{
    Dataset, Error, Manifest, PrepareOptions, Silent, Split, Tokenizer, fill_sequences, prepare, verify,
};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use crate::tools::write;

/// Two files of bytes prepared with small shards: the tokens are the bytes, EOS after each.
fn prepared(max_tokens_per_shard: u64) -> (TempDir, std::path::PathBuf, Vec<u32>) {
    let folder = tempdir().unwrap();
    let texts = ["abcdefghij".repeat(13), "0123456789".repeat(9)];
    let (source, out) = (folder.path().join("in"), folder.path().join("out"));
    write(&source, "a.txt", &texts[0]);
    write(&source, "b.txt", &texts[1]);
    let mut options = PrepareOptions::new(Some(source.display().to_string()), out.clone());
    options.max_tokens_per_shard = max_tokens_per_shard;
    prepare(&options, &Silent).unwrap();
    let tokens = texts.iter().flat_map(|text| text.bytes().map(u32::from).chain([256])).collect();
    (folder, out, tokens)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_id_is_a_full_sequence(limit in 1u64..140, lengths in proptest::collection::vec(1usize..240, 4)) {
        let (_folder, out, tokens) = prepared(limit);
        let data = Dataset::open(&out, Split::Train).unwrap();
        let memory = Dataset::from_tokens("memory", tokens.clone(), 257).unwrap();
        prop_assert_eq!(data.n_tokens(), tokens.len() as u64);
        for t in lengths {
            match data.n_sequences(t) {
                Err(error) => {
                    prop_assert!(t + 1 > tokens.len());
                    let long = matches!(error, Error::SequenceTooLong { .. });
                    prop_assert!(long);
                }
                Ok(count) => {
                    prop_assert_eq!(count, ((tokens.len() - 1) / t) as u64);
                    prop_assert_eq!(memory.n_sequences(t).unwrap(), count);
                    let mut out = vec![0; t + 1];
                    for (i, expected) in (0..count).zip((0..).step_by(t)) {
                        for data in [&data, &memory] {
                            data.read_sequence(i, &mut out).unwrap();
                            prop_assert_eq!(&out[..], &tokens[expected..=expected + t]);
                        }
                    }
                    let beyond = data.read_sequence(count, &mut out);
                    let range = matches!(beyond, Err(Error::SequenceRange { .. }));
                    prop_assert!(range);
                }
            }
        }
    }
}

#[test]
fn reads_beyond_the_end() {
    let (_folder, out, tokens) = prepared(50);
    let data = Dataset::open(&out, Split::Train).unwrap();
    let n = tokens.len() as u64;
    data.read(n - 1, &mut [0]).unwrap();
    assert!(matches!(data.read(n - 1, &mut [0; 2]), Err(Error::TokenSpan { .. })));
    assert!(matches!(data.read(u64::MAX, &mut [0; 2]), Err(Error::TokenSpan { .. })));
    assert!(matches!(data.read_sequence(0, &mut [0]), Err(Error::ZeroLength)));
    assert!(matches!(data.read_sequence(0, &mut []), Err(Error::ZeroLength)));
}

#[test]
fn a_truncated_shard_is_found_at_open() {
    let (_folder, out, _) = prepared(50);
    let shard = out.join("train-000000-0001.bin");
    OpenOptions::new().write(true).open(&shard).unwrap().set_len(99).unwrap();
    let error = Dataset::open(&out, Split::Train).unwrap_err().to_string();
    let expected = format!(
        "{}: shard has 99 bytes, its manifest says 100; copy it again or prepare the data again",
        shard.display()
    );
    assert_eq!(error, expected);
    std::fs::remove_file(&shard).unwrap();
    assert!(matches!(Dataset::open(&out, Split::Train), Err(Error::Io { .. })));
    assert_eq!(verify(&out, &Silent).unwrap().problems.len(), 1);
}

#[test]
fn a_changed_shard_gives_no_token() {
    let (_folder, out, _) = prepared(50);
    let shard = out.join("train-000000-0001.bin");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let data = Dataset::open(&out, Split::Train).unwrap();
    let mut tokens = [0; 33];
    data.read_sequence(0, &mut tokens).unwrap();
    for error in [data.read_sequence(1, &mut tokens), data.check_shards()] {
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::ShardHash { path, .. } if *path == shard), "{error}");
        assert!(error.to_string().contains("prepare the data again"), "{error}");
    }
}

#[test]
fn a_wrong_token_is_found_when_read_and_verified() {
    let (_folder, out, _) = prepared(50);
    let shard = out.join("train-000000-0001.bin");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[21] = 1;
    // As a preparation with another tokenizer would have left it.
    let path = out.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["splits"]["train"]["shards"][1]["blake3"] = blake3::hash(&bytes).to_hex().as_str().into();
    std::fs::write(path, manifest.to_string()).unwrap();
    std::fs::write(&shard, bytes).unwrap();
    let data = Dataset::open(&out, Split::Train).unwrap();
    let (mut tokens, mut targets) = ([0; 32], [0; 32]);
    fill_sequences(&data, &[0], 32, &mut tokens, &mut targets).unwrap();
    let error = fill_sequences(&data, &[1], 32, &mut tokens, &mut targets).unwrap_err();
    let token = match &error {
        Error::TokenRange { offset: 10, token, vocab_size: 257, .. } => *token,
        other => panic!("{other}"),
    };
    assert!(token > 256 && error.to_string().starts_with(shard.to_str().unwrap()), "{error}");
    let report = verify(&out, &Silent).unwrap();
    assert_eq!((report.is_sound(), report.shards, &report.problems[0]), (false, 5, &error.to_string()));
}

#[test]
fn a_changed_shard_fails_verification() {
    let (_folder, out, tokens) = prepared(50);
    let sound = verify(&out, &Silent).unwrap();
    assert!(sound.is_sound());
    assert_eq!((sound.tokens, sound.bytes), (tokens.len() as u64, 2 * tokens.len() as u64));
    let shard = out.join("train-000001-0000.bin");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[0] = b'x';
    std::fs::write(&shard, bytes).unwrap();
    let report = verify(&out, &Silent).unwrap();
    assert!(report.problems[0].contains("train-000001-0000.bin: content differs"), "{:?}", report.problems);
}

#[test]
fn wrong_manifests() {
    let (folder, out, _) = prepared(50);
    let path = out.join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, message) in [
        ("\"format\": 1", "\"format\": 2", "field `format` is 2"),
        ("\"format\": 1", "\"format\": 1, \"extra\": 0", "unknown field `extra`"),
        ("\"tokens\": 222", "\"tokens\": 221", "are not the sums"),
        ("\"train-000000-0000.bin\"", "\"../train-000000-0000.bin\"", "not a plain file name"),
        ("\"u16\"", "\"u32\"", "field `dtype`"),
        ("\"tokens\": 50", "\"tokens\": 18446744073709551615", "impossible counts"),
        ("{", "", "expected"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = Manifest::read(&out).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("manifest.json"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Dataset::open(&out, Split::Train), Err(Error::Unfinished { .. })));
    assert!(matches!(Dataset::open(&folder.path().join("x"), Split::Train), Err(Error::NotFound { .. })));
}

#[test]
fn a_split_that_is_not_there() {
    let (_folder, out, _) = prepared(1000);
    let error = Dataset::open(&out, Split::Validation).unwrap_err().to_string();
    assert!(error.contains("no split `validation`, it holds train; choose one of these"), "{error}");
}

#[test]
fn large_vocabularies_take_four_bytes() {
    let folder = tempdir().unwrap();
    write(folder.path(), "in/a.txt", "b a b");
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 1, "b": 70_000, "</s>": 2}, "unk_token": "a"},
    });
    write(folder.path(), "tokenizer.json", json.to_string());
    let out = folder.path().join("out");
    let mut options = PrepareOptions::new(Some(folder.path().join("in").display().to_string()), out.clone());
    let path = folder.path().join("tokenizer.json");
    options.tokenizer = gauntlet_data::TokenizerChoice::File { path, eos: None };
    prepare(&options, &Silent).unwrap();
    let data = Dataset::open(&out, Split::Train).unwrap();
    let mut tokens = [0; 4];
    data.read(0, &mut tokens).unwrap();
    assert_eq!(tokens, [70_000, 1, 70_000, 2]);
    assert!(verify(&out, &Silent).unwrap().is_sound());
}

#[test]
fn the_embedded_corpus() {
    let tokenizer = Tokenizer::bytes();
    let train = Dataset::embedded(&tokenizer, Split::Train).unwrap();
    let validation = Dataset::embedded(&tokenizer, Split::Validation).unwrap();
    let bytes: usize = gauntlet_data::embedded::documents().map(|d| d.text.len()).sum();
    assert_eq!(train.n_bytes() + validation.n_bytes(), bytes as u64);
    assert!(validation.n_documents() > 0 && validation.n_tokens() < train.n_tokens());
    assert_eq!(train.n_tokens(), train.n_bytes() + train.n_documents());
    assert!(train.bytes_per_token() < 1.0);
}

#[test]
fn tokens_in_memory_are_checked() {
    let error = Dataset::from_tokens("memory", vec![1, 2, 300], 257).unwrap_err();
    assert!(matches!(error, Error::TokenRange { offset: 2, token: 300, .. }), "{error}");
    let empty = Dataset::from_tokens("memory", vec![], 257).unwrap();
    assert!(matches!(empty.n_sequences(8), Err(Error::SequenceTooLong { sequence: 8, tokens: 0 })));
}
