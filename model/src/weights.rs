//! Weights as safetensors, as Hugging Face lays them out: `model.safetensors`, or shards with
//! `model.safetensors.index.json`. Written as f32; read from f32, f16 or bf16.
#![allow(unsafe_code)] // one memory map, of a file that is only read

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use serde_json::{Value, json};

use crate::error::{ModelError, Result};
use crate::layout::{Layout, Param};

/// Largest shard written, in bytes, unless one tensor alone is larger.
pub const SHARD_BYTES: usize = 4 << 30;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Reads all tensors of `layout` into `theta` (`layout.total()` values) from a folder or one file.
///
/// # Errors
/// When a file is missing, truncated or no safetensors, when a tensor is missing, superfluous, of
/// another shape or type: the message names the file or the tensor.
pub fn read(path: &Path, layout: &Layout, theta: &mut [f32]) -> Result<()> {
    let files = files(path)?;
    let mut missing: BTreeMap<&str, &Param> = layout.params().iter().map(|p| (p.name.as_str(), p)).collect();
    for file in files {
        read_file(&file, &mut missing, theta)?;
    }
    match missing.keys().next() {
        None => Ok(()),
        Some(name) => Err(ModelError::tensor(path, name, "is missing")),
    }
}

/// [`read`] into a buffer of its own, which is not allocated before the files could hold the weights.
///
/// # Errors
/// As [`read`], and when the files are too small or memory is short.
pub fn load(path: &Path, layout: &Layout) -> Result<Vec<f32>> {
    let mut bytes = 0;
    for file in files(path)? {
        bytes += std::fs::metadata(&file).map_err(|e| ModelError::io(&file, e))?.len();
    }
    let total = layout.total();
    // The smallest type that is read has two bytes.
    if bytes < 2 * total as u64 {
        let problem = format!(
            "config.json names {total} parameters, the weights have {bytes} bytes; copy or export it again"
        );
        return Err(ModelError::format(path, problem));
    }
    let mut theta = Vec::new();
    theta
        .try_reserve_exact(total)
        .map_err(|e| ModelError::format(path, format!("{e}; free memory, or take a smaller model")))?;
    theta.resize(total, 0.0);
    read(path, layout, &mut theta)?;
    Ok(theta)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let index = path.join(INDEX);
    if !index.exists() {
        return Ok(vec![path.join(SINGLE)]);
    }
    let text = std::fs::read_to_string(&index).map_err(|e| ModelError::io(&index, e))?;
    let damaged = |problem: String| ModelError::format(&index, format!("{problem}; copy or export it again"));
    let value: Value = serde_json::from_str(&text).map_err(|e| damaged(format!("no JSON ({e})")))?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(damaged("has no object 'weight_map'".into()));
    };
    let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    names
        .into_iter()
        .map(|name| match Path::new(name).file_name() {
            // A shard name is a file beside the index, never a path to elsewhere.
            Some(file) if file == name => Ok(path.join(name)),
            _ => Err(damaged(format!("'{name}' in 'weight_map' is not a plain file name"))),
        })
        .collect()
}

fn read_file(path: &Path, missing: &mut BTreeMap<&str, &Param>, theta: &mut [f32]) -> Result<()> {
    let file = File::open(path).map_err(|e| ModelError::io(path, e))?;
    // SAFETY: the map is private and read-only; the file belongs to this run, and a concurrent writer
    // replaces it by renaming, which leaves the mapped one as it was.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| ModelError::io(path, e))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| {
        ModelError::format(path, format!("not a whole safetensors file ({e}); copy or export it again"))
    })?;
    // Sorted, so that the first problem named is always the same one.
    let mut views: Vec<_> = tensors.iter().collect();
    views.sort_by_key(|(name, _)| *name);
    for (name, view) in views {
        let Some((_, param)) = missing.remove_entry(name) else {
            // Buffers some exporters add carry no weights.
            if name.ends_with("rotary_emb.inv_freq") {
                continue;
            }
            return Err(ModelError::tensor(path, name, "is not part of this model"));
        };
        if view.shape() != param.shape {
            let (have, want) = (view.shape(), &param.shape);
            let problem = format!("has shape {have:?}, config.json wants {want:?}");
            return Err(ModelError::tensor(path, name, problem));
        }
        let Some(out) = theta.get_mut(param.range()) else {
            return Err(ModelError::tensor(path, name, "lies outside the buffer given"));
        };
        decode(view.dtype(), view.data(), out).map_err(|problem| ModelError::tensor(path, name, problem))?;
    }
    Ok(())
}

