//! Honest work, now and then.

use anyhow::Result;
use gauntlet::draw::Draw;

use super::{Act, Behaviour, Draft, Honest, tools};

/// Misses windows with probability p.
pub(super) struct Absent(pub(super) f64);

impl Behaviour for Absent {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let mut draw = Draw::new(tools::seed(act, "absent"), "absent");
        #[allow(clippy::cast_precision_loss)] // 53 bits
        let uniform = (draw.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        if uniform < self.0 { Ok(None) } else { Honest.draft(act) }
    }
}
