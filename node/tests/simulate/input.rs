//! Wrong input, and runs that come to nothing.

use std::path::Path;
use std::process::Command;

use super::{gauntlet, stderr};

#[test]
fn a_run_without_records_fails() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let args = [
        "--peers",
        "2",
        "--validators",
        "silent-leader@1",
        "--windows",
        "3",
        "--seq",
        "32",
        "--sequences",
        "1",
    ];
    let output = gauntlet(&[&["simulate", "--out", &out, "--no-baseline", "--json"][..], &args].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no validator published a record of window 1"), "{}", stderr(&output));
    let many = gauntlet(&["simulate", "--out", &format!("{out}2"), "--peers", "255"]);
    assert_eq!(many.status.code(), Some(2));
    assert!(stderr(&many).contains("256 slots"), "{}", stderr(&many));
}

#[test]
fn wrong_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let file = folder.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let manifest = folder.path().join("run.toml");
    let path = manifest.display().to_string();
    assert!(gauntlet(&["init", "--out", &path]).status.success());
    let good = std::fs::read_to_string(&manifest).unwrap();
    let wrong = |code, args: &[&str], part: &str| {
        let output = gauntlet(args);
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(part) && stderr.lines().count() <= 3, "{args:?}: {stderr}");
        assert!(!Path::new(&out).exists(), "{args:?}");
    };
    wrong(2, &["simulate", "--out", &out, "--peers", "honest,liar"], "liar");
    wrong(2, &["simulate", "--out", &out, "--validators", "loud"], "loud");
    wrong(2, &["simulate", "--out", &out, "--windows", "0"], "--windows");
    wrong(2, &["simulate", "--out", &out, "--sequences", "0"], "--sequences");
    wrong(2, &["simulate", "--out", &out, "--preset", "huge"], "huge");
    wrong(2, &["simulate", "--out", &out, "--validators", &u64::MAX.to_string()], "1 to 64 validators");
    wrong(2, &["simulate", "--out", &out, "--seed", &(1u64 << 63).to_string()], "--seed");
    wrong(2, &["simulate", "--out", &out, "--seq", "100000"], "data.seq");
    wrong(2, &["init", "--out", &path], "--force");
    wrong(1, &["simulate", "--out", &format!("{}/run", file.display())], "cannot create");
    for (from, to, part) in [
        ("blocks = 7", "blocks = 3", "window.blocks"),
        ("protocol = 1", "protocol = 9", "protocol"),
        ("keep = 0", "keep = 5", "window.keep"),
        ("preset = \"byte-1m\"", "preset = \"byte-9m\"", "model.preset"),
        ("[window]", "[window]\nblocs = 3", "blocs"),
        ("profile = \"paper\"", "profile = \"paper\"\n[gauntlet.proof]\ndecay = 7.0", "proof.decay"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        std::fs::write(&manifest, bad).unwrap();
        wrong(2, &["simulate", "--out", &out, "--manifest", &path], part);
        wrong(2, &["config", "print", "--config", &path], part);
    }
    let other_text = good.replacen("hash = \"", "hash = \"00", 1).replacen("00", "", 0);
    let digits = other_text.find("hash = \"00").unwrap();
    let mut other_text = other_text;
    // 64 digits again, of another text.
    other_text.replace_range(digits + 10..digits + 12, "");
    std::fs::write(&manifest, other_text).unwrap();
    wrong(1, &["simulate", "--out", &out, "--manifest", &path], "every build has another");
}

#[test]
fn without_arguments_a_manifest_is_written_here() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["init"][..], &["config", "print"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
        let output = command.args(args).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
    assert!(folder.path().join("run.toml").is_file());
}
