//! An object that is none.

use anyhow::Result;
use gauntlet::draw::Draw;

use super::{Act, Behaviour, Draft, tools};

/// Random bytes.
pub(super) struct Malformed;

impl Behaviour for Malformed {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let mut draw = Draw::new(tools::seed(act, "bytes"), "bytes");
        let object = (0..128).flat_map(|_| draw.bits().to_le_bytes()).collect();
        Ok(Some(Draft::new(object, None)))
    }
}
