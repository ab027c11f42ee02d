//! What takes part, as typed: `honest:4@2,lazy,stale:3,absent:0.3,sybil:3:interleave,joiner@20`.

use std::fmt;
use std::str::FromStr;

use crate::run::node::Part;

/// How a peer behaves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Honest,
    Lazy,
    Idle,
    Random,
    Zero,
    /// Commits to another's commitment.
    Copycat,
    /// Commits to another's object, once that can be read.
    LateCopycat,
    /// Whether with a sequence of its own.
    Mixer(bool),
    /// Whether with a sequence of its own.
    Replayer(bool),
    Shuffler,
    EarlyReader,
    TwoFace,
    Eraser,
    /// With its commitment or, committed in time, with its object.
    Late(Tardy),
    /// Probability of missing a window.
    Absent(f64),
    Malformed,
    /// Windows its state is old.
    Stale(u32),
    SignFlip,
    /// Noise in units of the gradient's root mean square.
    Noise(f32),
    Concentrate,
    /// Identities of one machine.
    Sybil(SybilForm, u32),
    /// Honest, from this window on; from a checkpoint, or by replaying the run from its beginning.
    Joiner(u64, Join),
    /// Honest, up to this window.
    Leaver(u64),
    /// Honest; reaches nobody while the record of this window is published.
    Offline(u64),
    /// Honest; killed before a part of the blocks of this window, or before each, and started again from its disk.
    Restart(u64, Option<Part>),
}

/// What of a late peer is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tardy {
    Commitment,
    Object,
}

/// Where a joiner begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    Checkpoint,
    Replay,
}

/// What the identities of one machine send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SybilForm {
    /// The same contents.
    Same,
    /// Every n-th coefficient of one momentum.
    Interleave,
    /// Honest work on an n-th of the machine each.
    Split,
}

/// An entry of `--peers`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Peers of this kind.
    pub(crate) count: usize,
    /// Speed of each machine: sequences a window in units of `--sequences`.
    pub(crate) speed: f64,
}

impl Entry {
    /// Sequences a window of each peer, where a machine of speed 1 has `sequences`: one at least. Those of a machine that
    /// `split`s them among its identities are dealt out, so that they add up to the machine's.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked by the settings
    pub(crate) fn budgets(&self, sequences: u32) -> Vec<u32> {
        let rounded = |speed: f64| (f64::from(sequences) * speed).round().max(1.0) as u32;
        let parts = if let Kind::Sybil(SybilForm::Split, n) = self.kind { n.max(1) } else { 1 };
        let machine = u64::from(rounded(self.speed * f64::from(parts)));
        let parts = u64::from(parts);
        let dealt = |i: u64| (machine * (i + 1) / parts - machine * i / parts).max(1) as u32;
        (0..parts).map(dealt).cycle().take(self.count).collect()
    }
}

/// How a validator behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValidatorKind {
    Honest,
    /// Publishes no record from this window on.
    SilentLeader(u64),
    /// Signs two records in this window.
    EquivocatingLeader(u64),
    /// Lists, in this window, an object that nobody can have, and anchors that record.
    WithholdingLeader(u64),
    /// Says nothing in its turn of this window, and in the next shows a record of that turn with another on top of it.
    ForkingLeader(u64),
    /// From this window on selects the miner of the lowest hotkey, and nobody else.
    FavouringLeader(u64),
    /// From this window on judges on top of a past that it makes up, in which the miner of the lowest hotkey is best.
    ForgingLeader(u64),
    /// From this window on its store answers nobody who asks for its judgement.
    MuteJudge(u64),
    /// Honest otherwise; from this window on its store answers nobody, not even itself.
    BucketDown(u64),
    /// Honest otherwise; from this window on anchors hashes of no record.
    GarbageAnchors(u64),
    /// Honest; reaches nobody while this window is closed.
    Offline(u64),
    /// Honest; killed before a part of the blocks of this window, or before each, and started again from its disk.
    Restart(u64, Option<Part>),
}

impl ValidatorKind {
    /// Whether some readers see another bucket of it.
    pub(crate) fn has_two_faces(self) -> bool {
        matches!(self, Self::EquivocatingLeader(_))
    }

