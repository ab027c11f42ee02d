use super::*;
use gauntlet::{Digest, Hotkey};
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything that a caller can see of a storage, in words.
fn life(storage: &Storage) -> Vec<String> {
    let mut seen = Vec::new();
    let mut note = |what: &str, result: String| seen.push(format!("{what}: {result}"));
    let keys = |k: &[&str]| k.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>();
    note("absent", format!("{:?} {:?}", storage.get("a/b", 10), storage.head("a/b").err()));
    note("put", format!("{:?}", storage.put("a/b", b"hello")));
    note("get", format!("{:?}", storage.get("a/b", 5)));
    note("limit", format!("{:?}", storage.get("a/b", 4)));
    note("head", format!("{:?}", storage.head("a/b").map(|m| m.size)));
    note("folder", format!("{:?} {:?}", storage.get("a", 9), storage.head("a").err()));
    note("beside", format!("{:?}", storage.get("a/c", 9)));
    note("below an object", format!("{:?}", storage.get("a/b/c", 9)));
    note("over", format!("{:?} {:?}", storage.put("a/b", b"again!"), storage.get("a/b", 9)));
    note("new, other", format!("{:?} {:?}", storage.put_new("a/b", b"third"), storage.get("a/b", 9)));
    note("new, longer", format!("{:?}", storage.put_new("a/b", b"a longer one")));
    note("new, same", format!("{:?}", storage.put_new("a/b", b"again!")));
    note("new", format!("{:?} {:?}", storage.put_new("a/n", b"n"), storage.get("a/n", 1)));
    note("empty", format!("{:?} {:?}", storage.put("a/e", b""), storage.get("a/e", 0)));
    note(
        "list",
        format!(
            "{:?}",
            storage.list("a").map(|l| l.into_iter().map(|o| (o.0, o.1.size)).collect::<Vec<_>>())
        ),
    );
    note("list nothing", format!("{:?}", storage.list("zz").map(|l| l.len())));
    note("delete", format!("{:?}", storage.delete(&keys(&["a/b", "a/not", "a/e"]))));
    note("gone", format!("{:?} {:?}", storage.get("a/b", 9), storage.get("a/n", 9)));
    for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "a/./b", "a b", "ä", "a\0", "a%2e", &"x".repeat(513)]
    {
        let all = [storage.put(bad, b"x"), storage.put_new(bad, b"x"), storage.delete(&keys(&[bad]))];
        assert!(all.iter().all(|r| matches!(r, Err(Fault::Key(_)))), "{bad:?}: {all:?}");
        assert!(matches!(storage.get(bad, 9), Err(Fault::Key(_))), "{bad:?}");
        assert!(matches!(storage.head(bad), Err(Fault::Key(_))), "{bad:?}");
    }
    seen
}

#[test]
fn what_a_second_face_does_not_say_the_first_does() {
    let clock = Arc::new(AtomicU64::new(5_000));
    let now = Arc::clone(&clock);
    let own = memory().with_clock(move || now.load(Ordering::Acquire));
    let second = memory().in_front_of(&own);
    own.put("a", b"same").unwrap();
    own.put("b", b"one").unwrap();
    clock.store(7_000, Ordering::Release);
    second.put("b", b"two").unwrap();
    second.put("c", b"new").unwrap();
    let times = |storage: &Storage, key| storage.head(key).map(|meta| meta.last_modified);
    assert_eq!((second.get("a", 9).unwrap(), times(&second, "a")), (b"same".to_vec(), Ok(5)));
    assert_eq!((own.get("b", 9).unwrap(), second.get("b", 9).unwrap()), (b"one".to_vec(), b"two".to_vec()));
    assert_eq!((own.get("c", 9), times(&second, "c")), (Err(Fault::Absent), Ok(7)));
    assert_eq!(second.get("d", 9), Err(Fault::Absent));
}

#[test]
fn memory_and_directory_are_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peer one");
    let directory = Storage::open(path.to_str().unwrap(), &StoreOptions::default()).unwrap();
    let (memory, directory) = (life(&memory()), life(&directory.with_patience(hasty())));
    assert_eq!(memory, directory);
    let text = memory.join("\n");
    for line in [
        "absent: Err(Absent) Some(Absent)",
        "get: Ok([104, 101, 108, 108, 111])",
        "limit: Err(TooLarge { size: 5 })",
        "folder: Err(Absent) Some(Absent)",
        "below an object: Err(Absent)",
        "new, other: Err(Exists) Ok([97, 103, 97, 105, 110, 33])",
        "new, longer: Err(Exists)",
        "new, same: Ok(())",
        "empty: Ok(()) Ok([])",
        "list: Ok([(\"a/b\", 6), (\"a/e\", 0), (\"a/n\", 1)])",
        "delete: Ok(())",
        "gone: Err(Absent) Ok([110])",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn places_that_cannot_be_written_are_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let open = |path: &std::path::Path| Storage::open(path.to_str().unwrap(), &StoreOptions::default());
    let error = format!("{:#}", open(&file).unwrap_err());
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    assert!(open(&file.join("below")).is_err());

    // /sys refuses even root, which no mode bits do.
    let sealed = open(std::path::Path::new("/sys")).unwrap().with_patience(hasty());
    assert_eq!(sealed.put("gauntlet/x", b"x"), Err(Fault::Denied));
    assert_eq!(sealed.put_new("gauntlet/x", b"x"), Err(Fault::Denied));
    assert_eq!(sealed.get("gauntlet/x", 1), Err(Fault::Absent));
}

