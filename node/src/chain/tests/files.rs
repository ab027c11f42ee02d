use super::*;
use rusqlite::Connection;

fn fault(path: &Path) -> String {
    let clock = Clock::Virtual { height: Arc::default(), seed: 1 };
    let error = Ledger::open(path, &LedgerRules::default(), clock).err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    error
}

#[test]
fn a_ledger_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let (mut ledger, height) = at(&path, &LedgerRules::default(), 1);
    ledger.register(key(1), key(1)).unwrap();
    pass(&height, 45);
    let (head, graph) = (ledger.head().unwrap(), ledger.metagraph().unwrap());
    drop(ledger);
    let (ledger, _) = at(&path, &LedgerRules::default(), 1);
    assert_eq!(ledger.head().unwrap(), head, "sealed blocks stay, though the clock is at 0");
    assert_eq!(ledger.metagraph().unwrap(), graph);
    assert_eq!(ledger.history(2).unwrap().len(), 1);
}

#[test]
fn other_rules_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let mut rules = LedgerRules::default();
    rules.subnet.tempo = 5;
    drop(at(&path, &rules, 1));
    assert!(fault(&path).contains("chain.subnet.tempo = 5, now 20"));
    let seed = Clock::Virtual { height: Arc::default(), seed: 2 };
    let error = Ledger::open(&path, &rules, seed).err().unwrap().to_string();
    assert!(error.contains("seed 1") && error.contains("seed 2"), "{error}");
    let error = Ledger::open(&path, &rules, Clock::wall()).err().unwrap().to_string();
    assert!(error.contains("a virtual clock") && error.contains("now a wall clock"), "{error}");
}

#[test]
fn files_that_are_no_ledger_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(
        &text,
        "a text that is long enough to be taken for a header of a database file. ".repeat(20),
    )
    .unwrap();
    let before = std::fs::read(&text).unwrap();
    assert!(fault(&text).contains("not an SQLite file"));
    assert_eq!(std::fs::read(&text).unwrap(), before);

    let foreign = folder.path().join("foreign");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    assert!(fault(&foreign).contains("another program"));
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    let newer = folder.path().join("newer");
    drop(at(&newer, &LedgerRules::default(), 1));
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(fault(&newer).contains("its format is 99"));

    assert!(fault(folder.path()).contains("cannot be opened"));
    assert!(fault(&folder.path().join("no/such/folder")).contains("does its folder exist"));
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let (mut ledger, height) = at(&path, &LedgerRules::default(), 1);
    ledger.register(key(1), key(1)).unwrap();
    pass(&height, 4000);
    ledger.head().unwrap();
    drop(ledger);
    let whole = std::fs::read(&path).unwrap();

    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(fault(&path).contains("damaged"));

    let mut scribbled = whole.clone();
    scribbled[4096..].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, &scribbled).unwrap();
    fault(&path);

    std::fs::write(&path, &whole).unwrap();
    let direct = Connection::open(&path).unwrap();
    let mut body: Vec<u8> = direct.query_row("SELECT body FROM states", [], |r| r.get(0)).unwrap();
    *body.last_mut().unwrap() ^= 1;
    direct.execute("UPDATE states SET body = ?1", [body]).unwrap();
    drop(direct);
    let (ledger, _) = at(&path, &LedgerRules::default(), 1);
    assert!(ledger.metagraph().unwrap_err().to_string().contains("does not match its hash"));
}
