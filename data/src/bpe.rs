//! Training of a byte-level BPE, deterministic by construction.
//!
//! Byte-pair encoding (Sennrich et al. 2016) over the bytes of the words of GPT-2's pre-tokenizer: the pair
//! of neighbours with the largest count becomes a token, ties going to the smaller pair of ids, until the
//! vocabulary is full. Layout: id 0 is `<|endoftext|>`, 1..=256 the bytes, then the merges in order.
//!
//! The trainer of crate tokenizers iterates hash maps with random keys and counts in i32; this one counts in
//! u64 and depends on the set of words alone, so the same corpus gives the same `tokenizer.json` bytes on
//! every machine and thread count. Its own result is the reference in the tests.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::error::{Error, Result};
use crate::pieces::Cut;
use crate::tokenizer::Tokenizer;

/// Name of the end-of-text token of trained tokenizers.
pub const EOS_NAME: &str = "<|endoftext|>";

/// EOS and the 256 bytes.
const BASE: usize = 257;

/// Largest vocabulary that can be asked for.
const MAX_VOCAB: usize = 1 << 20;

/// A pair seen less often is never merged.
const MIN_COUNT: u64 = 2;

type Pair = (u32, u32);

/// Counts words, then trains. Feed texts in any order and in any portions.
#[derive(Debug)]
pub struct BpeTrainer {
    vocab_size: usize,
    words: HashMap<Box<[u8]>, u64>,
}

impl BpeTrainer {
    /// A trainer for a vocabulary of `vocab_size`: EOS, 256 bytes and `vocab_size` − 257 merges.
    ///
    /// # Errors
    /// [`Error::VocabSize`] for sizes without room for the bytes, or above 2²⁰.
    pub fn new(vocab_size: usize) -> Result<Self> {
        if !(BASE..=MAX_VOCAB).contains(&vocab_size) {
            return Err(Error::VocabSize { wanted: vocab_size, min: BASE, max: MAX_VOCAB });
        }
        Ok(Self { vocab_size, words: HashMap::new() })
    }

    /// Counts the words of `texts`, in parallel.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the pre-tokenizer's regular expression gives up on a text.
    pub fn feed<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let pieces: Vec<&str> = texts.into_iter().flat_map(|text| Cut::BeforeSpace.pieces(text)).collect();
        let counts: Vec<_> = pieces.par_iter().map(|piece| count_words(piece)).collect::<Result<_>>()?;
        for (word, count) in counts.into_iter().flatten() {
            *self.words.entry(word).or_default() += count;
        }
        Ok(())
    }

    /// Trains on everything fed.
    ///
    /// # Errors
    /// [`Error::VocabTooLarge`] if the corpus has not enough repeated pairs for the vocabulary.
    pub fn finish(self) -> Result<Tokenizer> {
        let mut words: Vec<_> = self.words.into_iter().collect();
        words.sort_unstable();
        let (tokens, merges) = Merger::new(&words).run(self.vocab_size);
        if tokens.len() < self.vocab_size {
            return Err(Error::VocabTooLarge { wanted: self.vocab_size, found: tokens.len() });
        }
        Tokenizer::from_json("the trained tokenizer", &tokenizer_json(&tokens, &merges), Some(EOS_NAME))
    }
}

/// Words of `text` and how often each occurs.
fn count_words(text: &str) -> Result<HashMap<Box<[u8]>, u64>> {
    let bad = |e: &dyn ToString| Error::Tokenizer { name: "the corpus".to_owned(), message: e.to_string() };
    let mut pre = PreTokenizedString::from(text);
    ByteLevel::new(false, false, true).pre_tokenize(&mut pre).map_err(|e| bad(&e))?;
    let mut counts = HashMap::<&str, u64>::new();
    for (_, (start, end), _) in pre.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        *counts.entry(&text[start..end]).or_default() += 1;
    }
    Ok(counts.into_iter().map(|(word, count)| (word.as_bytes().into(), count)).collect())
}

/// The letter that stands for each byte in a `tokenizer.json` (GPT-2): printable Latin-1 is itself, the rest
/// follow from U+0100 on.
pub(crate) fn byte_letters() -> [char; 256] {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut letters = ['\0'; 256];
    let mut next = 0x100u32;
    for byte in 0..=255u8 {
        letters[byte as usize] = if printable(byte) {
            char::from(byte)
        } else {
            let letter = char::from_u32(next).unwrap_or('\0');
            next += 1;
            letter
        };
    }
    letters
}

/// Ids 1..=256 go to the bytes in the order of their letters, as in tokenizers' own trainer.
fn byte_ids() -> [u32; 256] {
    let letters = byte_letters();
    let mut order: Vec<u8> = (0..=255).collect();
    order.sort_unstable_by_key(|byte| letters[*byte as usize]);
    let mut ids = [0; 256];
    for (id, byte) in (1..).zip(order) {
        ids[byte as usize] = id;
    }
    ids
}

/// The state of training: words as ids, counts of pairs, and the words each pair may occur in.
struct Merger {
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    places: HashMap<Pair, Vec<u32>>,
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
    tokens: Vec<Vec<u8>>,
}

