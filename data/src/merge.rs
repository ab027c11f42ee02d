//! Joins the parts of a preparation that was split over machines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest::{FORMAT, MANIFEST_FILE, Manifest, ShardRecord, Split, SplitRecord};
use crate::output::{Disk, FileSystem, Pending, write_atomic, write_atomic_on};
use crate::part::{InputRecord, PartManifest};
use crate::prepare::open_folder;
use crate::progress::{Advance, Phase, Progress, Totals};
use crate::settings::{SETTINGS_FILE, Settings};
use crate::summary::Summary;
use crate::validation::Validation;

/// Joins the parts found in `folders` into `out`, which may be one of them. Shards that lie elsewhere are
/// copied and checked; the result has the same bytes as if one process had prepared everything.
///
/// # Errors
/// [`Error::MissingPart`] names a part that is not there, [`Error::Settings`] parts that do not belong
/// together, [`Error::ShardHash`] a shard that is not what its part says; [`Error::Stopped`].
pub fn merge(folders: &[PathBuf], out: &Path, progress: &impl Progress) -> Result<Summary> {
    let parts = find(folders)?;
    let Some((first_folder, first)) = parts.first() else {
        return Err(missing(0, 1, folders));
    };
    let settings = &first.settings;
    let inputs = cover(&parts, settings, folders)?;
    if let Some(found) = open_folder(out)? {
        settings.check_same(&found, out)?;
    }
    let copied: Vec<(&PathBuf, &ShardRecord)> = inputs
        .iter()
        .filter(|(folder, _)| folder.as_path() != out)
        .flat_map(|(folder, input)| input.shards().map(move |shard| (*folder, shard)))
        .collect();
    let width = settings.dtype().width() as u64;
    let bytes = copied.iter().map(|(_, shard)| shard.tokens.saturating_mul(width));
    let totals = Totals { inputs: copied.len() as u64, bytes: bytes.fold(0, u64::saturating_add) };
    progress.start(Phase::Copy, totals);
    copied.into_iter().try_for_each(|(folder, shard)| fetch(folder, out, shard, progress))?;
    let tokenizer = settings.tokenizer.file.as_deref();
    for name in [SETTINGS_FILE].into_iter().chain(tokenizer) {
        let (from, to) = (first_folder.join(name), out.join(name));
        let bytes = std::fs::read(&from).map_err(Error::io(&from, "read"))?;
        if std::fs::read(&to).ok().as_ref() != Some(&bytes) {
            write_atomic(&to, &bytes)?;
        }
    }
    let records: Vec<InputRecord> = inputs.into_iter().map(|(_, input)| input.clone()).collect();
    let manifest = assemble(settings, &records);
    write_manifest(&FileSystem, out, &manifest)?;
    Ok(Summary::of(out, &manifest))
}

/// Where a part lies, and its manifest.
type Found = (PathBuf, PartManifest);

/// Every input of the source exactly once, in order, with the folder it lies in.
fn cover<'a>(
    parts: &'a [Found],
    settings: &Settings,
    folders: &[PathBuf],
) -> Result<Vec<(&'a PathBuf, &'a InputRecord)>> {
    let count = parts.first().map_or(1, |(_, part)| part.part.count());
    if let Some((folder, other)) = parts.iter().find(|(_, p)| p.part.count() != count) {
        let message =
            format!("one of {} parts beside one of {count}; remove what is stale", other.part.count());
        return Err(Error::manifest(&folder.join(other.part.file()), message));
    }
    let mut inputs = Vec::new();
    for index in 0..count {
        let Some((folder, part)) = parts.iter().find(|(_, p)| p.part.index() == index) else {
            return Err(missing(index, count, folders));
        };
        settings.check_same(&part.settings, folder)?;
        inputs.extend(part.inputs.iter().map(|input| (folder, input)));
    }
    inputs.sort_by_key(|(_, input)| input.index);
    let once = inputs.iter().enumerate().all(|(i, (_, input))| input.index == i);
    match inputs.first() {
        Some((folder, _)) if !once || inputs.len() != settings.inputs => {
            Err(Error::manifest(folder, "the parts do not cover each input once"))
        }
        _ => Ok(inputs),
    }
}

/// The manifest over all `inputs`, in their order.
pub(crate) fn assemble(settings: &Settings, inputs: &[InputRecord]) -> Manifest {
    let mut splits = BTreeMap::from([(Split::Train, SplitRecord::default())]);
    if settings.validation != Validation::None.describe() {
        splits.insert(Split::Validation, SplitRecord::default());
    }
    for input in inputs {
        for (split, shards) in [(Split::Train, &input.train), (Split::Validation, &input.validation)] {
            for shard in shards {
                splits.entry(split).or_default().push(shard.clone());
            }
        }
    }
    Manifest {
        format: FORMAT,
        source: settings.source.clone(),
        validation: settings.validation.clone(),
        tokenizer: settings.tokenizer.clone(),
        dtype: settings.dtype(),
        empty_documents: inputs.iter().map(|input| input.empty_documents).sum(),
        splits,
    }
}

/// Writes the manifest of a whole folder, in which every split has text.
pub(crate) fn write_manifest(disk: &dyn Disk, out: &Path, manifest: &Manifest) -> Result<()> {
    for (split, record) in &manifest.splits {
        if record.tokens == 0 {
            let hint = match split {
                Split::Train => "give files that hold text, and hold out less",
                Split::Validation => "hold out a larger fraction, or a file that holds text",
            };
            return Err(Error::EmptyCorpus { name: manifest.source.clone(), split: *split, hint });
        }
    }
    let path = out.join(MANIFEST_FILE);
    write_atomic_on(disk, &path, &manifest.to_bytes(&path)?)
}

/// All manifests of parts in `folders`.
fn find(folders: &[PathBuf]) -> Result<Vec<Found>> {
    let mut parts = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list the folder"))? {
            let path = entry.map_err(Error::io(folder, "list the folder"))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("manifest.part-") && name.ends_with(".json") {
                parts.push((folder.clone(), PartManifest::read(&path)?));
            }
        }
    }
    parts.sort_by_key(|(_, part)| (part.part.count(), part.part.index()));
    Ok(parts)
}

fn missing(index: u32, count: u32, folders: &[PathBuf]) -> Error {
    let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    Error::MissingPart { missing: index, count, folders: folders.join(", ") }
}

/// Copies a shard from `folder` to `out` and checks it on the way.
fn fetch(folder: &Path, out: &Path, shard: &ShardRecord, progress: &impl Progress) -> Result<()> {
    let (from, to) = (folder.join(&shard.file), out.join(&shard.file));
    let mut source = File::open(&from).map_err(Error::io(&from, "open the shard"))?;
    let mut pending = Pending::create(&FileSystem, &to, "")?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        let count = source.read(&mut buffer).map_err(Error::io(&from, "read the shard"))?;
        if count == 0 {
            break;
        }
        if progress.stopped() {
            return Err(Error::Stopped);
        }
        progress.advance(Advance { input_bytes: count as u64, ..Advance::default() });
        hasher.update(&buffer[..count]);
        pending.write(&buffer[..count])?;
    }
    let found = hasher.finalize().to_hex().to_string();
    if found != shard.blake3 {
        return Err(Error::ShardHash { path: from, expected: shard.blake3.clone(), found });
    }
    pending.commit()
}
