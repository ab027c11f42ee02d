//! Loading, training, encoding and decoding.

use std::path::Path;

use gauntlet_data::{BpeTrainer, EOS_NAME, Error, Split, Tokenizer, embedded};
use gauntlet_data::{PrepareOptions, Silent, TokenizerChoice, Validation, prepare};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::tempdir;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer as Reference};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Model, Tokenizer as Json};

use crate::tools::{text, write};

fn corpus() -> Vec<String> {
    let own = embedded::documents().map(|document| document.text.to_owned());
    own.take(12).chain((0..8).map(|seed| text(seed, 2000))).collect()
}

fn train(texts: &[String], vocab_size: usize) -> Tokenizer {
    let mut trainer = BpeTrainer::new(vocab_size).unwrap();
    trainer.feed(texts.iter().map(String::as_str)).unwrap();
    trainer.finish().unwrap()
}

#[test]
fn training_is_deterministic() {
    let texts = corpus();
    let first = train(&texts, 1000);
    // Other order, other portions, other thread counts, other random keys of hash maps.
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| {
            let mut trainer = BpeTrainer::new(1000).unwrap();
            for text in texts.iter().rev() {
                trainer.feed([text.as_str()]).unwrap();
            }
            trainer.finish().unwrap()
        });
        assert_eq!(again.json(), first.json());
        assert_eq!(again.hash(), first.hash());
    }
}

/// Vocabulary and merges of tokenizers' own trainer on the same text.
fn reference(texts: &[String], vocab_size: usize) -> Value {
    let trainer = Reference::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(EOS_NAME, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut json = Json::new(BPE::default());
    json.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
    json.train(&mut TrainerWrapper::from(trainer), texts.iter()).unwrap();
    assert_eq!(json.get_model().get_vocab_size(), vocab_size);
    serde_json::from_str(&json.to_string(false).unwrap()).unwrap()
}

#[test]
fn training_equals_the_reference() {
    let texts = corpus();
    let own: Value = serde_json::from_str(train(&texts, 900).json().unwrap()).unwrap();
    let reference = reference(&texts, 900);
    assert_eq!(own["model"]["vocab"], reference["model"]["vocab"]);
    assert_eq!(own["model"]["merges"], reference["model"]["merges"]);
}

#[test]
fn vocabulary_sizes_out_of_range() {
    assert!(matches!(BpeTrainer::new(256), Err(Error::VocabSize { wanted: 256, min: 257, .. })));
    let mut trainer = BpeTrainer::new(5000).unwrap();
    trainer.feed(["abab abab abab"]).unwrap();
    let error = trainer.finish().unwrap_err();
    assert!(matches!(error, Error::VocabTooLarge { wanted: 5000, found } if found > 257), "{error}");
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "\\PC{0,80}", spaces in "[ \n\t\r]{0,5}") {
        thread_local! { static TRAINED: Tokenizer = train(&corpus()[12..], 300); }
        let text = format!("{spaces}{text}{spaces}<|endoftext|>{spaces}{text}");
        TRAINED.with(|trained| {
            for tokenizer in [trained, &Tokenizer::bytes()] {
                let ids = tokenizer.encode(&text).unwrap();
                prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
                // The words of a special token in a text are text.
                prop_assert!(!ids.contains(&tokenizer.eos_id()));
                prop_assert_eq!(&tokenizer.decode(&ids).unwrap(), &text);
                // Lengths are exact for any part, even where it cuts a character.
                let (a, b) = ids.split_at(ids.len() / 3);
                let bytes = tokenizer.text_bytes(a).unwrap() + tokenizer.text_bytes(b).unwrap();
                prop_assert_eq!(bytes, text.len() as u64);
            }
            Ok(())
        })?;
    }
}

#[test]
fn long_texts_are_encoded_as_a_whole_would_be() {
    let texts = corpus();
    let tokenizer = train(&texts, 700);
    let long = texts.concat().repeat(3);
    assert!(long.len() > 1 << 18, "long enough to be cut");
    let mut whole = Json::from_bytes(tokenizer.json().unwrap()).unwrap();
    whole.set_encode_special_tokens(true);
    assert_eq!(tokenizer.encode(&long).unwrap(), whole.encode(long, false).unwrap().get_ids());
}