#[test]
fn many_threads_write_and_read_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Storage::open(folder.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    for storage in [memory(), directory] {
        std::thread::scope(|scope| {
            for n in 0..8_u8 {
                let storage = storage.clone();
                scope.spawn(move || {
                    for turn in 0..20 {
                        storage.put("common", &[n; 5000]).unwrap();
                        storage.put(&format!("own/{n}/{turn}"), &[n, turn]).unwrap();
                        let common = storage.get("common", 5000).unwrap();
                        assert!(common.iter().all(|b| *b == common[0]), "a torn object");
                    }
                });
            }
        });
        let wanted: Vec<_> = (0..8_u8)
            .flat_map(|n| (0..20_u8).map(move |turn| (n, turn)))
            .map(|(n, turn)| (storage.clone(), format!("own/{n}/{turn}"), 2))
            .chain([(storage.clone(), "own/none".to_owned(), 2), (storage.clone(), "common".to_owned(), 2)])
            .collect();
        let found = bytes_of(&wanted, soon());
        assert_eq!(found.len(), 162);
        for ((_, key, _), found) in wanted[..160].iter().zip(&found) {
            let [n, turn] = found.clone().unwrap()[..] else { panic!("{key}") };
            assert_eq!(*key, format!("own/{n}/{turn}"));
        }
        assert_eq!(found[160..], [Err(Fault::Absent), Err(Fault::TooLarge { size: 5000 })]);
    }
}

#[test]
fn create_only_has_one_winner() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Storage::open(folder.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    for storage in [memory(), directory.with_patience(hasty())] {
        let wins = std::thread::scope(|scope| {
            let race = |n: u8| {
                let storage = storage.clone();
                scope.spawn(move || storage.put_new("one", &[n]))
            };
            let racers: Vec<_> = (0..12).map(race).collect();
            racers.into_iter().map(|r| r.join().unwrap()).filter(Result::is_ok).count()
        });
        assert_eq!(wins, 1);
    }
}

#[test]
fn a_simulation_stamps_objects_with_its_clock() {
    let now = Arc::new(AtomicU64::new(5_999));
    let clock = Arc::clone(&now);
    let storage = Storage::memory().with_clock(move || clock.load(Ordering::Acquire)).with_patience(hasty());
    storage.put("a", b"1").unwrap();
    now.store(7_000, Ordering::Release);
    storage.put_new("b", b"1").unwrap();
    storage.put_new("a", b"1").unwrap();
    assert_eq!(storage.head("a").unwrap().last_modified, 5, "the same again is not a new object");
    assert_eq!(storage.fetch("b", 1).unwrap().meta.last_modified, 7);
    storage.delete(&["a".to_owned()]).unwrap();
    assert_eq!(storage.head("a"), Err(Fault::Absent));
}

#[test]
fn old_windows_are_forgotten() {
    let (storage, keys, hotkey) = (memory(), Keys::new(&Digest([1; 32])), Hotkey([2; 32]));
    let other = Hotkey([3; 32]);
    for window in 0..5 {
        for key in keys.passing(window, &hotkey) {
            storage.put(&key, b"x").unwrap();
        }
    }
    storage.put(&keys.record(0), b"x").unwrap();
    storage.put(&keys.submission(0, &other), b"x").unwrap();
    storage.put(&keys.checkpoint(0, "manifest"), b"x").unwrap();
    (0..3).for_each(|window| storage.forget(&keys, &hotkey, window).unwrap());
    let left = storage.list("runs").unwrap();
    assert_eq!(left.len(), 2 * 6 + 1 + 2, "{left:?}");
    assert!(storage.head(&keys.submission(0, &other)).is_ok(), "another peer's are not ours to delete");
    assert_eq!(storage.head(&keys.bundle(2)), Err(Fault::Absent));
    storage.head(&keys.bundle(3)).unwrap();
    storage.head(&keys.record(0)).unwrap();
}
