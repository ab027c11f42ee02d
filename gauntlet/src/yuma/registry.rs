//! Registration: who gets a uid, and whose uid it was (R§6.7).
//!
//! While there is room a newcomer gets the next uid. Then it replaces, among neurons that are not immune, the one with
//! the lowest last emission, ties by oldest registration, then lowest uid; where no more than `min_non_immune` are left
//! outside immunity, the same choice falls among the immune. Owner hotkeys are never replaced. Weights, bonds and
//! commitments of and on the former tenant are void. Scores are not kept by uid anywhere in this crate, so the newcomer
//! inherits none (in the reference it did).

use crate::ChainFault;
use serde::{Deserialize, Serialize};

/// Constants of registration (R§6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryRules {
    /// Slots.
    pub max_uids: u16,
    /// Blocks after registration in which a neuron is immune.
    pub immunity: u64,
    /// Neurons outside immunity that are spared from replacement.
    pub min_non_immune: u16,
}

impl Default for RegistryRules {
    fn default() -> Self {
        Self { max_uids: 256, immunity: 4_096, min_non_immune: 10 }
    }
}

/// What the choice depends on, per uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Block of registration.
    pub registered_at: u64,
    /// What the last epoch paid it.
    pub emission: u64,
    /// The subnet owner's.
    pub is_owner: bool,
}

/// The uid of a newcomer at block `now`. Errors: [`ChainFault::NoSlot`] where all neurons are the owner's.
pub fn slot(rules: &RegistryRules, tenants: &[Tenant], now: u64) -> Result<u16, ChainFault> {
    if let Ok(next) = u16::try_from(tenants.len())
        && next < rules.max_uids
    {
        return Ok(next);
    }
    let immune = |t: &Tenant| now.saturating_sub(t.registered_at) < rules.immunity;
    let (sheltered, open): (Vec<_>, Vec<_>) =
        tenants.iter().enumerate().filter(|(_, t)| !t.is_owner).partition(|(_, t)| immune(t));
    let spared = open.len() <= usize::from(rules.min_non_immune);
    let pool = if spared && !sheltered.is_empty() { sheltered } else { open };
    let weakest = pool.into_iter().min_by_key(|(uid, t)| (t.emission, t.registered_at, *uid));
    weakest.and_then(|(uid, _)| u16::try_from(uid).ok()).ok_or(ChainFault::NoSlot)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RegistryRules = RegistryRules { max_uids: 4, immunity: 100, min_non_immune: 0 };

    fn tenant(registered_at: u64, emission: u64) -> Tenant {
        Tenant { registered_at, emission, is_owner: false }
    }

    #[test]
    fn lowest_emission_then_oldest_then_lowest_uid() {
        let slot = |tenants: &[Tenant]| slot(&RULES, tenants, 500);
        assert_eq!(slot(&[tenant(0, 9), tenant(0, 9)]), Ok(2), "room left");
        assert_eq!(slot(&[tenant(0, 9), tenant(0, 5), tenant(0, 7), tenant(450, 0)]), Ok(1), "3 is immune");
        assert_eq!(slot(&[tenant(3, 5), tenant(2, 5), tenant(1, 7), tenant(2, 5)]), Ok(1));
        let all_new = [tenant(450, 3), tenant(460, 2), tenant(470, 2), tenant(480, 9)];
        assert_eq!(slot(&all_new), Ok(1), "nobody is outside immunity");
        let owner = Tenant { is_owner: true, ..tenant(0, 0) };
        assert_eq!(slot(&[owner, tenant(0, 5), owner, owner]), Ok(1));
        assert_eq!(slot(&[owner; 4]), Err(ChainFault::NoSlot));
    }

    #[test]
    fn some_outside_immunity_are_spared() {
        let rules = RegistryRules { min_non_immune: 2, ..RULES };
        let tenants = [tenant(0, 1), tenant(0, 2), tenant(450, 7), tenant(460, 6)];
        assert_eq!(slot(&rules, &tenants, 500), Ok(3), "only two are left outside");
        assert_eq!(slot(&rules, &tenants, 551), Ok(0), "now three are");
    }
}
