//! Preparing: splits, parts, settings, resumption without a kill, empty data.

use std::sync::atomic::{AtomicU64, Ordering};

use gauntlet_data::{
    Advance, Dataset, Error, Part, PrepareOptions, Progress, Silent, Split, TokenizerChoice, Validation,
    inspect, merge, prepare, verify,
};
use tempfile::tempdir;

use crate::tools::{contents, options, text, write};

/// Three text files and a JSONL file of 40 documents, two of them without text.
fn corpus(folder: &std::path::Path) {
    for (i, name) in ["a.txt", "b.txt", "sub/c.txt"].iter().enumerate() {
        write(folder, name, text(i as u64, 3000));
    }
    let line =
        |i| serde_json::json!({"text": if i % 20 == 7 { String::new() } else { text(i, 50) }}).to_string();
    write(folder, "d.jsonl", (0..40).map(line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_result_does_not_depend_on_threads() {
    let folder = tempdir().unwrap();
    corpus(&folder.path().join("in"));
    let prepared = [1, 2, 5].map(|threads| {
        let out = folder.path().join(format!("out-{threads}"));
        let mut options = options(&folder.path().join("in"), &out);
        options.validation = Validation::Fraction(0.3);
        options.max_tokens_per_shard = 1000;
        options.threads = threads;
        prepare(&options, &Silent).unwrap();
        contents(&out)
    });
    assert!(prepared[0].len() > 20);
    assert!(prepared[1..].iter().all(|other| *other == prepared[0]));
}

#[test]
fn held_out_files_and_counts() {
    let folder = tempdir().unwrap();
    corpus(&folder.path().join("in"));
    let out = folder.path().join("out");
    let mut options = options(&folder.path().join("in"), &out);
    options.validation = Validation::Files("c.t?t".to_owned());
    let summary = prepare(&options, &Silent).unwrap();
    assert_eq!(summary.splits[&Split::Validation].documents, 1);
    assert_eq!(summary.splits[&Split::Validation].bytes, text(2, 3000).len() as u64);
    assert_eq!(summary.splits[&Split::Train].documents, 2 + 38);
    assert_eq!(summary.empty_documents, 2);
    let report = verify(&out, &Silent).unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!(report.tokens, summary.splits.values().map(|s| s.tokens).sum::<u64>());
    let inspected = inspect(&out).unwrap();
    assert_eq!((inspected.data_hash, inspected.splits), (summary.data_hash, summary.splits));
}

#[test]
fn equal_documents_are_never_on_both_sides() {
    let folder = tempdir().unwrap();
    let line = |i: u64| serde_json::json!({"text": format!("document {}", i % 50)}).to_string();
    for name in ["a.jsonl", "b.jsonl"] {
        write(folder.path(), &format!("in/{name}"), (0..100).map(line).collect::<Vec<_>>().join("\n"));
    }
    let out = folder.path().join("out");
    let mut options = PrepareOptions::new(Some(folder.path().join("in").display().to_string()), out.clone());
    options.validation = Validation::Fraction(0.2);
    prepare(&options, &Silent).unwrap();
    let documents = |split| {
        let data = Dataset::open(&out, split).unwrap();
        let mut tokens = vec![0; usize::try_from(data.n_tokens()).unwrap()];
        data.read(0, &mut tokens).unwrap();
        tokens.split(|t| *t == 256).map(<[u32]>::to_vec).collect::<std::collections::BTreeSet<_>>()
    };
    let (mut train, mut validation) = (documents(Split::Train), documents(Split::Validation));
    train.remove(&vec![]);
    validation.remove(&vec![]);
    assert_eq!(train.len() + validation.len(), 50);
    assert!(train.is_disjoint(&validation) && (2..20).contains(&validation.len()));
}

#[test]
fn finished_inputs_are_kept_and_changed_ones_done_again() {
    let folder = tempdir().unwrap();
    let (source, out) = (folder.path().join("in"), folder.path().join("out"));
    corpus(&source);
    let options = options(&source, &out);
    let first = prepare(&options, &Silent).unwrap();
    let before = contents(&out);
    let again = prepare(&options, &Silent).unwrap();
    assert_eq!((first.kept_inputs, again.kept_inputs), (0, 4));
    assert_eq!(contents(&out), before);

    // A shorter file, other time of change: only this input is new; the old shard does not stay behind.
    write(&source, "a.txt", "short");
    let changed = prepare(&options, &Silent).unwrap();
    assert_eq!(changed.kept_inputs, 3);
    assert!(changed.splits[&Split::Train].bytes < first.splits[&Split::Train].bytes);
    assert!(verify(&out, &Silent).unwrap().is_sound());

    // A lost shard is made again.
    std::fs::remove_file(out.join("train-000001-0000.bin")).unwrap();
    assert_eq!(prepare(&options, &Silent).unwrap().kept_inputs, 3);
    assert!(verify(&out, &Silent).unwrap().is_sound());
}

#[test]
fn other_settings_do_not_mix() {
    let folder = tempdir().unwrap();
    let (source, out) = (folder.path().join("in"), folder.path().join("out"));
    corpus(&source);
    let first = options(&source, &out);
    prepare(&first, &Silent).unwrap();
    let before = contents(&out);
    let refused = |change: &dyn Fn(&mut PrepareOptions), expected: &str| {
        let mut options = first.clone();
        change(&mut options);
        match prepare(&options, &Silent) {
            Err(Error::Settings { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    };
    refused(&|o| o.validation = Validation::Fraction(0.5), "validation");
    refused(&|o| o.max_tokens_per_shard = 7, "max_tokens_per_shard");
    refused(&|o| o.tokenizer = TokenizerChoice::Bytes, "tokenizer");
    refused(&|o| o.tokenizer = TokenizerChoice::Train { vocab_size: 301 }, "tokenizer");
    refused(&|o| o.source.field = "body".to_owned(), "field");
    write(&source, "new.txt", "more");
    refused(&|_| {}, "number of inputs");
    assert_eq!(contents(&out), before);
}

#[test]
fn a_folder_with_something_else_is_refused() {
    let folder = tempdir().unwrap();
    corpus(&folder.path().join("in"));
    write(&folder.path().join("out"), "thesis.tex", "precious");
    let error =
        prepare(&options(&folder.path().join("in"), &folder.path().join("out")), &Silent).unwrap_err();
    assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 1);
}

#[test]
fn parts_merge_to_the_same_bytes() {
    let folder = tempdir().unwrap();
    let source = folder.path().join("in");
    corpus(&source);
    let with = |out: &str, part: Part| {
        let mut options = options(&source, &folder.path().join(out));
        options.validation = Validation::Fraction(0.3);
        options.part = part;
        options
    };
    prepare(&with("whole", Part::WHOLE), &Silent).unwrap();
    let whole = contents(&folder.path().join("whole"));

    // All parts into one folder; before the last is there, merging says which one is missing.
    let shared = folder.path().join("shared");
    for index in [2, 0] {
        let summary = prepare(&with("shared", Part::new(index, 3).unwrap()), &Silent).unwrap();
        assert_eq!(summary.part, Some(format!("{index}/3")));
    }
    assert!(matches!(inspect(&shared), Err(Error::Unfinished { .. })));
    let error = merge(std::slice::from_ref(&shared), &shared, &Silent).unwrap_err().to_string();
    assert!(error.starts_with("part 1 of 3 is missing in ") && error.contains("--part 1/3"), "{error}");
    prepare(&with("shared", Part::new(1, 3).unwrap()), &Silent).unwrap();
    merge(std::slice::from_ref(&shared), &shared, &Silent).unwrap();
    assert_eq!(contents(&shared), whole);

    // Each part in a folder of its own.
    let folders = [0, 1].map(|index| {
        prepare(&with(&format!("own-{index}"), Part::new(index, 2).unwrap()), &Silent).unwrap();
        folder.path().join(format!("own-{index}"))
    });
    let merged = folder.path().join("merged");
    let (copied, read) = (Sum::default(), Sum::default());
    let summary = merge(&folders, &merged, &copied).unwrap();
    assert_eq!(contents(&merged), whole);
    assert_eq!(summary.part, None);
    let report = verify(&merged, &read).unwrap();
    assert!(report.is_sound() && report.bytes > 0);
    assert_eq!(copied.input.into_inner(), report.bytes);
    assert_eq!(read.input.into_inner(), report.bytes);
    let stop = Sum { stop: true, ..Sum::default() };
    assert!(matches!(verify(&merged, &stop), Err(Error::Stopped)));
    assert!(matches!(merge(&folders, &folder.path().join("stopped"), &stop), Err(Error::Stopped)));

    // A folder that holds something else, a part of other data, and a damaged shard.
    let error = merge(&folders, &source, &Silent).unwrap_err();
    assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    let mut other = with("other", Part::new(1, 2).unwrap());
    other.max_tokens_per_shard = 99;
    prepare(&other, &Silent).unwrap();
    let error = merge(&[folders[0].clone(), other.out], &folder.path().join("no"), &Silent).unwrap_err();
    assert!(matches!(error, Error::Settings { field: "max_tokens_per_shard", .. }), "{error}");
    std::fs::write(folders[1].join("train-000001-0000.bin"), [0; 64]).unwrap();
    let error = merge(&folders, &folder.path().join("no"), &Silent).unwrap_err();
    assert!(matches!(error, Error::ShardHash { .. }), "{error}");
}

#[test]
fn splits_without_text_are_errors() {
    let folder = tempdir().unwrap();
    write(folder.path(), "empty/a.txt", "");
    write(folder.path(), "one/a.txt", "text");
    let run = |source: &str, out: &str, validation: Validation| {
        let source = folder.path().join(source).display().to_string();
        let mut options = PrepareOptions::new(Some(source), folder.path().join(out));
        options.validation = validation;
        prepare(&options, &Silent)
    };
    let error = run("empty", "1", Validation::None);
    assert!(matches!(error, Err(Error::EmptyCorpus { split: Split::Train, .. })), "{error:?}");
    let error = run("one", "2", Validation::Fraction(0.000_001));
    assert!(matches!(error, Err(Error::EmptyCorpus { split: Split::Validation, .. })), "{error:?}");
    for pattern in ["b.txt", "*", "[", ""] {
        let error = run("one", "3", Validation::Files(pattern.to_owned()));
        assert!(matches!(error, Err(Error::Validation { .. })), "{pattern}: {error:?}");
    }
    for share in [0.0, 1.0, f64::NAN] {
        assert!(matches!(run("one", "4", Validation::Fraction(share)), Err(Error::Validation { .. })));
    }
    assert!(!folder.path().join("1/manifest.json").exists());
    assert!(!folder.path().join("3").exists(), "nothing is created before the values are checked");
}

#[derive(Default)]
struct Sum {
    documents: AtomicU64,
    text: AtomicU64,
    tokens: AtomicU64,
    input: AtomicU64,
    stop: bool,
}

impl Progress for Sum {
    fn advance(&self, step: Advance) {
        self.documents.fetch_add(step.documents, Ordering::Relaxed);
        self.text.fetch_add(step.text_bytes, Ordering::Relaxed);
        self.tokens.fetch_add(step.tokens, Ordering::Relaxed);
        self.input.fetch_add(step.input_bytes, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop
    }
}

#[test]
fn progress_adds_up_and_can_stop() {
    let folder = tempdir().unwrap();
    let source = folder.path().join("in");
    corpus(&source);
    let mut options = options(&source, &folder.path().join("out"));
    options.tokenizer = TokenizerChoice::Bytes;
    let stopped = prepare(&options, &Sum { stop: true, ..Sum::default() });
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    let sum = Sum::default();
    let summary = prepare(&options, &sum).unwrap();
    let train = &summary.splits[&Split::Train];
    assert_eq!(sum.documents.into_inner(), train.documents);
    assert_eq!(sum.text.into_inner(), train.bytes);
    assert_eq!(sum.tokens.into_inner(), train.tokens);
    let sizes = ["a.txt", "b.txt", "sub/c.txt", "d.jsonl"].map(|f| source.join(f).metadata().unwrap().len());
    assert_eq!(sum.input.into_inner(), sizes.iter().sum::<u64>());
}

#[test]
fn one_wrong_file_fails_the_run_by_name() {
    let folder = tempdir().unwrap();
    let source = folder.path().join("in");
    corpus(&source);
    write(&source, "e.txt", b"caf\xe9");
    let mut options = options(&source, &folder.path().join("out"));
    options.tokenizer = TokenizerChoice::Bytes;
    let error = prepare(&options, &Silent).unwrap_err().to_string();
    assert_eq!(error, "e.txt: not UTF-8 at byte 3; convert the file to UTF-8");
    assert!(!folder.path().join("out/manifest.json").exists());
    let error = prepare(&PrepareOptions { max_tokens_per_shard: 0, ..options }, &Silent);
    assert!(matches!(error, Err(Error::ShardLimit)));
}

#[test]
fn the_embedded_corpus_can_be_prepared() {
    let folder = tempdir().unwrap();
    let mut options = PrepareOptions::new(None, folder.path().join("out"));
    options.validation = Validation::Files("**/lib.rs".to_owned());
    let summary = prepare(&options, &Silent).unwrap();
    assert!(summary.source.contains(&gauntlet_data::embedded::hash_hex()));
    assert!(verify(&options.out, &Silent).unwrap().is_sound());
}
