//! Documents taken from an input together: enough to keep all processors busy, little enough for memory.

use crate::error::Result;
use crate::source::Documents;

/// A portion ends with the document that reaches this many bytes …
const BYTES: usize = 4 << 20;

/// … or with this many documents.
const DOCUMENTS: usize = 4096;

/// Some documents of an input, in order.
pub(crate) struct Portion {
    /// The texts, none of them empty.
    pub(crate) texts: Vec<String>,
    /// Documents without text between them.
    pub(crate) empty: u64,
    /// Whether the input ends here.
    pub(crate) last: bool,
}

impl Portion {
    pub(crate) fn read(documents: &mut Documents) -> Result<Self> {
        let mut portion = Self { texts: Vec::new(), empty: 0, last: false };
        let mut bytes = 0;
        while bytes < BYTES && portion.texts.len() < DOCUMENTS {
            match documents.next().transpose()? {
                None => {
                    portion.last = true;
                    break;
                }
                Some(Some(text)) if !text.is_empty() => {
                    bytes += text.len();
                    portion.texts.push(text);
                }
                Some(_) => portion.empty += 1,
            }
        }
        Ok(portion)
    }
}
