//! `gauntlet inspect`: what an object of a run says.

mod small;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use gauntlet::Hotkey;
use gauntlet_demo::object::{self, HEADER, KIND_DEMO, KIND_DENSE, Object, TRAILER};
use gauntlet_demo::size::Size;
use gauntlet_demo::{Format, Optimizer, Submission};
use gauntlet_model::Layout;
use serde_json::{Value, json};

use super::simulate::MANIFEST;
use crate::run::manifest::{Manifest, demo_layout};
use crate::storage::ss58;
use crate::train::SETTINGS;
use crate::train::settings::Settings;
use crate::{model_folder, output};

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
type Said = (Vec<(&'static str, String)>, Value);

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let name = args.file.display();
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {name}"))?;
    let (rows, result) = match small::said(&bytes)? {
        Some(said) => said,
        None => {
            submission_rows(args, &bytes).with_context(|| format!("{name}: not a valid object of a run"))?
        }
    };
    output::result(output::wants_json(args.json), &result, &rows)
}

fn submission_rows(args: &InspectArgs, bytes: &[u8]) -> Result<Said> {
    let object = object::open(bytes)?;
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
    match format(args)?.filter(|_| header.kind == KIND_DEMO) {
        Some(format) => result["body"] = body(&object, &format, &mut rows).context("body")?,
        None => rows.push(("body", "not read; name the run's folder with --run".into())),
    }
    Ok((rows, result))
}

/// Decodes the payload; adds to the rows.
fn body(object: &Object<'_>, format: &Arc<Format>, rows: &mut Vec<(&'static str, String)>) -> Result<Value> {
    let submission = Submission::decode(format, object.payload)?;
    let bytes = HEADER + object.payload.len() + TRAILER;
    let size = Size::of(&submission, object.payload.len());
    let tensors = submission.summary();
    let empty: usize = tensors.iter().map(|t| t.empty).sum();
    rows.push((
        "values",
        format!("{} bits, levels {:?}", format.codebook().bits(), format.codebook().levels()),
    ));
    rows.push(("chunks", format!("{}, {empty} empty, top {}", format.chunks(), format.topk())));
    rows.push(("entries", format!("{}, {} of them not 0", size.entries, submission.sent())));
    let bits = (size.bits_per_index, size.bits_per_entry);
    rows.push(("bits", format!("{:.3} an index, {:.3} an entry in all", bits.0, bits.1)));
    #[allow(clippy::cast_precision_loss)] // a number of bytes
    let factor = 4.0 * format.layout().len() as f64 / bytes as f64;
    rows.push(("compression", format!("{factor:.1} times against f32 gradients")));
    for tensor in &tensors {
        let exponents = tensor.exponents.map_or("none".into(), |[low, high]| format!("{low} to {high}"));
        let (shape, [h, w]) = (&tensor.shape, tensor.chunk);
        let (chunks, empty, sent) = (tensor.chunks, tensor.empty, tensor.sent);
        let text = format!(
            "{} {shape:?}: {chunks} chunks of {h} × {w}, {empty} empty, {sent} sent, exponents {exponents}",
            tensor.name
        );
        rows.push(("tensor", text));
    }
    Ok(json!({
        "bits": format.codebook().bits(), "levels": format.codebook().levels(), "topk": format.topk(),
        "chunks": format.chunks(), "size": size, "sent": submission.sent(), "tensors": tensors,
    }))
}

/// How the bodies of a run are written: by its manifest, or by its settings and its model.
fn format(args: &InspectArgs) -> Result<Option<Arc<Format>>> {
    let holds_run = |folder: &&Path| folder.join(MANIFEST).exists() || folder.join(SETTINGS).exists();
    let around = args.file.ancestors().skip(1).find(holds_run);
    let Some(run) = args.run.as_deref().or(around) else { return Ok(None) };
    let manifest = run.join(MANIFEST);
    if manifest.exists() {
        let manifest = Manifest::read(&manifest)?;
        let Optimizer::Demo(demo) = &manifest.optimizer else { return Ok(None) };
        return Ok(Some(demo.format(demo_layout(&Layout::new(&manifest.shape()?))?)?));
    }
    let settings = Settings::read(&run.join(SETTINGS))?;
    let layout = Layout::new(&model_folder::config(run)?);
    Ok(Some(settings.demo.format(&layout)?))
}

fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from(*bytes).to_hex().to_string()
}
