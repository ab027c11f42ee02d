//! What the body of a submission says, read by the tensors of the run it belongs to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use gauntlet_demo::object::{HEADER, KIND_DEMO, KIND_DENSE, Object, TRAILER};
use gauntlet_demo::size::Size;
use gauntlet_demo::{AdamW, Dense, Format, Optimizer, Payload, Scheme, Submission};
use gauntlet_model::Layout;
use serde_json::{Value, json};

use super::{InspectArgs, Rows};
use crate::cli::Usage;
use crate::commands::simulate::MANIFEST;
use crate::model_folder;
use crate::run::manifest::{Manifest, demo_layout};
use crate::train::SETTINGS;
use crate::train::optimizer::Kind;
use crate::train::settings::Settings;

/// How the bodies of a run are written.
pub(super) struct Bodies {
    /// The run's name in headers.
    run: [u8; 32],
    /// Where that is known from.
    folder: PathBuf,
    layout: gauntlet_demo::Layout,
    /// None in a run that sends no compressed momentum.
    demo: Option<Arc<Format>>,
}

impl Bodies {
    /// By the run's manifest, or by its settings and its model; none where no folder of a run is named or around the file.
    pub(super) fn of(args: &InspectArgs) -> Result<Option<Self>> {
        let holds_run = |folder: &&Path| folder.join(MANIFEST).exists() || folder.join(SETTINGS).exists();
        let around = args.file.ancestors().skip(1).find(holds_run);
        let Some(run) = args.run.as_deref().or(around) else { return Ok(None) };
        if !holds_run(&run) {
            return Err(Usage(format!("--run {}: no run is there", run.display())).into());
        }
        let (manifest, folder) = (run.join(MANIFEST), run.to_path_buf());
        if manifest.exists() {
            let manifest = Manifest::read(&manifest)?;
            let run = manifest.id()?.0;
            let layout = demo_layout(&Layout::new(&manifest.shape()?))?;
            let demo = match &manifest.optimizer {
                Optimizer::Demo(demo) => Some(demo.format(layout.clone())?),
                Optimizer::Adamw(_) => None,
            };
            return Ok(Some(Self { run, folder, layout, demo }));
        }
        let settings = Settings::read(&run.join(SETTINGS))?;
        let shapes = Layout::new(&model_folder::config(run)?);
        let (run, layout) = (settings.run_id()?, demo_layout(&shapes)?);
        let demo = (settings.optimizer == Kind::Demo).then(|| settings.demo.format(&shapes)).transpose()?;
        Ok(Some(Self { run, folder, layout, demo }))
    }

    /// Refuses an object of another run, whose body may read as something else here.
    pub(super) fn check_run(&self, object: &Object<'_>) -> Result<()> {
        if object.header.run != self.run {
            let (its, this) = (super::hex(&object.header.run), super::hex(&self.run));
            bail!("it is of run {its}, and {} holds run {this}; name its own --run", self.folder.display());
        }
        Ok(())
    }

    /// Decodes the payload and adds what it says to `rows`; none for a kind that the run does not have.
    pub(super) fn read(&self, object: &Object<'_>, rows: &mut Rows) -> Result<Option<Value>> {
        match (object.header.kind, &self.demo) {
            (KIND_DEMO, Some(format)) => compressed(object, format, rows).map(Some),
            (KIND_DENSE, _) => self.dense(object, rows).map(Some),
            _ => Ok(None),
        }
    }

    /// A gradient as it is: the size of each tensor's part.
    fn dense(&self, object: &Object<'_>, rows: &mut Rows) -> Result<Value> {
        let scheme = Dense::new(AdamW::default(), self.layout.clone())?;
        let Payload::Dense(gradient) = scheme.decode(object.payload)? else {
            anyhow::bail!("not a dense gradient");
        };
        let norm = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        rows.push(("values", format!("{} of 32 bits", gradient.len())));
        rows.push(("norm", format!("{:.6e}", norm(&gradient))));
        let mut tensors = Vec::new();
        for tensor in self.layout.tensors() {
            let part = gradient.get(tensor.range()).unwrap_or_default();
            let largest = part.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let zeros = part.iter().filter(|x| **x == 0.0).count();
            let (name, shape, norm) = (&tensor.name, &tensor.shape, norm(part));
            let text = format!("{name} {shape:?}: norm {norm:.6e}, largest {largest:.6e}, {zeros} are 0");
            rows.push(("tensor", text));
            tensors.push(
                json!({ "name": name, "shape": shape, "norm": norm, "largest": largest, "zeros": zeros }),
            );
        }
        Ok(json!({ "bits": 32, "values": gradient.len(), "norm": norm(&gradient), "tensors": tensors }))
    }
}

/// Compressed momentum: codes, chunks and exponents of each tensor.
fn compressed(object: &Object<'_>, format: &Arc<Format>, rows: &mut Rows) -> Result<Value> {
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

#[cfg(test)]
mod tests {
    use gauntlet_demo::object::{Header, open, seal};
    use schnorrkel::{ExpansionMode, MiniSecretKey};

    use super::*;

    #[test]
    fn a_dense_gradient_is_read_tensor_by_tensor() {
        let layout = gauntlet_demo::Layout::from_shapes([("a", vec![2]), ("b", vec![3])]).unwrap();
        let bodies = Bodies { run: [0; 32], folder: PathBuf::new(), layout, demo: None };
        let key = MiniSecretKey::from_bytes(&[7; 32]).unwrap().expand_to_keypair(ExpansionMode::Ed25519);
        let header = Header {
            kind: KIND_DENSE,
            run: [0; 32],
            window: 1,
            hotkey: [0; 32],
            count: 1,
            state_tag: [0; 32],
        };
        let sealed = |gradient: &[f32]| {
            let payload: Vec<u8> = gradient.iter().flat_map(|x| x.to_le_bytes()).collect();
            seal(&header, &payload, &key)
        };
        let (object, mut rows) = (sealed(&[3.0, -4.0, 0.0, 0.0, 12.0]), Vec::new());
        let body = bodies.read(&open(&object).unwrap(), &mut rows).unwrap().unwrap();
        assert_eq!((&body["norm"], &body["values"]), (&json!(13.0), &json!(5)));
        assert_eq!(
            body["tensors"],
            json!([
                { "name": "a", "shape": [2], "norm": 5.0, "largest": 4.0_f32, "zeros": 0 },
                { "name": "b", "shape": [3], "norm": 12.0, "largest": 12.0_f32, "zeros": 2 },
            ])
        );
        assert_eq!(rows.iter().filter(|(name, _)| *name == "tensor").count(), 2);
        let broken = sealed(&[f32::NAN; 5]);
        let error = bodies.read(&open(&broken).unwrap(), &mut rows).unwrap_err().to_string();
        assert!(error.contains("`a`"), "{error}");
        let short = sealed(&[1.0; 4]);
        assert!(bodies.read(&open(&short).unwrap(), &mut rows).is_err());
    }
}