    /// Whether it keeps to the rules: it may miss a window.
    pub(crate) fn is_honest(self) -> bool {
        matches!(self, Self::Honest | Self::BucketDown(_) | Self::Offline(_) | Self::Restart(..))
    }

    /// The window of its conduct.
    fn window(self) -> Option<u64> {
        match self {
            Self::Honest => None,
            Self::SilentLeader(w)
            | Self::EquivocatingLeader(w)
            | Self::WithholdingLeader(w)
            | Self::ForkingLeader(w)
            | Self::FavouringLeader(w)
            | Self::ForgingLeader(w)
            | Self::MuteJudge(w)
            | Self::BucketDown(w)
            | Self::GarbageAnchors(w)
            | Self::Offline(w)
            | Self::Restart(w, _) => Some(w),
        }
    }
}

/// Makes a kind of validator of the window of its conduct.
type Make = fn(u64) -> ValidatorKind;

/// What `--validators` knows beside `honest`: the name before `@W`, and what it makes of the window.
const VALIDATORS: [(&str, Make); 11] = [
    ("silent-leader", ValidatorKind::SilentLeader),
    ("equivocating-leader", ValidatorKind::EquivocatingLeader),
    ("withholding-leader", ValidatorKind::WithholdingLeader),
    ("forking-leader", ValidatorKind::ForkingLeader),
    ("favouring-leader", ValidatorKind::FavouringLeader),
    ("forging-leader", ValidatorKind::ForgingLeader),
    ("mute-judge", ValidatorKind::MuteJudge),
    ("bucket-down", ValidatorKind::BucketDown),
    ("garbage-anchors", ValidatorKind::GarbageAnchors),
    ("offline", ValidatorKind::Offline),
    ("restart", |w| ValidatorKind::Restart(w, None)),
];

/// All that `--validators` knows, in words.
pub(crate) fn known_validators() -> String {
    let with_window = VALIDATORS.iter().map(|(name, _)| {
        let part = if *name == "restart" { "[:PART]" } else { "" };
        format!(", {name}@W{part}")
    });
    std::iter::once("honest".to_owned()).chain(with_window).collect()
}

/// Names that `--peers` knows.
const KINDS: &str = "honest, lazy, idle, random, zero, copycat, late-copycat, mixer, mixer+1, replayer, replayer+1, shuffler, \
    early-reader, twoface, eraser, late[:object], absent:P, malformed, stale:K, signflip, noise:X, concentrate, \
    sybil:N:same|interleave|split, joiner@W, joiner@W:replay, leaver@W, offline@W, restart@W[:PART]; \
    honest:N@SPEED, others NAME*N@SPEED but for those with @W, which are one peer of speed 1";

/// Peers of one entry at most.
const MOST: usize = 4096;

/// The most validators a simulation may have.
const MAX_VALIDATORS: usize = 64;

