//! Settings of a training run: defaults, then the config file, then the command line; written resolved
//! beside the results, so that a run can be repeated and resumed from its folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use gauntlet_model::schedule::Schedule;
use serde::{Deserialize, Serialize};

use super::demo::{DemoArgs, DemoSettings, wrong_flag};
use super::optimizer::Kind;
use crate::cli::{Usage, kept_number};
use crate::corpus::DataArgs;
use crate::files;
use crate::fit::Recompute;

/// As many as one gather holds.
const MOST_WORKERS: usize = gauntlet_demo::MAX_PEERS;

/// Everything that decides the numbers of a run, and how it reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// Named shape (see `--preset`); not used with `from`.
    pub(crate) preset: String,
    /// Model folder whose weights training starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<PathBuf>,
    pub(crate) seed: u64,
    pub(crate) steps: u64,
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    pub(crate) accumulate: usize,
    /// What is done with gradients.
    pub(crate) optimizer: Kind,
    /// Data-parallel workers, each with batches of its own.
    pub(crate) workers: usize,
    pub(crate) lr: f64,
    pub(crate) warmup: u64,
    pub(crate) lr_floor: f64,
    pub(crate) weight_decay: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    pub(crate) clip: f32,
    /// Whether activations are computed again; what is written beside the results is what was chosen.
    pub(crate) recompute: Recompute,
    pub(crate) validate_every: u64,
    pub(crate) validation_sequences: u64,
    pub(crate) checkpoint_every: u64,
    pub(crate) keep: usize,
    /// Used by DeMo alone.
    #[serde(flatten)]
    pub(crate) demo: DemoSettings,
    #[serde(flatten)]
    pub(crate) data: DataArgs,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            preset: "byte-1m".into(),
            from: None,
            seed: 42,
            steps: 300,
            batch: 16,
            seq: 128,
            accumulate: 1,
            optimizer: Kind::Adamw,
            workers: 1,
            lr: 3e-3,
            warmup: 20,
            lr_floor: 0.1,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            clip: 1.0,
            recompute: Recompute::Auto,
            validate_every: 50,
            validation_sequences: 64,
            checkpoint_every: 100,
            keep: 2,
            demo: DemoSettings::default(),
            data: DataArgs::default(),
        }
    }
}

/// The same as flags, each overriding the file.
#[derive(Args, Clone, Debug, Default)]
#[command(allow_negative_numbers = true)]
pub(crate) struct SettingArgs {
    /// Model shape: byte-1m, small-10m, bench-34m, 150m, 1b [default: byte-1m].
    #[arg(long, conflicts_with = "from")]
    preset: Option<String>,
    /// Start from the weights of a model folder or the newest checkpoint of a run.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Seed of weights and data order [default: 42].
    #[arg(long, value_parser = kept_number::<u64>())]
    seed: Option<u64>,
    /// Optimizer steps [default: 300].
    #[arg(long, value_parser = kept_number::<u64>())]
    steps: Option<u64>,
    /// Sequences in a micro-batch [default: 16].
    #[arg(long, value_parser = kept_number::<usize>())]
    batch: Option<usize>,
    /// Tokens in a sequence [default: 128].
    #[arg(long, value_parser = kept_number::<usize>())]
    seq: Option<usize>,
    /// Micro-batches whose gradients make one step [default: 1].
    #[arg(long, value_parser = kept_number::<usize>())]
    accumulate: Option<usize>,
    /// What is done with gradients [default: adamw].
    #[arg(long)]
    optimizer: Option<Kind>,
    /// Simulated data-parallel workers; with DeMo each has a momentum of its own [default: 1].
    #[arg(long, value_parser = kept_number::<usize>())]
    workers: Option<usize>,
    /// Highest learning rate [default: 0.003; DeMo: 0.002].
    #[arg(long)]
    lr: Option<f64>,
    /// Steps of linear warm-up [default: 20].
    #[arg(long, value_parser = kept_number::<u64>())]
    warmup: Option<u64>,
    /// Learning rate at the last step, as a share of the highest [default: 0.1].
    #[arg(long)]
    lr_floor: Option<f64>,
    /// Decoupled weight decay [default: 0.1; DeMo: 0].
    #[arg(long)]
    weight_decay: Option<f32>,
    /// AdamW's decay of the first moment [default: 0.9].
    #[arg(long)]
    beta1: Option<f32>,
    /// AdamW's decay of the second moment [default: 0.95].
    #[arg(long)]
    beta2: Option<f32>,
    /// AdamW's epsilon [default: 1e-8].
    #[arg(long)]
    eps: Option<f32>,
    /// Gradients are clipped to this norm; 0: not at all [default: 1].
    #[arg(long)]
    clip: Option<f32>,
    /// Compute activations again in the backward pass instead of keeping them: the same bits [default: auto, only where
    /// they do not fit].
    #[arg(long, num_args = 0..=1, default_missing_value = "on")]
    recompute: Option<Recompute>,
    /// Steps between validations; 0: only at the end [default: 50].
    #[arg(long, value_parser = kept_number::<u64>())]
    validate_every: Option<u64>,
    /// Validation sequences measured each time; 0: all [default: 64].
    #[arg(long, value_parser = kept_number::<u64>())]
    validation_sequences: Option<u64>,
    /// Steps between checkpoints; 0: only at the end [default: 100].
    #[arg(long, value_parser = kept_number::<u64>())]
    checkpoint_every: Option<u64>,
    /// Checkpoints kept [default: 2].
    #[arg(long, value_parser = kept_number::<usize>())]
    keep: Option<usize>,
    #[command(flatten)]
    demo: DemoArgs,
    #[command(flatten)]
    data: DataArgs,
}