#[test]
fn bytes() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.encode("aü").unwrap(), [97, 195, 188]);
    assert_eq!(tokenizer.decode(&[97, 256, 195, 188, 300]).unwrap(), "aü");
    assert_eq!((tokenizer.vocab_size(), tokenizer.padded_vocab_size(), tokenizer.eos_id()), (257, 320, 256));
    assert!(tokenizer.save(Path::new("unused")).is_err());
}

#[test]
fn saved_and_loaded() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let tokenizer = train(&corpus(), 320);
    tokenizer.save(&path).unwrap();
    let loaded = Tokenizer::load(&path, None).unwrap();
    assert_eq!(loaded.hash(), tokenizer.hash());
    assert_eq!(loaded.eos_id(), 0);
    assert_eq!((loaded.vocab_size(), loaded.padded_vocab_size()), (320, 320));
}

/// A word-level `tokenizer.json` of another hand, with truncation to 2 tokens and padding.
fn foreign(eos: &str) -> Value {
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [{"id": 5, "content": eos, "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "b": 2, eos: 5}, "unk_token": "[UNK]"},
    })
}

#[test]
fn foreign_tokenizers() {
    let load = |json: Value, eos| Tokenizer::from_json("foreign", json.to_string().as_bytes(), eos);
    for name in ["</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"] {
        let tokenizer = load(foreign(name), None).unwrap();
        assert_eq!(tokenizer.eos_id(), 5);
        // Ids have holes; the largest counts.
        assert_eq!((tokenizer.vocab_size(), tokenizer.padded_vocab_size()), (6, 64));
        assert_eq!(tokenizer.encode("a b a c").unwrap(), [1, 2, 1, 0], "neither truncated nor padded");
    }
    assert_eq!(load(foreign("[END]"), Some("[END]")).unwrap().eos_id(), 5);
    let error = load(foreign("[END]"), None).unwrap_err().to_string();
    assert!(error.starts_with("foreign: no end-of-text token among </s>, <|endoftext|>"), "{error}");
    let mut random = serde_json::from_str::<Value>(train(&corpus(), 300).json().unwrap()).unwrap();
    random["model"]["dropout"] = json!(0.1);
    let error = load(random, None).unwrap_err().to_string();
    assert!(error.contains("model.dropout"), "{error}");
}

#[test]
fn broken_tokenizer_files() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(matches!(Tokenizer::load(&path, None), Err(Error::NotFound { .. })));
    for wrong in ["", "{}", "[1]", "{\"model\":{\"type\":\"BPE\"}}"] {
        write(folder.path(), "tokenizer.json", wrong);
        let error = Tokenizer::load(&path, None).unwrap_err();
        assert!(matches!(error, Error::Tokenizer { .. } | Error::NoEos { .. }), "{wrong}: {error}");
    }
}

#[test]
fn held_out_text_does_not_train_the_tokenizer() {
    let folder = tempdir().unwrap();
    let (source, out) = (folder.path().join("in"), folder.path().join("out"));
    write(&source, "a.txt", text(1, 3000));
    write(&source, "b.txt", "zqzqzqzqzqzq ".repeat(3000));
    let mut options = PrepareOptions::new(Some(source.display().to_string()), out.clone());
    options.tokenizer = TokenizerChoice::Train { vocab_size: 280 };
    options.validation = Validation::Files("b.txt".to_owned());
    prepare(&options, &Silent).unwrap();
    let tokenizer = Tokenizer::of_folder(&out).unwrap();
    assert_eq!(tokenizer.encode("zq").unwrap().len(), 2);
    let data = gauntlet_data::Dataset::open(&out, Split::Validation).unwrap();
    data.check_tokenizer(&tokenizer).unwrap();
    let error = data.check_tokenizer(&Tokenizer::bytes()).unwrap_err();
    assert!(matches!(error, Error::TokenizerMismatch { .. }), "{error}");
}