/// Reads a list separated by commas; a bare number is that many honest peers.
pub(crate) fn peers(text: &str) -> Result<Vec<Entry>, String> {
    let entries: Vec<Entry> = text.split(',').map(|entry| entry.trim().parse()).collect::<Result<_, _>>()?;
    let total: usize = entries.iter().map(|entry| entry.count).sum();
    if total == 0 || total > MOST { Err(format!("1 to {MOST} peers")) } else { Ok(entries) }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("'{text}': {what}; known are {KINDS}");
        if let Ok(count) = text.parse::<usize>() {
            return Ok(Self {
                kind: Kind::Honest,
                count: checked(count).ok_or_else(|| wrong("too many"))?,
                speed: 1.0,
            });
        }
        // These use the @ for a window.
        let window = |text: &str| text.parse().map_err(|_| wrong("expected a window after @"));
        if let Some(rest) = text.strip_prefix("joiner@") {
            let (w, join) = match rest.strip_suffix(":replay") {
                Some(w) => (w, Join::Replay),
                None => (rest, Join::Checkpoint),
            };
            return Ok(Self { kind: Kind::Joiner(window(w)?, join), count: 1, speed: 1.0 });
        }
        if let Some(w) = text.strip_prefix("leaver@") {
            return Ok(Self { kind: Kind::Leaver(window(w)?), count: 1, speed: 1.0 });
        }
        if let Some(w) = text.strip_prefix("offline@") {
            return Ok(Self { kind: Kind::Offline(window(w)?), count: 1, speed: 1.0 });
        }
        if let Some(w) = text.strip_prefix("restart@") {
            let (w, part) = restart(w).map_err(|e| wrong(&e))?;
            return Ok(Self { kind: Kind::Restart(w, part), count: 1, speed: 1.0 });
        }
        let (rest, speed) = match text.split_once('@') {
            Some((rest, speed)) => (rest, speed.parse().map_err(|_| wrong("expected a speed after @"))?),
            None => (text, 1.0),
        };
        if !(0.01..=1000.0).contains(&speed) {
            return Err(wrong("speed is not in 0.01..=1000"));
        }
        let (rest, count) = match rest.split_once('*') {
            Some((rest, count)) => (rest, count.parse().map_err(|_| wrong("expected a number after *"))?),
            None => (rest, 1),
        };
        let mut parts = rest.split(':');
        let name = parts.next().unwrap_or_default();
        let arguments: Vec<&str> = parts.collect();
        let argument = arguments.first().copied();
        let number =
            |what: &str| argument.ok_or_else(|| wrong(what)).and_then(|a| a.parse().map_err(|_| wrong(what)));
        let (kind, factor): (Kind, usize) = match name {
            "honest" => match argument {
                Some(n) => (Kind::Honest, n.parse().map_err(|_| wrong("expected honest:N"))?),
                None => (Kind::Honest, 1),
            },
            "lazy" => (Kind::Lazy, 1),
            "idle" => (Kind::Idle, 1),
            "random" => (Kind::Random, 1),
            "zero" => (Kind::Zero, 1),
            "copycat" => (Kind::Copycat, 1),
            "late-copycat" => (Kind::LateCopycat, 1),
            "mixer" => (Kind::Mixer(false), 1),
            "mixer+1" => (Kind::Mixer(true), 1),
            "replayer" => (Kind::Replayer(false), 1),
            "replayer+1" => (Kind::Replayer(true), 1),
            "shuffler" => (Kind::Shuffler, 1),
            "early-reader" => (Kind::EarlyReader, 1),
            "twoface" => (Kind::TwoFace, 1),
            "eraser" => (Kind::Eraser, 1),
            "late" => match argument {
                None => (Kind::Late(Tardy::Commitment), 1),
                Some("object") => (Kind::Late(Tardy::Object), 1),
                Some(_) => return Err(wrong("expected late or late:object")),
            },
            "malformed" => (Kind::Malformed, 1),
            "signflip" => (Kind::SignFlip, 1),
            "concentrate" => (Kind::Concentrate, 1),
            "absent" => (Kind::Absent(number("expected absent:P")?), 1),
            "noise" => {
                let x: f64 = number("expected noise:X")?;
                #[allow(clippy::cast_possible_truncation)] // a scale
                (Kind::Noise(x as f32), 1)
            }
            "stale" => {
                let k = argument.map_or(Ok(1), str::parse).map_err(|_| wrong("expected stale:K"))?;
                (Kind::Stale(k), 1)
            }
            "sybil" => {
                let n: u32 = argument
                    .ok_or_else(|| wrong("expected sybil:N"))?
                    .parse()
                    .map_err(|_| wrong("expected sybil:N"))?;
                let form = match arguments.get(1).copied().unwrap_or("same") {
                    "same" => SybilForm::Same,
                    "interleave" => SybilForm::Interleave,
                    "split" => SybilForm::Split,
                    _ => return Err(wrong("expected same, interleave or split")),
                };
                (Kind::Sybil(form, n), n as usize)
            }
            _ => return Err(wrong("unknown")),
        };
        let most_arguments = match kind {
            Kind::Sybil(..) => 2,
            Kind::Honest | Kind::Late(_) | Kind::Absent(_) | Kind::Noise(_) | Kind::Stale(_) => 1,
            _ => 0,
        };
        let in_range = match kind {
            Kind::Absent(p) => (0.0..=1.0).contains(&p),
            Kind::Noise(x) => (0.0..=1e6).contains(&x),
            Kind::Stale(k) => (1..=1000).contains(&k),
            _ => true,
        };
        if arguments.len() > most_arguments {
            return Err(wrong("too many arguments"));
        }
        if !in_range {
            return Err(wrong("out of range"));
        }
        let count =
            factor.checked_mul(count).and_then(checked).ok_or_else(|| wrong("not 1 to 4096 peers"))?;
        let speed = if let Kind::Sybil(SybilForm::Split, n) = kind { speed / f64::from(n) } else { speed };
        Ok(Self { kind, count, speed })
    }
}