impl Settings {
    /// Reads a TOML file of settings; keys are the flags' names.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = files::read(path)?;
        let parsed = files::parse_toml(path, &text);
        let mut settings: Self = parsed.map_err(|error| wrong_key(path, &text).unwrap_or(error))?;
        let given: toml::Table = files::parse_toml(path, &text)?;
        if settings.optimizer == Kind::Demo {
            let Self { lr, weight_decay, .. } = settings;
            settings.take_rates_of_demo();
            settings.lr = if given.contains_key("lr") { lr } else { settings.lr };
            let kept = given.contains_key("weight-decay");
            settings.weight_decay = if kept { weight_decay } else { settings.weight_decay };
        }
        Ok(settings)
    }

    /// The defaults that fit updates whose every element has the size of the learning rate.
    fn take_rates_of_demo(&mut self) {
        (self.lr, self.weight_decay) = (2e-3, 0.0);
    }

    /// These settings with what was typed put over them.
    pub(crate) fn overridden(mut self, args: &SettingArgs) -> Self {
        fn over<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        if args.from.is_some() {
            self.from.clone_from(&args.from);
        }
        if args.preset.is_some() {
            self.from = None;
        }
        if args.optimizer == Some(Kind::Demo) && self.optimizer != Kind::Demo {
            self.take_rates_of_demo();
        }
        over(&mut self.optimizer, &args.optimizer);
        over(&mut self.workers, &args.workers);
        self.demo.override_with(&args.demo);
        over(&mut self.preset, &args.preset);
        over(&mut self.seed, &args.seed);
        over(&mut self.steps, &args.steps);
        over(&mut self.batch, &args.batch);
        over(&mut self.seq, &args.seq);
        over(&mut self.accumulate, &args.accumulate);
        over(&mut self.lr, &args.lr);
        over(&mut self.warmup, &args.warmup);
        over(&mut self.lr_floor, &args.lr_floor);
        over(&mut self.weight_decay, &args.weight_decay);
        over(&mut self.beta1, &args.beta1);
        over(&mut self.beta2, &args.beta2);
        over(&mut self.eps, &args.eps);
        over(&mut self.clip, &args.clip);
        over(&mut self.recompute, &args.recompute);
        over(&mut self.validate_every, &args.validate_every);
        over(&mut self.validation_sequences, &args.validation_sequences);
        over(&mut self.checkpoint_every, &args.checkpoint_every);
        over(&mut self.keep, &args.keep);
        self.data = self.data.overridden(&args.data);
        self
    }

    /// Refuses values no run can use, naming the flag.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |flag: &str, problem: String| Err(Usage(format!("--{flag}: {problem}")).into());
        let counts = [
            ("batch", self.batch),
            ("seq", self.seq),
            ("accumulate", self.accumulate),
            ("workers", self.workers),
            ("keep", self.keep),
        ];
        if let Some((flag, _)) = counts.iter().find(|(_, value)| *value == 0) {
            return wrong(flag, "must be at least 1".into());
        }
        if self.steps == 0 {
            return wrong("steps", "must be at least 1".into());
        }
        let (beta1, beta2) = (f64::from(self.beta1), f64::from(self.beta2));
        let (eps, decay, clip) = (f64::from(self.eps), f64::from(self.weight_decay), f64::from(self.clip));
        let ranges = [
            ("lr", self.lr, 0.0, 10.0),
            ("lr-floor", self.lr_floor, 0.0, 1.0),
            ("weight-decay", decay, 0.0, 10.0),
            ("beta1", beta1, 0.0, 0.999_999),
            ("beta2", beta2, 0.0, 0.999_999),
            ("eps", eps, 1e-30, 1.0),
            ("clip", clip, 0.0, 1e30),
        ];
        if self.workers > MOST_WORKERS {
            return wrong("workers", format!("at most {MOST_WORKERS}"));
        }
        let demo = self.demo.config().and_then(|config| config.check_values());
        demo.map_err(|error| wrong_flag(&error))?;
        if self.demo.gather > self.workers {
            return wrong("gather", format!("{}, of --workers {}", self.demo.gather, self.workers));
        }
        match ranges.iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            None => Ok(()),
            Some((flag, value, low, high)) => wrong(flag, format!("{value} is not in {low}..={high}")),
        }
    }

    /// Where the shape comes from.
    pub(crate) fn shape_name(&self) -> String {
        self.from.as_ref().map_or_else(|| self.preset.clone(), |from| from.display().to_string())
    }

    /// Tokens of one step.
    pub(crate) fn tokens_per_step(&self) -> u64 {
        [self.workers, self.accumulate, self.batch, self.seq].iter().map(|&n| n as u64).product()
    }

    /// Submissions that a step of DeMo applies.
    pub(crate) fn gathered(&self) -> usize {
        match self.demo.gather {
            0 => self.workers,
            n => n,
        }
    }

    /// Learning rates.
    pub(crate) fn schedule(&self) -> Schedule {
        Schedule { peak: self.lr, warmup: self.warmup, steps: self.steps, floor: self.lr_floor }
    }

    /// What decides the numbers, with fixed values for the rest.
    fn numeric(&self) -> Self {
        Self {
            validate_every: 0,
            validation_sequences: 0,
            checkpoint_every: 0,
            keep: 1,
            recompute: Recompute::Auto,
            ..self.clone()
        }
    }

    /// What decides how a checkpoint goes on, which holds the shape and the text's hash itself, wherever they came from.
    pub(crate) fn of_checkpoint(&self) -> Self {
        Self { from: None, data: DataArgs::default(), ..self.numeric() }
    }

    /// Names the run in the headers of its submissions.
    ///
    /// # Errors
    /// Numbers that TOML cannot hold.
    pub(crate) fn run_id(&self) -> Result<[u8; 32]> {
        Ok(*blake3::hash(toml::to_string(&self.numeric())?.as_bytes()).as_bytes())
    }

    /// The first setting that differs and would change the numbers of a run already begun.
    pub(crate) fn numeric_difference(&self, other: &Self) -> Option<String> {
        let table = |s: &Self| toml::Table::try_from(s.numeric()).unwrap_or_default();
        let (a, b) = (table(self), table(other));
        let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
        keys.into_iter().find(|key| a.get(*key) != b.get(*key)).cloned()
    }
}

