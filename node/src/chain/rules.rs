//! Constants of an embedded chain: the `[chain]` section of a run's manifest.

use gauntlet::Hotkey;
use gauntlet::yuma::registry::RegistryRules;
use gauntlet::yuma::subnet::SubnetRules;
use gauntlet::yuma::weights::{WeightRules, WeightSetting};
use serde::{Deserialize, Serialize};

use super::{ChainError, Result, UNITS};

/// Rules of a ledger; fixed when its file is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LedgerRules {
    /// Milliseconds between blocks.
    pub(crate) block_time_ms: u64,
    /// Smallest units paid per block (1e9 a token), shared out at epochs.
    pub(crate) emission_per_block: u64,
    /// Registration, weights and epochs.
    pub(crate) subnet: SubnetRules,
    /// Gets the owner's cut, is paid no incentive, always holds a permit. None: the cut is burned.
    pub(crate) owner: Option<Hotkey>,
}

impl Default for LedgerRules {
    /// For runs of minutes to hours on one machine, where Bittensor's defaults are for weeks: short epochs, weights at any
    /// time, no shelter for newcomers.
    fn default() -> Self {
        Self {
            block_time_ms: 1_000,
            emission_per_block: UNITS,
            subnet: SubnetRules {
                tempo: 20,
                weights: WeightRules { rate_limit: 0, setting: WeightSetting::Direct, ..Default::default() },
                registry: RegistryRules { immunity: 0, ..Default::default() },
                ..Default::default()
            },
            owner: None,
        }
    }
}

impl LedgerRules {
    /// Refuses values under which the chain means nothing. Errors: [`ChainError::Rule`] names the field.
    pub(crate) fn check(&self) -> Result<()> {
        let SubnetRules { tempo, yuma, weights, registry, .. } = &self.subnet;
        let checks = [
            ("block_time_ms", (10..=3_600_000).contains(&self.block_time_ms), "in 10..=3600000"),
            (
                "emission_per_block",
                self.emission_per_block <= 1_000 * UNITS,
                "at most 1e12: a thousand tokens",
            ),
            ("subnet.tempo", (1..=1_000_000).contains(tempo), "in 1..=1000000"),
            ("subnet.yuma.bonds_moving_average", yuma.bonds_moving_average <= 1_000_000, "at most 1000000"),
            ("subnet.yuma.max_validators", yuma.max_validators >= 1, "at least 1"),
            (
                "subnet.weights.setting",
                weights.setting == WeightSetting::Direct,
                "\"direct\": the embedded chain has no commit-reveal",
            ),
            ("subnet.weights.max_weight", weights.max_weight >= 1, "at least 1"),
            ("subnet.registry.max_uids", registry.max_uids >= 1, "at least 1"),
        ];
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, want)) => Err(ChainError::Rule { field, want }),
            None => Ok(()),
        }
    }

    /// The first field in which `made` differs, in words.
    pub(super) fn difference(made: &Self, asked: &Self) -> Option<String> {
        let (made, asked) = (serde_json::to_value(made).ok()?, serde_json::to_value(asked).ok()?);
        differing("chain", &made, &asked)
    }
}

fn differing(at: &str, made: &serde_json::Value, asked: &serde_json::Value) -> Option<String> {
    let (Some(a), Some(b)) = (made.as_object(), asked.as_object()) else {
        return (made != asked).then(|| format!("{at} = {made}, now {asked}"));
    };
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let none = serde_json::Value::Null;
    let part = |map: &serde_json::Map<_, _>, key| map.get(key).unwrap_or(&none).clone();
    keys.into_iter().find_map(|key| differing(&format!("{at}.{key}"), &part(a, key), &part(b, key)))
}
