//! Text to token shards: parallel over files, resumable after a kill, divisible over machines.
//!
//! Order of writing: `settings.json`, `tokenizer.json`, then per input its shards and after them its sidecar
//! `input-NNNNNN.json`, at last `manifest.json` (or `manifest.part-i-of-n.json`). Every file appears whole or
//! not at all, so what a sidecar names is complete, and a manifest is there only for complete data.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest::{MANIFEST_FILE, Split, TokenizerRecord};
use crate::merge::{assemble, write_manifest};
use crate::output::{Disk, FileSystem, TEMPORARY, write_atomic_on};
use crate::part::{InputRecord, Part, PartManifest};
use crate::progress::Progress;
use crate::settings::{SETTINGS_FILE, Settings};
use crate::source::{Source, SourceOptions};
use crate::summary::Summary;
use crate::tokenizer::Tokenizer;
use crate::training::{TRAINING_BYTES, TokenizerChoice};
use crate::validation::{HeldOut, Validation};
use crate::worker::Work;

/// File name of the tokenizer beside the manifest.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";

/// Tokens in a full shard unless told otherwise: 512 MiB of u16.
pub const MAX_TOKENS_PER_SHARD: u64 = 1 << 28;

/// More threads are a slip of the keyboard.
pub(crate) const MOST_THREADS: usize = 1024;

/// What to prepare, and how.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// File, folder or `hf:owner/name[@revision][:path]`; none for the embedded corpus.
    pub location: Option<String>,
    /// How to read it.
    pub source: SourceOptions,
    /// Folder of the result: new, empty, or holding an unfinished preparation with the same settings.
    pub out: PathBuf,
    /// The tokenizer, given or to be trained.
    pub tokenizer: TokenizerChoice,
    /// Which documents are held out.
    pub validation: Validation,
    /// Tokens in a full shard.
    pub max_tokens_per_shard: u64,
    /// Bytes of text a new tokenizer is trained on at most, spread over the inputs.
    pub training_bytes: u64,
    /// The share of this process; [`Part::WHOLE`] if it works alone.
    pub part: Part,
    /// Threads, 0 for one per processor. The result does not depend on it.
    pub threads: usize,
}

impl PrepareOptions {
    /// Bytes as tokens, no validation split, everything else at its default.
    pub fn new(location: Option<String>, out: PathBuf) -> Self {
        Self {
            location,
            source: SourceOptions::default(),
            out,
            tokenizer: TokenizerChoice::Bytes,
            validation: Validation::None,
            max_tokens_per_shard: MAX_TOKENS_PER_SHARD,
            training_bytes: TRAINING_BYTES,
            part: Part::WHOLE,
            threads: 0,
        }
    }
}

/// Prepares data as `options` say. Called again after a kill or an error, it keeps the finished inputs and
/// ends with the same bytes as an unbroken run.
///
/// # Errors
/// Any error of sources, tokenizer and files; [`Error::Settings`] and [`Error::NotOurs`] for a folder that
/// holds something else; [`Error::ThreadLimit`]; [`Error::Busy`]; [`Error::Validation`] and [`Error::EmptyCorpus`] for a split
/// without text; [`Error::Stopped`].
pub fn prepare(options: &PrepareOptions, progress: &dyn Progress) -> Result<Summary> {
    prepare_on(&FileSystem, options, progress)
}

/// [`prepare`] on a chosen disk.
pub(crate) fn prepare_on(
    disk: &dyn Disk,
    options: &PrepareOptions,
    progress: &dyn Progress,
) -> Result<Summary> {
    if options.max_tokens_per_shard == 0 {
        return Err(Error::ShardLimit);
    }
    if options.threads > MOST_THREADS {
        return Err(Error::ThreadLimit { threads: options.threads });
    }
    let held_out = options.validation.compile()?;
    let source = match &options.location {
        Some(location) => Source::open(location, &options.source)?,
        None => Source::embedded(),
    };
    check_pattern(&options.validation, &held_out, &source)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::Threads { message: e.to_string() })?;

    // Other parts may be at work in the folder, so that only the whole takes it away again.
    let new = options.part == Part::WHOLE && !options.out.exists();
    let found = open_folder(&options.out)?;
    let lock = Lock::take(&options.out, options.part)?;
    let prepared = prepare_in(disk, options, progress, (&source, held_out, pool), found.as_ref());
    drop(lock);
    let failed = prepared.as_ref().is_err_and(|e| !matches!(e, Error::Stopped));
    if failed && new && !holds_work(&options.out) {
        // The error that matters is the first one.
        let _ = std::fs::remove_dir_all(&options.out);
    }
    prepared
}

/// Whether `out` holds tokens of a finished input.
fn holds_work(out: &Path) -> bool {
    !names(out).is_ok_and(|names| names.iter().all(|name| !name.ends_with(".bin")))
}

/// [`prepare_on`] in a folder that is locked and settled.
fn prepare_in(
    disk: &dyn Disk,
    options: &PrepareOptions,
    progress: &dyn Progress,
    (source, held_out, pool): (&Source, HeldOut, rayon::ThreadPool),
    found: Option<&Settings>,
) -> Result<Summary> {
    if options.part == Part::WHOLE {
        remove_temporary(&options.out)?;
    }
    let (tokenizer, training_bytes) =
        options.tokenizer.resolve(options, source, &held_out, found, &pool, progress)?;
    let record = TokenizerRecord::of(&tokenizer, TOKENIZER_FILE);
    let settings = Settings::new(
        source,
        options.validation.describe(),
        options.max_tokens_per_shard,
        record,
        training_bytes,
    );
    begin(disk, &options.out, &settings, found, &tokenizer)?;

    let work = Work { disk, options, source, settings: &settings, held_out, tokenizer, pool, progress };
    let (inputs, kept) = work.run()?;
    finish(disk, options, settings, inputs).map(|summary| summary.with_run(kept, source.skipped()))
}

