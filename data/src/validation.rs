//! Which documents are held out.

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::Split;

/// How the validation split is chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// No validation split.
    #[default]
    None,
    /// All documents of the inputs of which the name, or its last component, matches a glob such as
    /// `ulysses.txt` or `test/**`.
    Files(String),
    /// This share of all documents, 0 < share < 1, chosen by the hash of their text: the same documents
    /// whatever the file they stand in, and equal documents on the same side.
    Fraction(f64),
}

impl Validation {
    /// In words, for manifests and settings.
    pub fn describe(&self) -> String {
        match self {
            Validation::None => "none".to_owned(),
            Validation::Files(pattern) => format!("files {pattern}"),
            Validation::Fraction(share) => format!("fraction {share} of documents"),
        }
    }

    /// Checks the values and compiles the pattern.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub(crate) fn compile(&self) -> Result<HeldOut> {
        match self {
            Validation::None => Ok(HeldOut::Nothing),
            Validation::Files(pattern) => match Glob::new(pattern) {
                Ok(glob) => Ok(HeldOut::Files(glob.compile_matcher())),
                Err(e) => {
                    Err(Error::Validation { rule: format!("--validation {pattern}"), message: e.to_string() })
                }
            },
            Validation::Fraction(share) if *share > 0.0 && *share < 1.0 => Ok(HeldOut::Below(*share)),
            Validation::Fraction(share) => Err(Error::Validation {
                rule: format!("--validation-fraction {share}"),
                message: "the share of documents must lie between 0 and 1".to_owned(),
            }),
        }
    }
}

/// A [`Validation`] that can be asked.
pub(crate) enum HeldOut {
    Nothing,
    Files(GlobMatcher),
    Below(f64),
}

impl HeldOut {
    /// Whether the rule goes by the input's name and `name` is held out.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let HeldOut::Files(glob) = self else { return false };
        glob.is_match(name) || name.rsplit('/').next().is_some_and(|file| glob.is_match(file))
    }

    /// The split of a document with `text` in the input `name`.
    pub(crate) fn split(&self, name: &str, text: &str) -> Split {
        let held_out = match self {
            HeldOut::Nothing => false,
            HeldOut::Files(_) => self.matches(name),
            HeldOut::Below(share) => {
                let mut first = [0u8; 8];
                first.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
                // 53 bits, so that the quotient is exact.
                let uniform = (u64::from_le_bytes(first) >> 11) as f64 / (1u64 << 53) as f64;
                uniform < *share
            }
        };
        if held_out { Split::Validation } else { Split::Train }
    }
}