/// The key of a file of settings that cannot be taken, and its line: of flattened settings the parser knows neither.
fn wrong_key(path: &Path, text: &str) -> Option<anyhow::Error> {
    let table: toml::Table = text.parse().ok()?;
    table.into_iter().find_map(|(key, value)| {
        let error = toml::Table::from_iter([(key.clone(), value)]).try_into::<Settings>().err()?;
        let is_key = |line: &str| {
            let rest = line.trim_start().strip_prefix(&key);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let line = text.lines().position(is_key).map_or_else(String::new, |i| format!(", line {}", i + 1));
        let message = error.message().replace('\n', " ");
        Some(Usage(format!("{}{line}: `{key}`: {message}", path.display())).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    #[test]
    fn files_and_flags_come_together_and_unknown_keys_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, "steps = 7\nlr = 0.5\ndata = \"books\"\nvalidation = \"a.txt\"\n").unwrap();
        let args = SettingArgs { lr: Some(0.25), ..SettingArgs::default() };
        let settings = Settings::read(&file).unwrap().overridden(&args);
        assert_eq!((settings.steps, settings.lr, settings.batch), (7, 0.25, Settings::default().batch));
        assert_eq!(settings.data.validation.as_deref(), Some("a.txt"));
        let typed = |data: DataArgs| {
            let args = SettingArgs { data, ..SettingArgs::default() };
            Settings::read(&file).unwrap().overridden(&args).data
        };
        let field = typed(DataArgs { field: Some("body".into()), ..DataArgs::default() });
        assert_eq!((field.data.as_deref(), field.field.as_deref()), (Some("books"), Some("body")));
        assert_eq!(field.validation.as_deref(), Some("a.txt"));
        let share = typed(DataArgs { validation_fraction: Some(0.5), ..DataArgs::default() });
        assert_eq!((share.data.as_deref(), share.validation_fraction), (Some("books"), Some(0.5)));
        assert_eq!(share.validation, None, "the flag's rule replaces the file's");
        let text = toml::to_string(&settings).unwrap();
        std::fs::write(&file, &text).unwrap();
        assert_eq!(Settings::read(&file).unwrap(), settings, "{text}");
        for (text, key) in
            [("stepps = 7\n", "`stepps`"), ("bits = -1\n", "`bits`: invalid value: integer `-1`")]
        {
            std::fs::write(&file, format!("# a run\n\nseed = 1\n{text}")).unwrap();
            let message = format!("{:#}", Settings::read(&file).unwrap_err());
            assert!(message.contains(&format!("line 4: {key}")), "{message}");
        }
        std::fs::write(&file, "bits = 3\nlevels = [30, 60, 90]\n").unwrap();
        let levels = |args: &[&str]| {
            let command = SettingArgs::augment_args(clap::Command::new("train").no_binary_name(true));
            let args = SettingArgs::from_arg_matches(&command.get_matches_from(args)).unwrap();
            Settings::read(&file).unwrap().overridden(&args).demo.levels
        };
        assert_eq!(levels(&["--bits", "3"]), Some(vec![30, 60, 90]));
        assert_eq!(levels(&["--bits", "4"]), None);
    }

    #[test]
    fn help_says_the_defaults_that_hold() {
        let hold = toml::Table::try_from(Settings::default()).unwrap();
        let command = SettingArgs::augment_args(clap::Command::new("train"));
        let mut compared = 0;
        for arg in command.get_arguments() {
            let help = arg.get_long_help().or(arg.get_help()).unwrap().to_string();
            let key = arg.get_id().as_str().replace('_', "-");
            let (Some((_, said)), Some(value)) = (help.split_once("[default: "), hold.get(&key)) else {
                continue;
            };
            let said = said.split([';', ',', ']']).next().unwrap();
            match value.as_float().or(value.as_integer().map(|x| x as f64)) {
                // Some settings are f32.
                Some(value) => assert_eq!(said.parse::<f32>().unwrap(), value as f32, "--{key}"),
                None => assert_eq!(said, value.to_string().trim_matches('"'), "--{key}"),
            }
            compared += 1;
        }
        assert!(compared >= 28, "{compared}");
    }

    #[test]
    fn wrong_values_name_their_flag() {
        let demo = DemoSettings::default();
        let with = |demo| Settings { demo, ..Settings::default() };
        let wrong = [
            ("--batch", Settings { batch: 0, ..Settings::default() }),
            ("--steps", Settings { steps: 0, ..Settings::default() }),
            ("--lr", Settings { lr: f64::NAN, ..Settings::default() }),
            ("--beta2", Settings { beta2: 1.0, ..Settings::default() }),
            ("--gather: 2, of --workers 1", with(DemoSettings { gather: 2, ..demo.clone() })),
            ("--bits", with(DemoSettings { bits: 5, ..demo.clone() })),
            ("--levels", with(DemoSettings { levels: Some(vec![3, 2]), bits: 3, ..demo.clone() })),
            ("--topk", with(DemoSettings { topk: 4097, ..demo.clone() })),
            ("--chunk", with(DemoSettings { chunk: 65, ..demo.clone() })),
            ("--decay", with(DemoSettings { decay: 7.0, ..demo })),
        ];
        for (flag, settings) in wrong {
            let message = settings.check().unwrap_err().to_string();
            assert!(message.contains(flag), "{message}");
        }
        Settings::default().check().unwrap();
    }

    #[test]
    fn only_what_changes_numbers_blocks_a_resume() {
        let a = Settings::default();
        assert_eq!(a.numeric_difference(&Settings { keep: 9, validate_every: 1, ..a.clone() }), None);
        let b = Settings { lr: 1.0, ..a.clone() };
        assert_eq!(a.numeric_difference(&b).as_deref(), Some("lr"));
        let id = |settings: Settings| settings.run_id().unwrap();
        assert_eq!(id(Settings { keep: 9, recompute: Recompute::On, ..a.clone() }), id(a.clone()));
        assert_ne!(id(b), id(a));
    }
}