/// Refuses a pattern that holds out nothing or everything.
fn check_pattern(validation: &Validation, held_out: &HeldOut, source: &Source) -> Result<()> {
    let Validation::Files(pattern) = validation else { return Ok(()) };
    let count = source.inputs().iter().filter(|input| held_out.matches(input.name())).count();
    let names: Vec<&str> = source.inputs().iter().take(5).map(|input| input.name()).collect();
    let which = if count == 0 { "none" } else { "all" };
    if count == 0 || count == source.inputs().len() {
        let message =
            format!("matches {which} of the {} inputs ({}, …)", source.inputs().len(), names.join(", "));
        return Err(Error::Validation { rule: format!("--validation {pattern}"), message });
    }
    Ok(())
}

/// Creates the folder, or reads the settings of the preparation it holds.
pub(crate) fn open_folder(out: &Path) -> Result<Option<Settings>> {
    std::fs::create_dir_all(out).map_err(Error::io(out, "create the folder"))?;
    let settings = Settings::read(out)?;
    if settings.is_none() {
        // Locks and temporary files of a run that was killed, or is just starting, do no harm.
        let foreign = |name: &String| !name.ends_with(TEMPORARY) && !name.ends_with(LOCK);
        if names(out)?.iter().any(foreign) {
            return Err(Error::NotOurs { path: out.to_path_buf() });
        }
    }
    Ok(settings)
}

/// Writes settings and tokenizer, or checks that they are the ones already there.
fn begin(
    disk: &dyn Disk,
    out: &Path,
    settings: &Settings,
    found: Option<&Settings>,
    tokenizer: &Tokenizer,
) -> Result<()> {
    match found {
        Some(found) => settings.check_same(found, out)?,
        None => {
            let path = out.join(SETTINGS_FILE);
            write_atomic_on(disk, &path, &settings.to_bytes(&path)?)?;
        }
    }
    let path = out.join(TOKENIZER_FILE);
    match tokenizer.json() {
        // Also replaces one that was damaged since.
        Some(json) if std::fs::read(&path).ok().as_deref() != Some(json.as_bytes()) => {
            write_atomic_on(disk, &path, json.as_bytes())
        }
        _ => Ok(()),
    }
}

/// Writes the manifest, of the whole or of the part.
fn finish(
    disk: &dyn Disk,
    options: &PrepareOptions,
    settings: Settings,
    inputs: Vec<InputRecord>,
) -> Result<Summary> {
    let out = &options.out;
    if options.part != Part::WHOLE {
        let path = out.join(options.part.file());
        let part = PartManifest { part: options.part, settings, inputs };
        write_atomic_on(disk, &path, &part.to_bytes(&path)?)?;
        return Ok(Summary::of(out, &assemble(&part.settings, &part.inputs)).of_part(options.part));
    }
    let manifest = assemble(&settings, &inputs);
    write_manifest(disk, out, &manifest)?;
    remove_unnamed(out, &inputs)?;
    Ok(Summary::of(out, &manifest))
}

/// Removes shards an earlier version of an input left behind. `inputs` are all inputs of the folder.
fn remove_unnamed(out: &Path, inputs: &[InputRecord]) -> Result<()> {
    let named: BTreeSet<&str> = inputs.iter().flat_map(|i| i.shards()).map(|s| s.file.as_str()).collect();
    let prefixes = [Split::Train, Split::Validation].map(|split| format!("{split}-"));
    for name in names(out)? {
        let shard = name.ends_with(".bin") && prefixes.iter().any(|prefix| name.starts_with(prefix));
        if shard && !named.contains(name.as_str()) {
            remove(&out.join(name))?;
        }
    }
    Ok(())
}

/// Removes what a killed run was writing.
fn remove_temporary(out: &Path) -> Result<()> {
    for name in names(out)?.iter().filter(|name| name.ends_with(TEMPORARY)) {
        remove(&out.join(name))?;
    }
    Ok(())
}

/// Removes the manifest, because shards are about to change under it.
pub(crate) fn invalidate(out: &Path, part: Part) -> Result<()> {
    for name in [MANIFEST_FILE.to_owned(), part.file()] {
        let path = out.join(name);
        if path.exists() {
            remove(&path)?;
        }
    }
    Ok(())
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(Error::io(path, "remove"))
}

/// Names in the folder; those that are not UTF-8 are not ours.
fn names(out: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(out).map_err(Error::io(out, "list the folder"))? {
        let name = entry.map_err(Error::io(out, "list the folder"))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Ending of lock files.
const LOCK: &str = ".lock";

/// Keeps a second process out of the same part of the same folder. The system drops the lock when the process
/// ends, however it ends.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(out: &Path, part: Part) -> Result<Self> {
        let path = out.join(format!("part-{}-of-{}{LOCK}", part.index(), part.count()));
        let file = File::create(&path).map_err(Error::io(&path, "create"))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path: out.to_path_buf() }),
            // A file system without locks is no reason to refuse the work.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self { path, _file: file }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
