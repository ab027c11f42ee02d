//! What leaders sign, and what is counted for and against them.

use std::collections::BTreeMap;

use gauntlet::record::Record;
use gauntlet::record::equivocation::Equivocation;

use super::*;

impl Small {
    /// Puts two records of window `w` by validator 3 on chain as a proof.
    fn prove(&mut self, w: u64) {
        let (validator, signed, _) = self.led();
        let [first, second] = [1, 2].map(|published| {
            validator.sign(Record { window: w, published, ..signed.record.clone() }).unwrap()
        });
        let proof = postcard::to_allocvec(&Equivocation { first, second }).unwrap();
        self.world().chain.report_equivocation(identity(1).hotkey(), &proof).unwrap();
    }
}

#[test]
fn a_proof_of_a_window_to_come_means_the_same_to_nodes_that_run_and_that_start() {
    let mut small = Small::new(1);
    let window = small.run.manifest.window.clone();
    small.prove(5);
    let mut running = small.follower(1);
    for block in window.record_opens(0)..window.opens(7) {
        small.height.store(block, Ordering::Release);
        running.read_proofs(&small.world()).unwrap();
        let mut started = small.follower(2);
        started.read_proofs(&small.world()).unwrap();
        assert_eq!(running.records().barred(), started.records().barred(), "block {block}");
        // It cannot be reported again, so once its window is there it counts.
        let expected = (block >= window.opens(5)).then(|| (identity(3).hotkey(), 6));
        assert_eq!(running.records().barred(), &BTreeMap::from_iter(expected), "block {block}");
    }
    assert_eq!(running.places().1.records.barred().len(), 1, "it stays barred after a roll-back");
}
