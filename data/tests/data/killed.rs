//! A process killed in the middle of preparing, and the run that goes on from there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use gauntlet_data::{Advance, Error, PrepareOptions, Progress, Silent, Validation, prepare, verify};
use tempfile::tempdir;

use crate::tools::{contents, options, text, write};

/// Folder of the test, set for the process that is to be killed.
const FOLDER: &str = "GAUNTLET_TEST_KILLED_FOLDER";

/// Said when enough was done.
const REACHED: &str = "half of the inputs are done";

fn settings(folder: &Path, out: &str) -> PrepareOptions {
    let mut options = options(&folder.join("in"), &folder.join(out));
    options.validation = Validation::Fraction(0.2);
    options.max_tokens_per_shard = 500;
    // One input after the other, so that some are done, one is begun and some are untouched.
    options.threads = 1;
    options
}

/// Speaks up within the fourth input, and never returns.
#[derive(Default)]
struct Hang {
    done: AtomicU64,
}

impl Progress for Hang {
    fn start(&self, _: gauntlet_data::Phase, _: gauntlet_data::Totals) {
        self.done.store(0, Ordering::Relaxed);
    }

    fn advance(&self, step: Advance) {
        if self.done.load(Ordering::Relaxed) == 3 && step.tokens > 0 {
            println!("\n{REACHED}");
            loop {
                std::thread::park();
            }
        }
    }

    fn input_done(&self, _: &str) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The process that is killed: nothing unless the test below starts it.
#[test]
fn victim() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let _ = prepare(&settings(&PathBuf::from(folder), "out"), &Hang::default());
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let folder = tempdir().unwrap();
    for i in 0..7u64 {
        let line = |j: u64| serde_json::json!({"text": text(100 * i + j, 60)}).to_string();
        write(folder.path(), &format!("in/{i}.jsonl"), (0..30).map(line).collect::<Vec<_>>().join("\n"));
    }
    prepare(&settings(folder.path(), "unbroken"), &Silent).unwrap();

    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::victim", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == REACHED));

    // While it lives, nobody else works on the folder.
    let options = settings(folder.path(), "out");
    assert!(matches!(prepare(&options, &Silent), Err(Error::Busy { .. })));
    victim.kill().unwrap();
    victim.wait().unwrap();

    let names = contents(&options.out);
    assert!(names.contains_key("settings.json") && !names.contains_key("manifest.json"));
    assert!(names.keys().any(|name| name.ends_with(".tmp")), "killed in the middle of a file: {names:?}");
    let summary = prepare(&options, &Silent).unwrap();
    assert_eq!(summary.kept_inputs, 3);
    assert_eq!(contents(&options.out), contents(&folder.path().join("unbroken")));
    assert!(verify(&options.out, &Silent).unwrap().is_sound());
}
