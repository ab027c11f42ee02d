//! Yuma consensus, classic, in f64: how the weights of several validators become one payout (R§6.4).
//!
//! One epoch: permits and activity decide whose weights count ([`mask`]); per server the stake-weighted median with κ is
//! the consensus, and what lies above it is clipped ([`consensus`]); clipped weights give incentive, and feed bonds whose
//! moving average gives validators their dividends ([`bonds`]); incentive and dividends split the emission
//! ([`emission`]). Around it: which weights may be set ([`weights`]), commit–reveal ([`reveal`]), registration and
//! pruning ([`registry`]), and all of it as one state ([`subnet`]).
//!
//! Where we differ from the chain: f64 instead of 32.32 fixed point (at most 2 units of the stored u16 apart, R§6.4);
//! Yuma3 and liquid alpha (R§6.4.12, 13) are left out: they are off by default and the run needs neither.
//! Matrices are nalgebra's, but products are written as column loops: its general product picks instructions by
//! processor, and results must be the same bits everywhere.
//!
//! Legend: V validators (rows: neurons that hold a permit), N neurons (columns).

pub mod bonds;
pub mod consensus;
pub mod emission;
pub mod mask;
pub mod registry;
pub mod reveal;
pub mod subnet;
pub mod weights;

use nalgebra::DMatrix;

/// Constants of an epoch. u16 fractions are of 65,535.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct YumaRules {
    /// κ: share of stake that must stand behind a weight (u16 fraction; half).
    pub kappa: u16,
    /// What of the bonds stays each epoch, in millionths (a = 1 − this/10⁶).
    pub bonds_moving_average: u32,
    /// Bonds penalty p: 1 buys bonds by clipped weights, 0 by weights as set (u16 fraction).
    pub bonds_penalty: u16,
    /// Blocks without setting weights after which a validator is inactive.
    pub activity_cutoff: u64,
    /// Neurons that hold a permit.
    pub max_validators: u16,
    /// Stake below which a neuron counts as having none; the subnet owner is exempt.
    pub stake_threshold: u64,
}

impl Default for YumaRules {
    /// The chain's defaults (R§6.2).
    fn default() -> Self {
        Self {
            kappa: 32_767,
            bonds_moving_average: 900_000,
            bonds_penalty: u16::MAX,
            activity_cutoff: 5_000,
            max_validators: 128,
            stake_threshold: 0,
        }
    }
}

/// A neuron as an epoch finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Neuron {
    /// Stake weight, in the chain's smallest unit.
    pub stake: u64,
    /// Weights set, (uid, u16); only their ratios matter.
    pub weights: Vec<(u16, u16)>,
    /// Bonds stored by the last epoch, (uid, u16).
    pub bonds: Vec<(u16, u16)>,
    /// Block of the last setting of weights.
    pub last_update: u64,
    /// Block of registration.
    pub registered_at: u64,
    /// Whether it holds a permit in this epoch, as stored by the last one.
    pub permit: bool,
    /// With commit–reveal: block of its earliest commitment that still waits.
    pub waiting_commit: Option<u64>,
    /// The subnet owner's hotkey.
    pub is_owner: bool,
}

/// What an epoch gives, by uid.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// Normalised stake, sum 1 or 0.
    pub stake: Vec<f64>,
    /// Consensus weight of each server.
    pub consensus: Vec<f64>,
    /// Share of a validator's weights that is within the consensus.
    pub validator_trust: Vec<f64>,
    /// Share of the servers' half, sum 1 or 0.
    pub incentive: Vec<f64>,
    /// Share of the validators' half, sum 1 or 0.
    pub dividends: Vec<f64>,
    /// Bonds to store, (uid, u16), for those who hold a permit in the next epoch.
    pub bonds: Vec<Vec<(u16, u16)>>,
    /// Permits of the next epoch.
    pub permits: Vec<bool>,
    /// Share of each neuron's emission that it earned as a server, in units of the whole: sum 1 with `validator_share`.
    pub server_share: Vec<f64>,
    /// The same as a validator.
    pub validator_share: Vec<f64>,
}

/// Runs an epoch at block `now`; `previous` is the block of the epoch before (bonds on neurons registered in it or
/// since are void).
pub fn epoch(rules: &YumaRules, neurons: &[Neuron], now: u64, previous: u64) -> Epoch {
    let n = neurons.len();
    let stake = mask::stake(rules, neurons);
    let active = mask::active_stake(rules, neurons, &stake, now);
    let rows: Vec<usize> = (0..n).filter(|i| neurons[*i].permit).collect();
    let row_stake: Vec<f64> = rows.iter().map(|i| active[*i]).collect();
    let weights = mask::weights(neurons, &rows);
    let kappa = f64::from(rules.kappa) / 65_535.0;
    let consensus = consensus::median(&weights, &row_stake, kappa);
    let clipped = consensus::clip(&weights, &consensus);
    let trust = consensus::trust(&clipped);
    let incentive = consensus::incentive(&clipped, &row_stake);
    let old = mask::bonds(neurons, &rows, previous);
    let bonds = bonds::update(rules, &weights, &clipped, &row_stake, &old);
    let row_dividends = bonds::dividends(&bonds, &incentive);
    let spread = |values: &[f64]| {
        let mut all = vec![0.0; n];
        rows.iter().zip(values).for_each(|(uid, value)| all[*uid] = *value);
        all
    };
    let (validator_trust, dividends) = (spread(&trust), spread(&row_dividends));
    let permits = mask::next_permits(rules, neurons, &stake);
    let stored = bonds::stored(&bonds, &rows, &permits);
    let (server_share, validator_share) = emission::shares(&incentive, &dividends, &active, &stake);
    Epoch {
        stake,
        consensus,
        validator_trust,
        incentive,
        dividends,
        bonds: stored,
        permits,
        server_share,
        validator_share,
    }
}

/// Scales `values` to sum 1; all zero stays zero.
pub(crate) fn normalise(values: &mut [f64]) {
    let sum: f64 = values.iter().sum();
    if sum > 0.0 {
        values.iter_mut().for_each(|x| *x /= sum);
    }
}

/// Scales each column to sum 1; a zero column stays zero.
pub(crate) fn normalise_columns(matrix: &mut DMatrix<f64>) {
    matrix.column_iter_mut().for_each(|mut column| {
        let sum: f64 = column.iter().sum();
        if sum > 0.0 {
            column.iter_mut().for_each(|x| *x /= sum);
        }
    });
}
