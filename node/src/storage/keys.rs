//! Names of a run's objects (PROTOCOL sections 5, 6.0, 8 and 9): everybody derives them, nobody lists.

use gauntlet::{Digest, Hotkey};

use super::ss58;

/// The keys of one run, in any bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    root: String,
}

impl Keys {
    pub(crate) fn new(run: &Digest) -> Self {
        Self { root: format!("runs/{run}") }
    }

    /// A peer's submission.
    pub(crate) fn submission(&self, window: u64, hotkey: &Hotkey) -> String {
        format!("{}/{}.grad", self.window(window), ss58::encode(hotkey))
    }

    /// A peer's signed commitment to its submission.
    pub(crate) fn commitment(&self, window: u64, hotkey: &Hotkey) -> String {
        format!("{}/{}.commit", self.window(window), ss58::encode(hotkey))
    }

    /// Values of θ that a peer publishes.
    pub(crate) fn values(&self, window: u64, hotkey: &Hotkey) -> String {
        format!("{}/{}.values", self.window(window), ss58::encode(hotkey))
    }

    /// The window's record, in its leader's bucket.
    pub(crate) fn record(&self, window: u64) -> String {
        format!("{}/record", self.window(window))
    }

    /// The objects that the record lists.
    pub(crate) fn bundle(&self, window: u64) -> String {
        format!("{}/bundle", self.window(window))
    }

    /// A validator's statement on the record.
    pub(crate) fn agreement(&self, window: u64, hotkey: &Hotkey) -> String {
        format!("{}/agree/{}", self.window(window), ss58::encode(hotkey))
    }

    /// By what a validator judged the window.
    pub(crate) fn judgement(&self, window: u64, hotkey: &Hotkey) -> String {
        format!("{}/judge/{}", self.window(window), ss58::encode(hotkey))
    }

    /// A file of the checkpoint of θ before `window`.
    pub(crate) fn checkpoint(&self, window: u64, file: &str) -> String {
        format!("{}/checkpoints/w{window:010}/{file}", self.root)
    }

    /// All that one hotkey may put in a window but checkpoints, and the record: that joiners follow back to the beginning.
    pub(super) fn passing(&self, window: u64, hotkey: &Hotkey) -> Vec<String> {
        vec![
            self.submission(window, hotkey),
            self.commitment(window, hotkey),
            self.values(window, hotkey),
            self.bundle(window),
            self.agreement(window, hotkey),
            self.judgement(window, hotkey),
        ]
    }

    fn window(&self, window: u64) -> String {
        format!("{}/w{window:010}", self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_protocol() {
        let (keys, alice) = (Keys::new(&Digest([0xab; 32])), Hotkey([1; 32]));
        let (run, who) = ("ab".repeat(32), ss58::encode(&alice));
        assert_eq!(keys.submission(7, &alice), format!("runs/{run}/w0000000007/{who}.grad"));
        assert_eq!(keys.commitment(7, &alice), format!("runs/{run}/w0000000007/{who}.commit"));
        assert_eq!(keys.record(7), format!("runs/{run}/w0000000007/record"));
        assert_eq!(keys.bundle(7), format!("runs/{run}/w0000000007/bundle"));
        assert_eq!(keys.agreement(7, &alice), format!("runs/{run}/w0000000007/agree/{who}"));
        assert_eq!(keys.checkpoint(7, "manifest"), format!("runs/{run}/checkpoints/w0000000007/manifest"));
        let all = keys.passing(u64::MAX, &alice);
        assert!(all.iter().all(|key| crate::storage::path(key).is_ok()));
    }
}
