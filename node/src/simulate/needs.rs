//! What a simulation takes of this machine's memory, for its plan and to refuse in time what would not fit. Much of it grows
//! with every window: buckets lie in memory unless they are kept in folders, and all stays in them unless `window.keep` says
//! otherwise.

use serde::Serialize;

use super::settings::Settings;
use crate::run::compute::Plan;
use crate::run::context::Run;
use crate::run::{commitment, values};

/// What an object in memory takes beside its bytes: its key, a time, an entry in two maps.
const ENTRY: usize = 512;

/// What a validator publishes and remembers of a peer in a window, but for overlaps; of an overlap; of all else.
const OF_PEER: usize = 512;
const OF_OVERLAP: usize = 40;
const OF_WINDOW: usize = 4096;

/// Events of a peer by one validator in a window, and its rows in the chain's history.
const EVENTS: usize = 1024;
const ROWS: usize = 256;

/// Bytes, by what holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HostMemory {
    /// θ, gradient, trial, a few results of outer steps; the baseline's three where it runs; a momentum each where they
    /// are not on a device.
    pub(crate) model_bytes: usize,
    /// What the buckets hold in the end.
    pub(crate) bucket_bytes: usize,
    /// Events and the chain's history in the end.
    pub(crate) history_bytes: usize,
}

impl HostMemory {
    /// For what is computed `there`, on a device with memory of its own, or here.
    pub(crate) fn new(run: &Run, settings: &Settings, there: Option<&Plan>) -> Self {
        let (peers, validators) = (settings.n_peers(), settings.validators.len());
        let windows = length(settings.windows);
        let theta = 4 * run.layout.total();
        let momenta = if there.is_some_and(|plan| plan.momenta_on_device) { 0 } else { peers };
        let baseline = if settings.baseline { 3 } else { 0 };
        let history = peers.saturating_mul(validators * EVENTS + ROWS).saturating_add(OF_WINDOW);
        Self {
            model_bytes: (momenta + baseline + 9).saturating_mul(theta),
            bucket_bytes: if settings.keep_objects { 0 } else { buckets(run, settings) },
            history_bytes: windows.saturating_mul(history),
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.model_bytes.saturating_add(self.bucket_bytes).saturating_add(self.history_bytes)
    }
}

fn buckets(run: &Run, settings: &Settings) -> usize {
    let (peers, validators) = (settings.n_peers(), settings.validators.len());
    let (rules, window) = (&run.manifest.gauntlet, &run.manifest.window);
    let object = length(run.max_object());
    let gathered = peers.min(run.record_limits().gather);
    let looked_at = peers.min(gathered.saturating_add(rules.fast.sample as usize));
    let replayed = gathered.saturating_mul(length(rules.overlap.replay_windows));

    // A miner's object, commitment and values; those with two faces have another bucket.
    let submitted = object + commitment::LEN + values::LEN + 3 * ENTRY;
    let twofold = settings.peers.iter().filter(|entry| entry.kind.has_two_faces());
    let miners = peers + twofold.map(|entry| entry.count).sum::<usize>();
    // A record; a statement that carries it.
    let record = OF_WINDOW + peers * OF_PEER;
    // Each validator serves the record and the bundle it applied.
    let bundle = gathered.saturating_mul(object) + ENTRY;
    let overlaps = looked_at.saturating_mul(looked_at.saturating_add(replayed));
    let judgement = OF_WINDOW + peers * OF_PEER + overlaps.saturating_mul(OF_OVERLAP);
    let passing = miners
        .saturating_mul(submitted)
        .saturating_add(validators.saturating_mul(bundle.saturating_add(judgement).saturating_add(record)));
    let checkpoint = validators.saturating_mul(4 * run.layout.total() + OF_WINDOW);

    let windows = length(settings.windows);
    // What is older goes when a window ends, so for a moment there is one more.
    let kept = if window.keep == 0 { windows } else { windows.min(length(window.keep).saturating_add(1)) };
    let checkpoints = kept / length(window.checkpoint_every).max(1) + usize::from(window.keep > 0);
    kept.saturating_mul(passing)
        .saturating_add(windows.saturating_mul(validators).saturating_mul(record))
        .saturating_add(checkpoints.saturating_mul(checkpoint))
}

/// A number of a manifest, which may be larger than memory.
fn length(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::compute::tests::tiny_run;
    use crate::simulate::spec;

    fn settings(peers: &str, windows: u64) -> Settings {
        Settings {
            peers: spec::peers(peers).unwrap(),
            validators: spec::validators("2").unwrap(),
            stakes: vec![2, 1],
            windows,
            sequences: 1,
            seed: 1,
            keep_objects: false,
            baseline: false,
        }
    }

    #[test]
    fn what_grows_with_the_windows_is_counted() {
        let mut run = tiny_run();
        let of = |run: &Run, windows| HostMemory::new(run, &settings("honest:4", windows), None);
        let (ten, thousand) = (of(&run, 10), of(&run, 1_000));
        assert_eq!(ten.model_bytes, thousand.model_bytes);
        assert_eq!(thousand.bucket_bytes, 100 * ten.bucket_bytes);
        assert_eq!(thousand.history_bytes, 100 * ten.history_bytes);
        // A checkpoint of each validator in ten windows, and each window's objects thrice: of their owners, in two bundles.
        let checkpoints = 2 * 4 * run.layout.total();
        let objects = 10 * 3 * 4 * usize::try_from(run.max_object()).unwrap();
        assert!(ten.bucket_bytes > checkpoints + objects, "{ten:?}");
        // What nodes take back is not there in the end.
        run.manifest.window.keep = 30;
        let kept = of(&run, 1_000);
        assert!(kept.bucket_bytes < thousand.bucket_bytes / 4, "{kept:?}");
        assert!(kept.bucket_bytes > of(&run, 30).bucket_bytes - checkpoints, "{kept:?}");
    }

    #[test]
    fn what_lies_in_folders_or_twice_is_counted_so() {
        let run = tiny_run();
        let in_folders = Settings { keep_objects: true, ..settings("honest:4", 10) };
        let (memory, folders) = (
            HostMemory::new(&run, &settings("honest:4", 10), None),
            HostMemory::new(&run, &in_folders, None),
        );
        assert_eq!(folders, HostMemory { bucket_bytes: 0, ..memory });
        assert_eq!(folders.total(), folders.model_bytes + folders.history_bytes);
        let twofold = HostMemory::new(&run, &settings("honest:3,twoface", 10), None);
        assert!(twofold.bucket_bytes > memory.bucket_bytes + 10 * usize::try_from(run.max_object()).unwrap());
        let endless = HostMemory::new(&run, &settings("honest:4096", u64::MAX), None);
        assert_eq!(endless.total(), usize::MAX);
    }
}