impl Merger {
    fn new(words: &[(Box<[u8]>, u64)]) -> Self {
        let ids = byte_ids();
        let mut tokens = vec![Vec::new(); BASE];
        for byte in 0..=255u8 {
            tokens[ids[byte as usize] as usize] = vec![byte];
        }
        let mut merger = Self {
            words: Vec::with_capacity(words.len()),
            counts: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
            tokens,
        };
        for (at, (word, count)) in (0..).zip(words) {
            let word: Vec<u32> = word.iter().map(|byte| ids[*byte as usize]).collect();
            for pair in word.windows(2) {
                merger.add((pair[0], pair[1]), *count, at);
            }
            merger.words.push((word, *count));
        }
        merger.queue = merger.counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
        merger
    }

    /// Merges until there are `vocab_size` tokens or no pair is left that repeats.
    fn run(mut self, vocab_size: usize) -> (Vec<Vec<u8>>, Vec<Pair>) {
        let mut by_bytes: HashMap<Vec<u8>, u32> =
            (1..).zip(self.tokens[1..].iter().cloned()).map(|(id, token)| (token, id)).collect();
        let (mut merges, mut merged) = (Vec::new(), HashSet::new());
        while self.tokens.len() < vocab_size {
            let Some((count, Reverse(pair))) = self.queue.pop() else { break };
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now != count {
                // The entry is old; the queue holds no newer one if the count only fell.
                if now > 0 && now < count {
                    self.queue.push((now, Reverse(pair)));
                }
                continue;
            }
            if count < MIN_COUNT {
                break;
            }
            let bytes = [&self.tokens[pair.0 as usize][..], &self.tokens[pair.1 as usize][..]].concat();
            // "ab"+"c" and "a"+"bc" make the same token; the second merge only gives it another way.
            let id = *by_bytes.entry(bytes.clone()).or_insert(self.tokens.len() as u32);
            if id as usize == self.tokens.len() {
                self.tokens.push(bytes);
            }
            if merged.insert(pair) {
                merges.push(pair);
            }
            self.merge(pair, id);
        }
        (self.tokens, merges)
    }

    /// Replaces `pair` by `id` in every word and updates the counts of the neighbours.
    fn merge(&mut self, pair: Pair, id: u32) {
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        let mut grown = HashSet::new();
        for at in places {
            let (old, count) = std::mem::take(&mut self.words[at as usize]);
            let mut new: Vec<u32> = Vec::with_capacity(old.len());
            let mut i = 0;
            while i < old.len() {
                if i + 1 == old.len() || (old[i], old[i + 1]) != pair {
                    new.push(old[i]);
                    i += 1;
                    continue;
                }
                self.remove(pair, count);
                if let Some(left) = new.last().copied() {
                    self.remove((left, pair.0), count);
                    self.add((left, id), count, at);
                    grown.insert((left, id));
                }
                if let Some(right) = old.get(i + 2).copied() {
                    self.remove((pair.1, right), count);
                    self.add((id, right), count, at);
                    grown.insert((id, right));
                }
                new.push(id);
                i += 2;
            }
            self.words[at as usize] = (new, count);
        }
        for pair in grown {
            if let Some(count) = self.counts.get(&pair) {
                self.queue.push((*count, Reverse(pair)));
            }
        }
    }

    fn add(&mut self, pair: Pair, count: u64, at: u32) {
        *self.counts.entry(pair).or_default() += count;
        let places = self.places.entry(pair).or_default();
        if places.last() != Some(&at) {
            places.push(at);
        }
    }

    fn remove(&mut self, pair: Pair, count: u64) {
        if let Some(now) = self.counts.get_mut(&pair) {
            *now = now.saturating_sub(count);
            if *now == 0 {
                self.counts.remove(&pair);
            }
        }
    }
}

/// The `tokenizer.json` of a byte-level BPE; `tokens[0]` is EOS.
fn tokenizer_json(tokens: &[Vec<u8>], merges: &[Pair]) -> Vec<u8> {
    let letters = byte_letters();
    let names: Vec<String> = std::iter::once(EOS_NAME.to_owned())
        .chain(tokens[1..].iter().map(|t| t.iter().map(|byte| letters[*byte as usize]).collect()))
        .collect();
    let vocab: Map<String, Value> = (0u32..).zip(&names).map(|(id, t)| (t.clone(), json!(id))).collect();
    let merges: Vec<[&str; 2]> =
        merges.iter().map(|(a, b)| [names[*a as usize].as_str(), names[*b as usize].as_str()]).collect();
    byte_level_json(vocab, json!(merges), 0, true).to_string().into_bytes()
}

/// The `tokenizer.json` of a byte-level BPE of these tokens and merges, in which `eos` is [`EOS_NAME`]; `use_regex`:
/// text is split into words first.
pub(crate) fn byte_level_json(vocab: Map<String, Value>, merges: Value, eos: u32, use_regex: bool) -> Value {
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": eos, "content": EOS_NAME, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}
