//! Checkpoints: `checkpoints/step-0000000100/` holds a model folder, the optimizer's moments, the state, and the settings
//! that decide how it goes on. A checkpoint is written beside its place and renamed into it, so that it is whole or absent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use gauntlet_data::Tokenizer;
use gauntlet_model::{Layout, LlamaConfig, hash::theta_hash, weights};
use serde::{Deserialize, Serialize};

use super::SETTINGS;
use super::optimizer::Optimizer;
use super::settings::Settings;
use crate::device::Place;
use crate::{failure, files, model_folder};

/// Formats this program writes; others are refused.
const FORMAT: u32 = 1;
const STATE: &str = "state.json";

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) format: u32,
    /// Steps done.
    pub(crate) step: u64,
    /// θ hash, hex.
    pub(crate) theta: String,
    /// BLAKE3 of the little-endian bytes of each of the optimizer's buffers, hex, by name.
    pub(crate) optimizer: BTreeMap<String, String>,
    /// Hash of the corpus.
    pub(crate) corpus: String,
}

/// What a checkpoint is made of.
pub(crate) struct Parts<'a> {
    pub(crate) step: u64,
    pub(crate) config: LlamaConfig,
    pub(crate) layout: Layout,
    /// Borrowed where the host computes, copied where a device does; and so are the optimizer's.
    pub(crate) theta: Cow<'a, [f32]>,
    /// The optimizer's buffers, by name.
    pub(crate) optimizer: Vec<(String, Cow<'a, [f32]>)>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) corpus: String,
    pub(crate) settings: Settings,
}

impl Parts<'_> {
    /// Whether all values are copies.
    pub(crate) fn copied(&self) -> bool {
        let owned = |values: &Cow<'_, [f32]>| matches!(values, Cow::Owned(_));
        owned(&self.theta) && self.optimizer.iter().all(|(_, values)| owned(values))
    }

    /// The same without borrowing: copies what is no copy yet.
    pub(crate) fn into_owned(self) -> Parts<'static> {
        let Self { step, config, layout, theta, optimizer, tokenizer, corpus, settings } = self;
        let own = |(name, values): (String, Cow<'_, [f32]>)| (name, Cow::Owned(values.into_owned()));
        let (theta, optimizer) = (Cow::Owned(theta.into_owned()), optimizer.into_iter().map(own).collect());
        Parts { step, config, layout, theta, optimizer, tokenizer, corpus, settings }
    }
}

/// Writes a checkpoint under `run`, unless it is there, and removes all but the newest `keep`.
pub(crate) fn save(run: &Path, parts: &Parts<'_>, keep: usize) -> Result<PathBuf> {
    let root = run.join("checkpoints");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let place = root.join(name(parts.step));
    if holds(&place, parts) {
        return Ok(place);
    }
    let [temporary, replaced] = ["tmp", "replaced"].map(|ending| place.with_extension(ending));
    remove(&temporary)?;
    remove(&replaced)?;
    let written = write(&temporary, parts).and_then(|()| {
        if place.exists() {
            rename(&place, &replaced)?;
        }
        rename(&temporary, &place)?;
        File::open(&root)?.sync_all()?;
        remove(&replaced)
    });
    if let Err(error) = written {
        // The error that matters is the first one; the leftover only takes room.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error.context("the checkpoint was not written; free disk space or choose another --out"));
    }
    for old in all(run)?.into_iter().rev().skip(keep.max(1)) {
        remove(&old)?;
    }
    Ok(place)
}