fn checked(count: usize) -> Option<usize> {
    (1..=MOST).contains(&count).then_some(count)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Honest => f.write_str("honest"),
            Self::Lazy => f.write_str("lazy"),
            Self::Idle => f.write_str("idle"),
            Self::Random => f.write_str("random"),
            Self::Zero => f.write_str("zero"),
            Self::Copycat => f.write_str("copycat"),
            Self::LateCopycat => f.write_str("late-copycat"),
            Self::Mixer(own) => f.write_str(if *own { "mixer+1" } else { "mixer" }),
            Self::Replayer(own) => f.write_str(if *own { "replayer+1" } else { "replayer" }),
            Self::Shuffler => f.write_str("shuffler"),
            Self::EarlyReader => f.write_str("early-reader"),
            Self::TwoFace => f.write_str("twoface"),
            Self::Eraser => f.write_str("eraser"),
            Self::Late(Tardy::Commitment) => f.write_str("late"),
            Self::Late(Tardy::Object) => f.write_str("late:object"),
            Self::Absent(p) => write!(f, "absent:{p}"),
            Self::Malformed => f.write_str("malformed"),
            Self::Stale(k) => write!(f, "stale:{k}"),
            Self::SignFlip => f.write_str("signflip"),
            Self::Noise(x) => write!(f, "noise:{x}"),
            Self::Concentrate => f.write_str("concentrate"),
            Self::Sybil(form, n) => write!(f, "sybil:{n}:{form}"),
            Self::Joiner(w, Join::Checkpoint) => write!(f, "joiner@{w}"),
            Self::Joiner(w, Join::Replay) => write!(f, "joiner@{w}:replay"),
            Self::Leaver(w) => write!(f, "leaver@{w}"),
            Self::Offline(w) => write!(f, "offline@{w}"),
            Self::Restart(w, part) => write!(f, "restart@{w}{}", after(*part)),
        }
    }
}

impl fmt::Display for SybilForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same",
            Self::Interleave => "interleave",
            Self::Split => "split",
        })
    }
}

impl Kind {
    /// Whether it waits in every phase for the others.
    pub(crate) fn waits(&self) -> bool {
        matches!(self, Self::Copycat | Self::LateCopycat | Self::EarlyReader)
    }

    /// Whether some readers see another bucket of it.
    pub(crate) fn has_two_faces(&self) -> bool {
        matches!(self, Self::TwoFace)
    }

    /// Whether it does what it should: it may come late, leave early or miss windows.
    pub(crate) fn is_honest(&self) -> bool {
        matches!(
            self,
            Self::Honest | Self::Joiner(..) | Self::Leaver(_) | Self::Offline(_) | Self::Restart(..)
        )
    }

    /// Whether it is so from the first window to the last.
    pub(crate) fn is_always_honest(&self) -> bool {
        self.is_honest() && !matches!(self, Self::Joiner(..) | Self::Leaver(_))
    }
}

/// Reads `--validators`: a number, or a list of [`known_validators`].
pub(crate) fn validators(text: &str) -> Result<Vec<ValidatorKind>, String> {
    let list = match text.parse::<usize>() {
        // Refused before it is a list: the number may be any.
        Ok(count) => vec![ValidatorKind::Honest; count.min(MAX_VALIDATORS + 1)],
        Err(_) => text.split(',').map(|entry| entry.trim().parse()).collect::<Result<_, String>>()?,
    };
    if (1..=MAX_VALIDATORS).contains(&list.len()) {
        Ok(list)
    } else {
        Err(format!("1 to {MAX_VALIDATORS} validators"))
    }
}

/// Reads what follows `restart@`: a window and, after a colon, a part of its blocks.
fn restart(text: &str) -> Result<(u64, Option<Part>), String> {
    let (w, part) = match text.split_once(':') {
        Some((w, part)) => (w, Some(part.parse()?)),
        None => (text, None),
    };
    Ok((w.parse().map_err(|_| "expected a window after @")?, part))
}

fn after(part: Option<Part>) -> String {
    part.map_or(String::new(), |part| format!(":{part}"))
}

