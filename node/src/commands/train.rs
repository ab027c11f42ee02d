//! `gauntlet train`: the centralised baseline.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use gauntlet_model::engine::Mode;
use gauntlet_model::engine::cpu::Path as CodePath;
use serde_json::json;

use crate::claim::{Claim, Leftovers};
use crate::cli::Usage;
use crate::device::{self, Devices, DevicesArgs, Others, Place, Products, Together};
use crate::fit::Recompute;
use crate::memory::peak_rss_bytes;
use crate::train::settings::{SettingArgs, Settings};
use crate::train::{Run, SETTINGS, Shown, start};
use crate::{failure, files, output, progress};

/// Train a LLaMA on one machine, with AdamW or DeMo.
#[derive(Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    settings: SettingArgs,
    /// Settings file (TOML; keys are the flags' names). Flags override it.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    config: Option<PathBuf>,
    /// Folder of the run [default: the next free runs/train-NNN].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint of --out with its settings.
    #[arg(long, requires = "out")]
    resume: bool,
    /// Threads; 0: one a core. Results do not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    devices: DevicesArgs,
    /// Print parameters and memory, allocate and write nothing.
    #[arg(long)]
    plan: bool,
    /// JSON lines on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let settings = resolve(args)?;
    settings.check()?;
    if args.plan {
        return plan(&settings, &args.devices.devices);
    }
    args.devices.devices.share(settings.batch)?;
    args.devices.devices.fix_order();
    let claim = Claim::new(args.out.as_deref(), "train", Leftovers::Keep)?;
    let out = claim.folder();
    if !args.resume && (out.join(SETTINGS).exists() || out.join("checkpoints").exists()) {
        bail!("{}: holds a run already; add --resume to go on with it or name another --out", out.display());
    }
    progress::catch_signals()?;
    let training = Training { args, settings, claim };
    device::run_together((&args.devices.devices, Products::Auto), args.threads, CodePath::Best, training)
}

/// What is trained into which folder.
struct Training<'a> {
    args: &'a TrainArgs,
    settings: Settings,
    claim: Claim,
}

impl Together for Training<'_> {
    type Out = ();

    fn on<P: Place>(self, first: P, others: Option<Others<P>>) -> Result<()> {
        let Self { args, settings, claim } = self;
        let out = claim.folder();
        let shown = if output::wants_json(args.json) { Shown::Json } else { Shown::Bar };
        let mut run = Run::open(out, settings, args.resume, (first, others), shown)?;
        files::write(&out.join(SETTINGS), &toml::to_string(run.settings())?)?;
        run.greet();
        let summary = run.train()?;
        run.show(&summary)
    }
}

/// Defaults, file and flags; when resuming, the run's own settings and what may change.
fn resolve(args: &TrainArgs) -> Result<Settings> {
    if let (true, Some(out)) = (args.resume, &args.out) {
        let saved = read_saved(&out.join(SETTINGS))?;
        let settings = saved.clone().overridden(&args.settings);
        if let Some(key) = saved.numeric_difference(&settings) {
            let problem =
                format!("--{key} cannot change when a run is resumed; leave it out, or start a new run");
            return Err(Usage(problem).into());
        }
        return Ok(settings);
    }
    let base = match &args.config {
        Some(path) => Settings::read(path)?,
        None => Settings::default(),
    };
    Ok(base.overridden(&args.settings))
}

/// The settings this program wrote for a run.
fn read_saved(path: &Path) -> Result<Settings> {
    if !path.exists() {
        bail!("{}: not there, nothing to resume; leave out --resume to start a run", path.display());
    }
    // Nobody typed them, so that what is wrong with them is no wrong usage.
    Settings::read(path).map_err(|error| {
        let remedy = "put it back as the run wrote it, or start a new run --from this one's folder";
        anyhow!("the settings of the run are damaged: {}; {remedy}", failure::line(&error))
    })
}

fn plan(settings: &Settings, devices: &Devices) -> Result<()> {
    let (known, batch) = (device::known(devices.first()), devices.share(settings.batch)?);
    let config = match settings.data.planned_tokenizer()? {
        Some(tokenizer) => start::fitting(settings, start::shape(settings)?, &tokenizer)?,
        None => {
            let config = start::shape(settings)?;
            if settings.from.is_none() {
                let rows = config.vocab_size;
                output::note(format_args!(
                    "planned with the preset's own {rows} rows of vocabulary; a run has its tokenizer's: name --data or --tokenizer"
                ));
            }
            config
        }
    };
    let needs = start::needs(settings, &config, (known.footprint, known.own_memory), batch)?;
    let fit = needs.choose(settings.recompute, known.free)?;
    let [kept, again] = [Mode::Train, Mode::TrainRecompute].map(|mode| needs.plan(mode));
    let plan = json!({
        "model": settings.shape_name(), "optimizer": settings.optimizer, "workers": settings.workers,
        "batch": settings.batch, "seq": settings.seq, "devices": devices.count(),
        "recompute": {
            "asked": settings.recompute,
            "chosen": Recompute::from(fit.mode),
            "total_bytes": { "off": kept?.total_bytes, "on": again?.total_bytes },
        },
        "plan": fit.plan,
        "host_bytes": needs.host_bytes(),
        "free": { "device_bytes": known.free.device, "host_bytes": known.free.host },
        "fits": needs.check(&fit.plan, known.free).is_ok(),
        "peak_rss_bytes": peak_rss_bytes(),
    });
    output::text(&format!("{plan:#}\n"))
}
