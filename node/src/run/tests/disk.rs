use super::super::persist::Disk;
use super::super::validator_node::Progress;
use super::*;

const CHILD: &str = "GAUNTLET_TEST_DISK";

/// Not a test by itself: another process that wants the folder of miner 1.
#[test]
fn child_opens_a_disk() {
    let Ok(root) = std::env::var(CHILD) else { return };
    Disk::new(Path::new(&root), &identity(1).hotkey()).unwrap();
}

#[test]
fn one_process_works_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let hotkey = identity(1).hotkey();
    let another = || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "run::tests::disk::child_opens_a_disk"]).env(CHILD, folder.path());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let disk = Disk::new(folder.path(), &hotkey).unwrap();
    let held = Disk::new(folder.path(), &hotkey).err().unwrap().to_string();
    let place = folder.path().join(ss58::encode(&hotkey)).display().to_string();
    assert!(held.starts_with(&place) && held.contains("stop that one"), "{held}");
    let (opened, said) = another();
    assert!(!opened && said.contains("another process works in it"), "{said}");
    Disk::new(folder.path(), &identity(2).hotkey()).unwrap();
    drop(disk);
    assert!(another().0);
    Disk::new(folder.path(), &hotkey).unwrap();
}

#[test]
fn a_miner_goes_on_with_its_momentum() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(1);
    let (mut kept, mut lost) = (small.peer(1), small.peer(1));
    let mut world = small.world();
    kept.train(&mut world, &[1, 2]).unwrap();
    lost.train(&mut world, &[1, 2]).unwrap();
    let disk = Disk::new(folder.path(), &kept.hotkey()).unwrap();
    disk.save_miner(world.run.id, &lost, Some((0, vec![7]))).unwrap();
    let place = folder.path().join(ss58::encode(&kept.hotkey()));
    let parts = || std::fs::read_dir(&place).unwrap().count();
    assert_eq!(parts(), 4, "the lock, the state, θ, the momentum");
    let (mut back, sealed) = disk.miner(&world, identity(1), Shared::default()).unwrap();
    assert_eq!(sealed, Some((0, vec![7])));
    drop(lost);
    for ids in [[3, 4], [5, 6]] {
        let (sent, loss) = kept.train(&mut world, &ids).unwrap();
        let (again, same) = back.train(&mut world, &ids).unwrap();
        assert_eq!((sent.encode(), loss), (again.encode(), same));
    }
    disk.save_miner(world.run.id, &back, None).unwrap();
    assert_eq!(parts(), 4, "the old momentum is gone");
}

#[test]
fn what_waits_for_its_record_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(1);
    (small.run.demo.subtract, small.run.demo.momentum_warmup) = (gauntlet_demo::Subtract::WhenRecorded, 0);
    let mut peer = small.peer(1);
    let mut world = small.world();
    peer.train(&mut world, &[1, 2]).unwrap();
    let disk = Disk::new(folder.path(), &peer.hotkey()).unwrap();
    disk.save_miner(world.run.id, &peer, None).unwrap();
    let (back, _) = disk.miner(&world, identity(1), Shared::default()).unwrap();
    let ((kept, unsettled), (found, same)) = (peer.memory(), back.memory());
    assert!(kept.pending().unwrap().is_some());
    assert_eq!((found.pending(), same), (kept.pending(), unsettled));
}

#[test]
fn what_is_wrong_with_a_disk_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new(1);
    let (peer, follower) = (small.peer(1), small.follower(3));
    let validator = Validator::new(identity(3), follower);
    let mut other = Small::new(2);
    let world = small.world();
    let disk = Disk::new(folder.path(), &peer.hotkey()).unwrap();
    let refused = |world: &World<'_>, n: u8| {
        let error = disk.miner(world, identity(n), Shared::default()).err().unwrap();
        let text = format!("{error:#}");
        assert!(text.contains(&folder.path().display().to_string()), "{text}");
        text
    };
    assert!(refused(&world, 1).contains("cannot read"));
    disk.save_miner(world.run.id, &peer, None).unwrap();
    assert!(refused(&other.world(), 1).contains("is of run"));
    assert!(refused(&world, 2).contains("is of 5"), "of another hotkey");
    let place = folder.path().join(ss58::encode(&peer.hotkey()));
    let state = std::fs::read(place.join("node.state")).unwrap();
    for at in (0..state.len()).step_by(7).chain([state.len() - 1]) {
        let mut bad = state.clone();
        bad[at] ^= 4;
        std::fs::write(place.join("node.state"), &bad).unwrap();
        assert!(refused(&world, 1).contains("is damaged"), "byte {at}");
        std::fs::write(place.join("node.state"), &state[..at]).unwrap();
        assert!(refused(&world, 1).contains("is damaged"), "cut at {at}");
    }
    let mut newer = state[..state.len() - 32].to_vec();
    newer[4] = 9;
    newer.extend(Digest::of(&newer).0);
    std::fs::write(place.join("node.state"), &newer).unwrap();
    assert!(refused(&world, 1).contains("format 9"));
    disk.save_validator(world.run.id, &validator, &Progress::default()).unwrap();
    assert!(refused(&world, 3).contains("of a validator"));
    disk.save_miner(world.run.id, &peer, None).unwrap();
    let part = std::fs::read_dir(&place).unwrap().map(|e| e.unwrap().path());
    let part = part
        .filter(|path| path.extension().is_some_and(|e| e == "f32"))
        .max_by_key(|path| std::fs::read(path).unwrap().iter().filter(|byte| **byte != 0).count());
    let part = part.unwrap();
    let mut values = std::fs::read(&part).unwrap();
    values[100] ^= 1;
    std::fs::write(&part, &values).unwrap();
    assert!(refused(&world, 1).contains("is damaged"));
    std::fs::remove_file(&part).unwrap();
    assert!(refused(&world, 1).contains("cannot read"));
}
