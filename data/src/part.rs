//! Splitting the work over machines: part i of n prepares the inputs with index ≡ i (mod n), and
//! [`crate::merge`] joins the parts.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::{ShardRecord, is_plain, to_json};
use crate::settings::Settings;

/// Part `index` of `count`; counted from 0, as in Kubernetes' JOB_COMPLETION_INDEX. Written `0/8` … `7/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    index: u32,
    count: u32,
}

impl Part {
    /// All of the work.
    pub const WHOLE: Part = Part { index: 0, count: 1 };

    /// Part `index` of `count`.
    ///
    /// # Errors
    /// [`Error::Part`] unless index < count.
    pub fn new(index: u32, count: u32) -> Result<Self> {
        if index < count {
            return Ok(Self { index, count });
        }
        Err(Error::Part { part: format!("{index}/{count}"), message: "parts of n are 0/n to (n-1)/n" })
    }

    /// Which part.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Of how many.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether the input at `index` belongs to this part.
    pub(crate) fn takes(self, index: usize) -> bool {
        index % self.count as usize == self.index as usize
    }

    /// File name of the part's manifest.
    pub(crate) fn file(self) -> String {
        format!("manifest.part-{}-of-{}.json", self.index, self.count)
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(part: &str) -> Result<Self> {
        let numbers = part.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) => Self::new(index, count),
            None => Err(Error::Part { part: part.to_owned(), message: "write it as i/n, such as 0/8" }),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// What one input became; also the sidecar file that says its shards are complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputRecord {
    /// Position in the sorted inputs.
    pub(crate) index: usize,
    pub(crate) name: String,
    /// [`Settings::key`] with the input's identity; not part of manifests.
    pub(crate) key: String,
    pub(crate) empty_documents: u64,
    pub(crate) train: Vec<ShardRecord>,
    pub(crate) validation: Vec<ShardRecord>,
}

impl InputRecord {
    /// File name of the sidecar of input `index`.
    pub(crate) fn file(index: usize) -> String {
        format!("input-{index:06}.json")
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &ShardRecord> {
        self.train.iter().chain(&self.validation)
    }
}

/// `manifest.part-i-of-n.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartManifest {
    pub(crate) part: Part,
    pub(crate) settings: Settings,
    pub(crate) inputs: Vec<InputRecord>,
}

impl PartManifest {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read the part's manifest"))?;
        let part: Self = serde_json::from_slice(&bytes).map_err(|e| Error::manifest(path, e.to_string()))?;
        let shards = part.inputs.iter().flat_map(InputRecord::shards).map(|shard| &shard.file);
        if !shards.chain(&part.settings.tokenizer.file).all(|file| is_plain(file)) {
            return Err(Error::manifest(path, "a file in it is not a plain file name"));
        }
        Ok(part)
    }

    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        to_json(self, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        assert_eq!("3/8".parse::<Part>().unwrap(), Part::new(3, 8).unwrap());
        assert_eq!(Part::new(3, 8).unwrap().to_string(), "3/8");
        for wrong in ["8/8", "1/0", "x/2", "1", "-1/2", "1/2/3"] {
            assert!(matches!(wrong.parse::<Part>(), Err(Error::Part { .. })), "{wrong}");
        }
        assert_eq!((0..10).filter(|i| Part::new(1, 3).unwrap().takes(*i)).collect::<Vec<_>>(), [1, 4, 7]);
    }
}
