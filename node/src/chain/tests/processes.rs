use super::*;
use std::process::Command;

const CHILD: &str = "GAUNTLET_TEST_LEDGER";

/// Several connections write while the clock runs: no update is lost, nobody hears of a busy database, and all see the
/// same blocks.
#[test]
fn connections_share_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let now = Arc::new(AtomicU64::new(1_700_000_000_000));
    let work = |n: u8| {
        let (path, now) = (path.clone(), Arc::clone(&now));
        move || {
            let mut ledger = Ledger::open(&path, &LedgerRules::default(), wall(&now)).unwrap();
            ledger.register(key(n), key(n)).unwrap();
            let mut seen = Vec::new();
            for turn in 0..40 {
                ledger.add_stake(key(77), 1).unwrap();
                ledger.anchor(key(n), Anchor { window: turn, record: gauntlet::Digest([n; 32]) }).unwrap();
                now.fetch_add(400, Ordering::AcqRel);
                seen.push(ledger.head().unwrap());
                ledger.metagraph().unwrap();
            }
            seen
        }
    };
    let threads: Vec<_> = (0..6).map(|n| std::thread::spawn(work(n))).collect();
    let seen: Vec<Block> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    now.fetch_add(60_000, Ordering::AcqRel);
    let mut ledger = Ledger::open(&path, &LedgerRules::default(), wall(&now)).unwrap();
    ledger.register(key(77), key(77)).unwrap();
    now.fetch_add(1_000, Ordering::AcqRel);
    let graph = ledger.metagraph().unwrap();
    assert_eq!(graph.neuron(&key(77)).unwrap().stake, 240);
    assert_eq!(graph.neurons.len(), 7);
    assert_eq!(ledger.anchors(0, 1 << 40).unwrap().len(), 240);
    for block in seen {
        assert_eq!(ledger.block(block.number).unwrap(), block);
    }
    let blocks = ledger.head().unwrap().number;
    assert_eq!(graph.issuance, blocks / 20 * 20 * UNITS, "each epoch ran once");
}

/// Not a test by itself: what the test below runs as another process and kills.
#[test]
fn child_dies_in_a_transaction() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let ledger = Ledger::open(Path::new(&path), &LedgerRules::default(), Clock::wall()).unwrap();
    let tx = ledger.begin().unwrap();
    tx.execute("DELETE FROM states", []).unwrap();
    tx.execute("DELETE FROM blocks", []).unwrap();
    std::process::abort();
}

#[test]
fn a_killed_writer_leaves_the_file_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let open = || Ledger::open(&path, &LedgerRules::default(), Clock::wall()).unwrap();
    let mut ledger = open();
    ledger.register(key(1), key(1)).unwrap();
    let first = ledger.block(0).unwrap();
    let name = "chain::tests::processes::child_dies_in_a_transaction";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, &path)
        .output()
        .unwrap();
    assert!(!child.status.success(), "the child was to die");
    ledger.add_stake(key(1), 3).unwrap();
    drop(ledger);
    let mut ledger = open();
    assert_eq!(ledger.block(0).unwrap(), first);
    let again = ledger.register(key(1), key(1)).unwrap_err();
    assert!(matches!(again, ChainError::Refused { .. }), "the calls before are there");
}