fn decode(dtype: Dtype, data: &[u8], out: &mut [f32]) -> std::result::Result<(), String> {
    match dtype {
        Dtype::F32 => {
            for (v, b) in out.iter_mut().zip(data.as_chunks::<4>().0) {
                *v = f32::from_le_bytes(*b);
            }
        }
        Dtype::BF16 => {
            for (v, b) in out.iter_mut().zip(data.as_chunks::<2>().0) {
                *v = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        Dtype::F16 => {
            for (v, b) in out.iter_mut().zip(data.as_chunks::<2>().0) {
                *v = half::f16::from_le_bytes(*b).to_f32();
            }
        }
        other => {
            return Err(format!("is {other:?}, only F32, BF16 and F16 are read"));
        }
    }
    Ok(())
}

/// Writes θ into `folder` as one file, or as shards of at most `shard_bytes` with an index.
///
/// Every file is written under a temporary name, synced and renamed: a reader never sees half of one.
///
/// # Errors
/// When the folder cannot be written or the disk is full.
pub fn write(folder: &Path, layout: &Layout, theta: &[f32], shard_bytes: usize) -> Result<()> {
    let shards = split(layout.params(), shard_bytes);
    if let [only] = shards.as_slice() {
        return write_file(&folder.join(SINGLE), only, theta);
    }
    let mut weight_map = BTreeMap::new();
    let n = shards.len();
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{n:05}.safetensors", i + 1);
        write_file(&folder.join(&name), shard, theta)?;
        weight_map.extend(shard.iter().map(|p| (p.name.clone(), name.clone())));
    }
    let index = json!({ "metadata": { "total_size": 4 * layout.total() }, "weight_map": weight_map });
    write_atomically(&folder.join(INDEX), |path| {
        std::fs::write(path, format!("{index:#}\n")).map_err(|e| ModelError::io(path, e))
    })
}

fn split(params: &[Param], shard_bytes: usize) -> Vec<Vec<&Param>> {
    let mut shards: Vec<Vec<&Param>> = Vec::new();
    let mut room = 0;
    for param in params {
        let bytes = 4 * param.len;
        match shards.last_mut().filter(|_| bytes <= room) {
            Some(shard) => shard.push(param),
            None => {
                shards.push(vec![param]);
                room = shard_bytes.max(bytes);
            }
        }
        room -= bytes;
    }
    shards
}

fn write_file(path: &Path, params: &[&Param], theta: &[f32]) -> Result<()> {
    let tensors = params.iter().map(|p| {
        let values = theta.get(p.range()).unwrap_or_default();
        (p.name.as_str(), Tensor { shape: &p.shape, values })
    });
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    write_atomically(path, |to| {
        // Created here, the file has the permissions the user's umask gives; the crate would make it private.
        File::create(to).map_err(|e| ModelError::io(path, e))?;
        safetensors::serialize_to_file(tensors, Some(metadata), to)
            .map_err(|e| ModelError::format(path, format!("cannot write ({e}); free disk space")))
    })
}

/// Writes through `write` to a temporary name beside `path`, syncs, and renames.
///
/// # Errors
/// Those of `write`, and those of syncing and renaming; the temporary file is removed.
pub fn write_atomically(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let sync = |at: &Path| File::open(at).and_then(|f| f.sync_all()).map_err(|e| ModelError::io(path, e));
    let result = write(&temporary)
        .and_then(|()| sync(&temporary))
        .and_then(|()| std::fs::rename(&temporary, path).map_err(|e| ModelError::io(path, e)));
    if result.is_err() {
        // The first error is the one to report; a leftover is overwritten by the next attempt.
        let _ = std::fs::remove_file(&temporary);
        return result;
    }
    // A bare name lies in the working folder.
    path.parent().map_or(Ok(()), |folder| sync(if folder == Path::new("") { Path::new(".") } else { folder }))
}

struct Tensor<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::preset;

    fn model() -> (Layout, Vec<f32>) {
        let mut config = preset("byte-1m").unwrap();
        config.n_layers = 2;
        let layout = Layout::new(&config);
        let mut theta = vec![0.0; layout.total()];
        crate::init::init(&layout, 1, &mut theta);
        (layout, theta)
    }

    #[test]
    fn one_file_and_shards_read_back_the_same_bits() {
        let (layout, theta) = model();
        for shard_bytes in [SHARD_BYTES, 300_000] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &layout, &theta, shard_bytes).unwrap();
            let shards = std::fs::read_dir(folder.path()).unwrap().count();
            assert!(if shard_bytes == SHARD_BYTES { shards == 1 } else { shards > 3 }, "{shards}");
            let mut back = vec![0.0; layout.total()];
            read(folder.path(), &layout, &mut back).unwrap();
            assert_eq!(back, theta);
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_named() {
        let (layout, theta) = model();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(SINGLE);
        let mut back = vec![0.0; layout.total()];
        let missing = read(folder.path(), &layout, &mut back).unwrap_err().to_string();
        assert!(missing.contains(SINGLE), "{missing}");

        write(folder.path(), &layout, &theta, SHARD_BYTES).unwrap();
        let whole = std::fs::read(&file).unwrap();
        for len in [0, 7, 100, whole.len() - 1] {
            std::fs::write(&file, &whole[..len]).unwrap();
            let message = read(folder.path(), &layout, &mut back).unwrap_err().to_string();
            assert!(message.contains(SINGLE), "{message}");
        }
        std::fs::write(&file, &whole).unwrap();
        let mut wider = preset("byte-1m").unwrap();
        wider.n_layers = 2;
        wider.intermediate_size = 448;
        let message =
            read(folder.path(), &Layout::new(&wider), &mut vec![0.0; 1 << 20]).unwrap_err().to_string();
        assert!(message.contains("down_proj") && message.contains("448"), "{message}");
        wider.intermediate_size = 384;
        wider.n_layers = 3;
        let message =
            read(folder.path(), &Layout::new(&wider), &mut vec![0.0; 1 << 20]).unwrap_err().to_string();
        assert!(message.contains("model.layers.2") && message.contains("missing"), "{message}");
    }

    #[test]
    fn an_index_cannot_point_outside_its_folder() {
        let (layout, _) = model();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(INDEX), r#"{"weight_map": {"a": "../secret"}}"#).unwrap();
        let message = read(folder.path(), &layout, &mut []).unwrap_err().to_string();
        assert!(message.contains("../secret"), "{message}");
    }
}
