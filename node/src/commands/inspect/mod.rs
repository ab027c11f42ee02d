//! `gauntlet inspect`: what an object of a run says.

mod body;
mod small;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use gauntlet::Hotkey;
use gauntlet_demo::object::{self, KIND_DEMO, KIND_DENSE};
use serde_json::{Value, json};

use crate::output;
use crate::storage::ss58;
use body::Bodies;

/// Print what an object of a run says, and whether its hash and signature hold.
#[derive(Args)]
pub(crate) struct InspectArgs {
    /// A submission, commitment, record, bundle, statement, judgement, published values, manifest of a checkpoint, or the state
    /// of a validator or node.
    file: PathBuf,
    /// Folder of the run it belongs to, which says how its body is read [default: where the file lies].
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

/// What is said of an object: for people, and for programs.
type Said = (Rows, Value);

/// A name and a value each.
type Rows = Vec<(&'static str, String)>;

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let name = args.file.display();
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {name}"))?;
    let (rows, result) = match small::said(&bytes)? {
        Some(said) => said,
        None => submission_rows(args, &bytes)?,
    };
    output::result(output::wants_json(args.json), &result, &rows)
}

fn submission_rows(args: &InspectArgs, bytes: &[u8]) -> Result<Said> {
    let name = args.file.display();
    let invalid = || format!("{name}: not a valid object of a run");
    let object = object::open(bytes).with_context(invalid)?;
    let header = &object.header;
    let kind = match header.kind {
        KIND_DEMO => "DeMo".to_owned(),
        KIND_DENSE => "dense gradient".to_owned(),
        kind => format!("unknown ({kind})"),
    };
    let hotkey = ss58::encode(&Hotkey(header.hotkey));
    let mut rows = vec![
        ("kind", format!("submission, {kind}, signature valid")),
        ("run", hex(&header.run)),
        ("window", header.window.to_string()),
        ("hotkey", hotkey.clone()),
        ("sequences", header.count.to_string()),
        ("state tag", hex(&header.state_tag)),
        ("bytes", bytes.len().to_string()),
        ("hash", hex(&object.hash)),
    ];
    let mut result = json!({
        "kind": "submission", "scheme": kind, "run": hex(&header.run), "window": header.window, "hotkey": hotkey,
        "sequences": header.count, "state_tag": hex(&header.state_tag), "bytes": bytes.len(),
        "hash": hex(&object.hash), "signature": "valid",
    });
    let bodies = Bodies::of(args)?;
    if let Some(bodies) = &bodies {
        bodies.check_run(&object).with_context(|| name.to_string())?;
    }
    let read = bodies.map(|bodies| bodies.read(&object, &mut rows)).transpose();
    let read = read.context("body").with_context(invalid)?;
    match read.flatten() {
        Some(body) => result["body"] = body,
        None => rows.push(("body", "not read; name the run's folder with --run".into())),
    }
    Ok((rows, result))
}

fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from(*bytes).to_hex().to_string()
}