/// Whether `folder` is the checkpoint of the same θ, and so of the same run and step: whatever has its name is whole.
fn holds(folder: &Path, parts: &Parts<'_>) -> bool {
    let theta = || theta_hash(&parts.layout, &parts.theta).to_hex().to_string();
    let same = |state: State| {
        (state.format, state.step, &state.corpus) == (FORMAT, parts.step, &parts.corpus)
            && state.theta == theta()
    };
    folder.exists() && read_state(folder).is_ok_and(same)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

fn write(folder: &Path, parts: &Parts<'_>) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let model = (&parts.config, &parts.layout, &*parts.theta);
    model_folder::write(folder, model, Some(&parts.tokenizer), weights::SHARD_BYTES)?;
    let mut optimizer = BTreeMap::new();
    for (name, values) in &parts.optimizer {
        optimizer.insert(name.clone(), write_floats(&folder.join(file(name)), values)?);
    }
    let state = State {
        format: FORMAT,
        step: parts.step,
        theta: theta_hash(&parts.layout, &parts.theta).to_hex().to_string(),
        optimizer,
        corpus: parts.corpus.clone(),
    };
    files::write(&folder.join(SETTINGS), toml::to_string(&parts.settings.of_checkpoint())?)?;
    let path = folder.join(STATE);
    let mut file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(serde_json::to_string_pretty(&state)?.as_bytes())?;
    file.sync_all().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(File::open(folder)?.sync_all()?)
}

fn write_floats(path: &Path, values: &[f32]) -> Result<String> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file = File::create(path).with_context(cannot)?;
    let mut hasher = blake3::Hasher::new();
    for block in values.chunks(1 << 16) {
        let bytes: Vec<u8> = block.iter().flat_map(|v| v.to_le_bytes()).collect();
        hasher.update(&bytes);
        file.write_all(&bytes).with_context(cannot)?;
    }
    file.sync_all().with_context(cannot)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Reads θ, the optimizer and the state of a checkpoint, and checks the first two against the hashes in the state.
pub(crate) fn load<P: Place>(
    folder: &Path,
    layout: &Layout,
    theta: &mut [f32],
    optimizer: &mut Optimizer<P>,
    place: &P,
) -> Result<State> {
    let state = read_state(folder)?;
    weights::read(folder, layout, theta)?;
    let damaged = |what: &str| format!("{}: {what} is damaged; delete this checkpoint", folder.display());
    if theta_hash(layout, theta).to_hex().as_str() != state.theta {
        bail!(damaged("model.safetensors"));
    }
    let mut values = vec![0.0; layout.total()];
    for (i, name) in optimizer.names().iter().enumerate() {
        let file = file(name);
        if Some(&read_floats(&folder.join(&file), &mut values)?) != state.optimizer.get(name) {
            bail!(damaged(&file));
        }
        optimizer.restore(i, &values, state.step, place)?;
    }
    Ok(state)
}

/// Refuses other settings than those with which the checkpoint was trained, where they lie with it.
pub(crate) fn check_settings(folder: &Path, settings: &Settings) -> Result<()> {
    let path = folder.join(SETTINGS);
    if !path.exists() {
        return Ok(());
    }
    let trained = Settings::read(&path).map_err(|error| {
        anyhow!("{}; delete this checkpoint", failure::line(&error)) // nobody typed them: no wrong usage
    })?;
    match trained.numeric_difference(&settings.of_checkpoint()) {
        None => Ok(()),
        Some(key) => bail!(
            "`{key}` is not as it was when {} was trained; put it back in {SETTINGS}, or start a new run --from this one's \
             folder",
            folder.display()
        ),
    }
}

fn read_state(folder: &Path) -> Result<State> {
    let path = folder.join(STATE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let damaged = || format!("{} is damaged; delete this checkpoint", path.display());
    let state: State = serde_json::from_str(&text).with_context(damaged)?;
    if state.format != FORMAT {
        bail!("{}: checkpoint format {}, this program reads {FORMAT}", path.display(), state.format);
    }
    Ok(state)
}

/// Name of the file of one of the optimizer's buffers.
fn file(name: &str) -> String {
    format!("optimizer.{name}.bin")
}

/// The θ hash a folder's state records; `None` where the folder is no checkpoint.
pub(crate) fn recorded_theta(folder: &Path) -> Result<Option<String>> {
    let path = folder.join(STATE);
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(read_state(folder)?.theta))
}

fn read_floats(path: &Path, values: &mut [f32]) -> Result<String> {
    let cannot = || format!("cannot read {}; delete this checkpoint", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = vec![0; 4 << 16];
    for block in values.chunks_mut(1 << 16) {
        let bytes = bytes.get_mut(..4 * block.len()).unwrap_or_default();
        file.read_exact(bytes).with_context(cannot)?;
        hasher.update(bytes);
        for (value, b) in block.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*b);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The newest checkpoint of a run folder, if it has one.
pub(crate) fn newest(run: &Path) -> Result<Option<PathBuf>> {
    Ok(all(run)?.pop())
}

/// All whole checkpoints, oldest first.
fn all(run: &Path) -> Result<Vec<PathBuf>> {
    let root = run.join("checkpoints");
    if !root.is_dir() {
        return Ok(Vec::new());
    }
    let cannot = || format!("cannot list {}", root.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&root).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let digits = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("step-"));
        if digits.is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit())) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn name(step: u64) -> String {
    format!("step-{step:010}")
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::DataArgs;
    use crate::train::demo::DemoSettings;
    use crate::train::optimizer::Kind;
    use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
    use gauntlet_model::{init, preset};

    struct Trained {
        config: LlamaConfig,
        layout: Layout,
        theta: Vec<f32>,
        optimizer: Optimizer<Cpu>,
        cpu: Cpu,
    }

    fn cpu() -> Cpu {
        Cpu::new(1, CodePath::Best).unwrap()
    }

    fn optimizer(settings: &Settings, layout: &Layout) -> Optimizer<Cpu> {
        Optimizer::new(settings, layout, &cpu()).unwrap()
    }

    fn trained(settings: &Settings) -> Trained {
        let config = preset("byte-1m").unwrap();
        let layout = Layout::new(&config);
        let mut theta = vec![0.0; layout.total()];
        init::init(&layout, 1, &mut theta);
        let mut optimizer = optimizer(settings, &layout);
        for i in 0..optimizer.names().len() {
            let values: Vec<f32> = theta.iter().map(|x| x + i as f32).collect();
            optimizer.restore(i, &values, 7, &cpu()).unwrap();
        }
        Trained { config, layout, theta, optimizer, cpu: cpu() }
    }

    fn save_at(t: &Trained, run: &Path, step: u64, keep: usize) -> PathBuf {
        let settings = demo();
        let (tokenizer, corpus) = (Tokenizer::bytes(), "c".to_owned());
        let (config, layout, theta) = (t.config.clone(), t.layout.clone(), Cow::Borrowed(&t.theta[..]));
        let optimizer = t.optimizer.buffers(&t.cpu).unwrap();
        save(run, &Parts { step, config, layout, theta, optimizer, tokenizer, corpus, settings }, keep)
            .unwrap()
    }

    fn demo() -> Settings {
        Settings { optimizer: Kind::Demo, workers: 3, ..Settings::default() }
    }

    #[test]
    fn what_is_saved_is_loaded_and_old_ones_go() {
        for settings in [Settings::default(), demo()] {
            let (t, run) = (trained(&settings), tempfile::tempdir().unwrap());
            for step in [5, 10, 1000] {
                save_at(&t, run.path(), step, 2);
            }
            let left = all(run.path()).unwrap();
            assert_eq!(left.len(), 2);
            // What is there already is not taken away, not even to be written again; another θ replaces it.
            let mark = left[1].join("mark");
            fs::write(&mark, "").unwrap();
            save_at(&t, run.path(), 1000, 1);
            assert!(mark.exists());
            let mut other = trained(&settings);
            other.theta[0] += 1.0;
            save_at(&other, run.path(), 1000, 2);
            assert!(!mark.exists());
            save_at(&t, run.path(), 1000, 2);
            let entries = fs::read_dir(run.path().join("checkpoints")).unwrap();
            assert_eq!(entries.count(), 2, "nothing is left beside the checkpoints");
            assert!(left[1].ends_with("step-0000001000"));
            let (mut theta, mut fresh) = (vec![0.0; t.theta.len()], optimizer(&settings, &t.layout));
            let state = load(&left[1], &t.layout, &mut theta, &mut fresh, &t.cpu).unwrap();
            assert_eq!(state.step, 1000);
            assert!(theta == t.theta);
            for i in 0..fresh.names().len() {
                assert!(fresh.buffer(i, &t.cpu).unwrap() == t.optimizer.buffer(i, &t.cpu).unwrap());
            }
        }
    }

    #[test]
    fn other_settings_than_it_was_trained_with_are_named() {
        let (trained, run) = (demo(), tempfile::tempdir().unwrap());
        let place = save_at(&super::tests::trained(&trained), run.path(), 1, 1);
        let moved = DataArgs { data: Some("elsewhere".into()), ..DataArgs::default() };
        check_settings(&place, &Settings { keep: 7, data: moved, ..trained.clone() }).unwrap();
        let other = |settings| check_settings(&place, &settings).unwrap_err().to_string();
        let message = other(Settings { workers: 2, ..trained.clone() });
        assert!(message.contains("`workers`") && message.contains("step-0000000001"), "{message}");
        let chunk = DemoSettings { chunk: 32, ..trained.demo.clone() };
        assert!(other(Settings { demo: chunk, ..trained.clone() }).contains("`chunk`"));
        // One from before settings lay with it.
        fs::remove_file(place.join(SETTINGS)).unwrap();
        check_settings(&place, &Settings { workers: 2, ..trained }).unwrap();
    }

    #[test]
    fn a_changed_or_cut_file_is_named() {
        let settings = demo();
        let t = trained(&settings);
        for name in ["model.safetensors", "optimizer.worker-0.bin", "optimizer.worker-2.bin", STATE] {
            for cut in [false, true] {
                let run = tempfile::tempdir().unwrap();
                let place = save_at(&t, run.path(), 1, 1);
                let mut bytes = fs::read(place.join(name)).unwrap();
                let last = bytes.len() - 2;
                if cut {
                    bytes.truncate(last)
                } else {
                    bytes[last] ^= 0x55
                }
                fs::write(place.join(name), bytes).unwrap();
                let (mut theta, mut fresh) = (vec![0.0; t.theta.len()], optimizer(&settings, &t.layout));
                let error =
                    format!("{:#}", load(&place, &t.layout, &mut theta, &mut fresh, &t.cpu).unwrap_err());
                assert!(error.contains(name), "{name}, cut {cut}: {error}");
                let remedy = if name == "model.safetensors" { "again" } else { "delete this checkpoint" };
                assert!(error.contains(remedy) || !cut, "{name}, cut {cut}: {error}");
            }
        }
    }
}