impl FromStr for ValidatorKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "honest" {
            return Ok(Self::Honest);
        }
        if let Some(rest) = text.strip_prefix("restart@") {
            let (w, part) = restart(rest).map_err(|e| format!("'{text}': {e}"))?;
            return Ok(Self::Restart(w, part));
        }
        let known = text
            .split_once('@')
            .and_then(|(name, w)| Some((w, VALIDATORS.iter().find(|(known, _)| *known == name)?.1)));
        match known {
            Some((w, kind)) => {
                w.parse().map(kind).map_err(|_| format!("'{text}': expected a window after @, not '{w}'"))
            }
            None => Err(format!("'{text}': unknown; known are {}", known_validators())),
        }
    }
}

impl fmt::Display for ValidatorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(w) = self.window() else { return f.write_str("honest") };
        let part = if let Self::Restart(_, part) = self { after(*part) } else { String::new() };
        match VALIDATORS
            .iter()
            .find(|(_, kind)| std::mem::discriminant(&kind(w)) == std::mem::discriminant(self))
        {
            Some((name, _)) => write!(f, "{name}@{w}{part}"),
            None => write!(f, "{self:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        let text = "honest:4@2,lazy*2,mixer+1,stale:3,noise:0.5,absent:0.25,sybil:3:interleave,joiner@20,leaver@9,joiner@3:replay,offline@4,restart@5,restart@5:reveal,late,late:object,late-copycat";
        let entries = peers(text).unwrap();
        assert_eq!(entries[0], Entry { kind: Kind::Honest, count: 4, speed: 2.0 });
        assert_eq!((entries[1].count, entries[6].count), (2, 3));
        let names: Vec<String> = entries.iter().map(|e| e.kind.to_string()).collect();
        let known = "honest lazy mixer+1 stale:3 noise:0.5 absent:0.25 sybil:3:interleave joiner@20 leaver@9 joiner@3:replay offline@4 restart@5 restart@5:reveal late late:object late-copycat";
        assert_eq!(names.join(" "), known);
        for name in names {
            assert_eq!(name.parse::<Entry>().unwrap().kind.to_string(), name);
        }
        assert_eq!(peers("3").unwrap()[0].count, 3);
        assert_eq!(peers("sybil:4:split@2").unwrap()[0].speed, 0.5);
        assert_eq!(validators("2").unwrap(), [ValidatorKind::Honest; 2]);
        let all = known_validators().replace("[:PART]", "").replace("@W", "@7");
        let written: Vec<String> = validators(&all).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!((written.len(), written.join(", ")), (12, all));
        let killed = "restart@3:publish".parse::<ValidatorKind>().unwrap();
        assert_eq!(
            (killed, killed.to_string()),
            (ValidatorKind::Restart(3, Some(Part::Publish)), "restart@3:publish".into())
        );
    }

    #[test]
    fn a_machine_that_splits_its_sequences_deals_them_out() {
        let budgets = |text: &str| peers(text).unwrap()[0].budgets(8);
        assert_eq!(budgets("honest:2@0.5"), [4, 4]);
        assert_eq!(budgets("lazy@0.01"), [1]);
        assert_eq!(budgets("sybil:4:same"), [8; 4]);
        assert_eq!(budgets("sybil:5:split"), [1, 2, 1, 2, 2]);
        assert_eq!(budgets("sybil:3:split*2@2"), [5, 5, 6, 5, 5, 6]);
        // One at least, or an identity sends nothing.
        assert_eq!(budgets("sybil:16:split"), [1; 16]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for bad in [
            "",
            "nobody",
            "honest:x",
            "stale:x",
            "stale:0",
            "absent:2",
            "absent",
            "noise",
            "sybil",
            "sybil:2:half",
            "lazy:3",
            "late:3",
            "honest@0",
            "honest@fast",
            "lazy*0",
            "joiner@x",
            "restart@x",
            "restart@3:sleep",
            "honest:5000",
            "0",
        ] {
            let error = peers(bad).unwrap_err();
            assert!(error.contains(bad) || error.contains("1 to"), "{bad}: {error}");
        }
        assert!(
            ["0", "65", "18446744073709551615", "loud", "silent-leader@x"]
                .iter()
                .all(|bad| validators(bad).is_err())
        );
    }
}
