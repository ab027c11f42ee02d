//! The commands around training, run as a user runs them: what they write, what they say, how they end.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers outside test functions may fail loudly as well.

#[cfg(unix)]
mod bad_input;
mod bench;
mod data;
mod device;
mod explain;
mod model;
#[cfg(unix)]
mod printing;
mod setup;
mod workers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gauntlet_model::{Layout, LlamaConfig, init, preset, weights};
use serde_json::Value;
use tempfile::TempDir;

/// Text with enough repetition for a small vocabulary.
const TEXT: &str =
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on. Été à la mer: 3 € l'heure.\n";

/// A folder that holds text, data, models and results of one test.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as an argument.
    fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self.arg(name)
    }

    /// Three files of text.
    fn texts(&self) -> String {
        for (name, times) in [("text/a.txt", 30), ("text/b.txt", 20), ("text/c.txt", 10)] {
            self.write(name, TEXT.repeat(times));
        }
        self.arg("text")
    }

    /// A tiny byte model with random weights.
    fn model(&self, name: &str) -> String {
        let config = LlamaConfig {
            hidden_size: 32,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 8,
            intermediate_size: 64,
            max_position_embeddings: 64,
            eos_token_id: Some(256),
            ..preset("byte-1m").unwrap()
        };
        let layout = Layout::new(&config);
        let mut theta = vec![0.0; layout.total()];
        init::init(&layout, 7, &mut theta);
        // Larger weights: predictions that differ.
        theta.iter_mut().for_each(|v| *v *= 4.0);
        self.write(&format!("{name}/config.json"), config.to_hf().to_string());
        weights::write(&self.path(name), &layout, &theta, weights::SHARD_BYTES).unwrap();
        self.arg(name)
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that works and returns its JSON.
fn json(args: &[&str]) -> Value {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

/// Checks an end with `code` and one line of error that holds every one of `parts`.
fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    for part in parts {
        assert!(errors[0].contains(part), "'{part}' is not in: {text}");
    }
}

fn fails(code: i32, args: &[&str], parts: &[&str]) {
    assert_fails(&run(args), code, parts);
}

/// Names in a folder, sorted; empty where there is none.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
