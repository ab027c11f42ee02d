//! The parallel part of preparing: inputs to shards.
//!
//! One thread an input reads and writes; encoding, which is nearly all of the work, is spread over the pool
//! piece by piece, so that one large file keeps every processor busy too. Memory per input: one portion of
//! documents and their tokens.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::manifest::{Split, to_json};
use crate::output::{Disk, write_atomic_on};
use crate::part::InputRecord;
use crate::portion::Portion;
use crate::prepare::{PrepareOptions, invalidate, remove};
use crate::progress::{Advance, Phase, Progress, Totals};
use crate::settings::Settings;
use crate::shard::ShardWriter;
use crate::source::{Input, Source};
use crate::tokenizer::Tokenizer;
use crate::validation::HeldOut;

/// Everything the workers share.
pub(crate) struct Work<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) options: &'a PrepareOptions,
    pub(crate) source: &'a Source,
    pub(crate) settings: &'a Settings,
    pub(crate) held_out: HeldOut,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) pool: ThreadPool,
    pub(crate) progress: &'a dyn Progress,
}

impl Work<'_> {
    /// Prepares the inputs of this part; returns their records, sorted, and how many were done before.
    pub(crate) fn run(&self) -> Result<(Vec<InputRecord>, u64)> {
        let inputs: Vec<(usize, &Input)> =
            self.source.inputs().iter().enumerate().filter(|(i, _)| self.options.part.takes(*i)).collect();
        let bytes = inputs.iter().map(|(_, input)| input.bytes()).sum();
        self.progress.start(Phase::Tokenize, Totals { inputs: inputs.len() as u64, bytes });

        let (mut records, mut open) = (Vec::new(), Vec::new());
        for (index, input) in inputs {
            let key = self.settings.key(&input.identity()?);
            match self.finished(index, &key) {
                Some(record) => {
                    self.progress.advance(Advance { input_bytes: input.bytes(), ..Advance::default() });
                    self.progress.input_done(input.name());
                    records.push(record);
                }
                None => open.push((index, input, key)),
            }
        }
        let kept = records.len() as u64;
        if !open.is_empty() {
            invalidate(&self.options.out, self.options.part)?;
        }
        records.extend(self.all(&open)?);
        records.sort_by_key(|record| record.index);
        Ok((records, kept))
    }

    /// The record of an input that is done: its key is right and its shards are there.
    fn finished(&self, index: usize, key: &str) -> Option<InputRecord> {
        let bytes = std::fs::read(self.options.out.join(InputRecord::file(index))).ok()?;
        let record: InputRecord = serde_json::from_slice(&bytes).ok()?;
        let width = self.settings.dtype().width() as u64;
        let whole = record.shards().all(|shard| {
            let meta = std::fs::metadata(self.options.out.join(&shard.file));
            meta.is_ok_and(|meta| meta.len() == shard.tokens * width)
        });
        (record.key == key && record.index == index && whole).then_some(record)
    }

    /// Prepares the `open` inputs with as many threads as the pool has. The first error ends all of them.
    fn all(&self, open: &[(usize, &Input, String)]) -> Result<Vec<InputRecord>> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.pool.current_num_threads().min(open.len()) {
                scope.spawn(|| {
                    while let Some((index, input, key)) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = self.input(*index, input, key, &failed);
                        let stop = result.is_err();
                        // A poisoned lock means that another worker panicked; its results still count.
                        results.lock().unwrap_or_else(|e| e.into_inner()).push(result);
                        if stop || failed.load(Ordering::Relaxed) {
                            failed.store(true, Ordering::Relaxed);
                            return;
                        }
                    }
                });
            }
        });
        let results = results.into_inner().unwrap_or_else(|e| e.into_inner());
        // Workers that were told to stop report `Stopped`; what told them is the error that matters.
        let (mut records, mut error) = (Vec::new(), None);
        for result in results {
            match result {
                Ok(record) => records.push(record),
                Err(Error::Stopped) if error.is_some() => {}
                Err(e) => error = Some(e),
            }
        }
        error.map_or(Ok(records), Err)
    }

    /// Prepares one input and, last, writes its sidecar.
    fn input(&self, index: usize, input: &Input, key: &str, failed: &AtomicBool) -> Result<InputRecord> {
        let out = &self.options.out;
        let sidecar = out.join(InputRecord::file(index));
        if sidecar.exists() {
            remove(&sidecar)?;
        }
        let (dtype, limit) = (self.settings.dtype(), self.settings.max_tokens_per_shard);
        let mut writers = [Split::Train, Split::Validation]
            .map(|split| ShardWriter::new(self.disk, out, format!("{split}-{index:06}"), dtype, limit));
        let mut documents = self.source.documents(input, self.progress)?;
        let (mut empty_documents, mut seen) = (0, 0);
        loop {
            if failed.load(Ordering::Relaxed) || self.progress.stopped() {
                return Err(Error::Stopped);
            }
            let portion = Portion::read(&mut documents)?;
            empty_documents += portion.empty;
            let mut step = self.write(input, &portion.texts, &mut writers)?;
            let read = documents.consumed();
            (step.input_bytes, seen) = (read - seen, read);
            self.progress.advance(step);
            if portion.last {
                break;
            }
        }
        let [train, validation] = writers;
        let (train, validation) = (train.finish()?, validation.finish()?);
        let (name, key) = (input.name().to_owned(), key.to_owned());
        let record = InputRecord { index, name, key, empty_documents, train, validation };
        write_atomic_on(self.disk, &sidecar, &to_json(&record, &sidecar)?)?;
        self.progress.input_done(input.name());
        Ok(record)
    }

    /// Encodes `texts` and writes each to its split.
    fn write(
        &self,
        input: &Input,
        texts: &[String],
        [train, validation]: &mut [ShardWriter<'_>; 2],
    ) -> Result<Advance> {
        let mut step = Advance::default();
        for (text, tokens) in texts.iter().zip(self.encode(texts)?) {
            let writer = match self.held_out.split(input.name(), text) {
                Split::Train => &mut *train,
                Split::Validation => &mut *validation,
            };
            for tokens in &tokens {
                writer.push(tokens)?;
                step.tokens += tokens.len() as u64;
            }
            writer.end_document(self.tokenizer.eos_id(), text.len() as u64)?;
            step.tokens += 1;
            step.documents += 1;
            step.text_bytes += text.len() as u64;
        }
        Ok(step)
    }

    /// The tokens of each text, piece by piece.
    fn encode(&self, texts: &[String]) -> Result<Vec<Vec<Vec<u32>>>> {
        let pieces: Vec<(usize, &str)> = texts
            .iter()
            .enumerate()
            .flat_map(|(i, text)| self.tokenizer.pieces(text).map(move |piece| (i, piece)))
            .collect();
        let encode = |(_, piece): &(usize, &str)| {
            let mut ids = Vec::with_capacity(piece.len() / 2);
            self.tokenizer.encode_piece(piece, &mut ids).map(|()| ids)
        };
        let encoded: Vec<Vec<u32>> =
            self.pool.install(|| pieces.par_iter().map(encode).collect::<Result<_>>())?;
        let mut tokens = vec![Vec::new(); texts.len()];
        for ((i, _), ids) in pieces.into_iter().zip(encoded) {
            tokens[i].push(ids);
        }
        Ok(tokens)
    }
}
