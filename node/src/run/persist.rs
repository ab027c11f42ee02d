//! A node's memory on its disk, so that a restart changes nothing: where it stands, a miner's momentum, what a validator
//! remembers of its peers.
//!
//! `node.state` is magic `GNTN`, version u16, postcard, BLAKE3 of all before; it names the large parts, which lie beside it
//! under the hashes of their contents. `node.lock` is held by the process that works with them. Parts are written first and removed last, so a kill at any moment leaves the state
//! before or the state after.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use gauntlet::record::chain::RecordChain;
use gauntlet::{Digest, Hotkey};
use gauntlet_demo::{Pending, Submission};
use serde::{Deserialize, Serialize};

use super::World;
use super::compute::upload;
use super::follower::{Follower, Place};
use super::identity::Identity;
use super::lease::Instance;
use super::peer::Peer;
use super::theta::{Shared, Theta};
use super::validator::{Memory, Validator};
use super::validator_node::Progress;
use crate::files;
use crate::storage::ss58;

const MAGIC: [u8; 4] = *b"GNTN";
const VERSION: u16 = 2;
const STATE: &str = "node.state";
const LOCK: &str = "node.lock";
/// Kinds of parts: how their names end.
const VALUES: &str = "f32";
const OBJECT: &str = "object";

/// The folder of one node, which no other process works in as long as this lives.
pub(crate) struct Disk {
    folder: PathBuf,
    _lock: File,
    /// The part that each θ lies in, by θ hash: it is not hashed again with every save.
    thetas: RefCell<BTreeMap<Digest, Digest>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    run: Digest,
    hotkey: Hotkey,
    place: SavedPlace,
    anchor: SavedPlace,
    followed: BTreeMap<u64, Digest>,
    role: Role,
}

#[derive(Serialize, Deserialize)]
struct SavedPlace {
    records: RecordChain,
    /// θ hash, which is not the hash of the part.
    theta: Digest,
    steps: u64,
    part: Digest,
}

#[derive(Serialize, Deserialize)]
enum Role {
    Miner {
        momentum: Digest,
        submissions: u64,
        waiting: Option<Waiting>,
        unsettled: Option<u64>,
        sealed: Option<Sealed>,
    },
    Validator(Box<Memory>, Progress),
}

/// A submission's payload and the scale of each tensor: what leaves the momentum once a record lists it.
type Waiting = (Vec<u8>, Vec<f64>);

/// A window, and the object that a miner has made for it: a restart must not make another.
pub(crate) type Sealed = (u64, Vec<u8>);

/// A node's state in short.
pub(crate) struct Summary {
    pub(crate) run: Digest,
    pub(crate) hotkey: Hotkey,
    pub(crate) role: &'static str,
    /// The window whose record comes next.
    pub(crate) window: u64,
    pub(crate) theta: Digest,
    pub(crate) steps: u64,
}

/// Reads what `node.state` holds; `None` for bytes of another kind, version, or damaged ones.
pub(crate) fn read(bytes: &[u8]) -> Option<Summary> {
    let body = opened(bytes)?.strip_prefix(&VERSION.to_le_bytes())?;
    let Saved { run, hotkey, place, role, .. } = postcard::from_bytes(body).ok()?;
    let role = match role {
        Role::Miner { .. } => "miner",
        Role::Validator(..) => "validator",
    };
    Some(Summary {
        run,
        hotkey,
        role,
        window: place.records.next_window(),
        theta: place.theta,
        steps: place.steps,
    })
}

/// Version and body of a state whose magic and hash are right.
fn opened(bytes: &[u8]) -> Option<&[u8]> {
    let (content, hash) = bytes.split_last_chunk::<32>()?;
    content.strip_prefix(&MAGIC).filter(|_| Digest::of(content).0 == *hash)
}

impl Disk {
    /// The folder of `hotkey` under `root`; made where it is not there. Errors: another process works in it.
    pub(crate) fn new(root: &Path, hotkey: &Hotkey) -> Result<Self> {
        let folder = root.join(ss58::encode(hotkey));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join(LOCK);
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = open.with_context(|| format!("cannot create {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder, _lock: lock, thetas: RefCell::default() }),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{}: another process works in it; stop that one, or use another folder",
                    folder.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Tells this node from another with the same hotkey, and is the same after a restart: the machine and the folder.
    pub(super) fn instance(&self) -> Result<Instance> {
        let cannot = || format!("cannot read {}", self.folder.display());
        let folder = std::fs::canonicalize(&self.folder).with_context(cannot)?;
        let mut hasher = blake3::Hasher::new_derive_key("gauntlet v1 instance of a node");
        // Where a machine has neither, the folder alone must do.
        for machine in ["/etc/machine-id", "/proc/sys/kernel/hostname"] {
            hasher.update(&std::fs::read(machine).unwrap_or_default());
        }
        hasher.update(folder.as_os_str().as_encoded_bytes());
        let mut instance = Instance::default();
        hasher.finalize_xof().fill(&mut instance);
        Ok(instance)
    }

    /// Keeps a miner, and what it made last: before it commits to that, and when it has moved on.
    pub(crate) fn save_miner(&self, run: Digest, peer: &Peer, sealed: Option<Sealed>) -> Result<()> {
        let (momentum, unsettled) = peer.memory();
        let waiting = momentum.pending()?.map(|waiting| (waiting.sent.encode(), waiting.scales.clone()));
        let (submissions, momentum) = (momentum.submissions(), self.put(&momentum.coefficients()?)?);
        self.save(run, &peer.follower, Role::Miner { momentum, submissions, waiting, unsettled, sealed })
    }

    /// Keeps a validator: whenever it has done what a restart must not do again, and before it shows a record.
    pub(super) fn save_validator(
        &self,
        run: Digest,
        validator: &Validator,
        progress: &Progress,
    ) -> Result<()> {
        validator.objects().try_for_each(|object| self.put_part(OBJECT, object).map(|_| ()))?;
        let memory = Box::new(validator.memory()?);
        self.save(run, &validator.follower, Role::Validator(memory, progress.clone()))
    }

    /// A miner as it was saved. Errors: nothing there, damage, another run, hotkey or role.
    pub(crate) fn miner(
        &self,
        world: &World<'_>,
        identity: Identity,
        shared: Shared,
    ) -> Result<(Peer, Option<Sealed>)> {
        let Saved { place, anchor, followed, role, .. } = self.read(world.run.id, identity.hotkey())?;
        let Role::Miner { momentum, submissions, waiting, unsettled, sealed } = role else {
            bail!("{}: is of a validator, not of a miner; use another folder", self.folder.display());
        };
        let follower = self.follower(world, place, anchor, followed, identity.hotkey(), shared)?;
        let mut peer = Peer::new(world, identity, follower)?;
        let waiting = waiting
            .map(|(payload, scales)| -> Result<_> {
                Ok(Pending { sent: Submission::decode(&world.run.format, &payload)?, scales })
            })
            .transpose()
            .with_context(|| format!("{}: what waits for its record", self.folder.display()))?;
        peer.remember(&self.get(momentum)?, submissions, waiting, unsettled)?;
        Ok((peer, sealed))
    }

    /// A validator as it was saved. Errors: as [`Self::miner`].
    pub(super) fn validator(
        &self,
        world: &World<'_>,
        identity: Identity,
        shared: Shared,
    ) -> Result<(Validator, Progress)> {
        let Saved { place, anchor, followed, role, .. } = self.read(world.run.id, identity.hotkey())?;
        let Role::Validator(memory, progress) = role else {
            bail!("{}: is of a miner, not of a validator; use another folder", self.folder.display());
        };
        let follower = self.follower(world, place, anchor, followed, identity.hotkey(), shared)?;
        let mut validator = Validator::new(identity, follower);
        let object = |(hotkey, digest): (&Hotkey, &Digest)| -> Result<_> {
            Ok((*hotkey, self.part(OBJECT, *digest)?))
        };
        let objects = memory.objects.iter().map(object).collect::<Result<_>>()?;
        let remembered = validator.remember(world, *memory, objects);
        remembered.with_context(|| format!("{}", self.folder.display()))?;
        Ok((validator, progress))
    }

    fn save(&self, run: Digest, follower: &Follower, role: Role) -> Result<()> {
        let (place, anchor) = follower.places();
        let saved = Saved {
            run,
            hotkey: follower.hotkey(),
            place: self.place(place)?,
            anchor: self.place(anchor)?,
            followed: follower.followed().clone(),
            role,
        };
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        bytes.extend(postcard::to_allocvec(&saved).context("a node's state has no stored form")?);
        let hash = Digest::of(&bytes);
        bytes.extend(hash.0);
        self.write(STATE, &bytes)?;
        let mut kept = BTreeSet::from([saved.place.part, saved.anchor.part].map(|part| name(VALUES, &part)));
        match saved.role {
            Role::Miner { momentum, .. } => kept.extend([name(VALUES, &momentum)]),
            Role::Validator(memory, _) => kept.extend(memory.objects.values().map(|o| name(OBJECT, o))),
        }
        self.thetas.borrow_mut().retain(|_, part| kept.contains(&name(VALUES, part)));
        self.sweep(&kept)
    }

    fn read(&self, run: Digest, hotkey: Hotkey) -> Result<Saved> {
        let path = self.folder.join(STATE);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let damaged = || format!("{}: is damaged; remove the folder and join the run again", path.display());
        let (version, body) =
            opened(&bytes).and_then(<[u8]>::split_first_chunk::<2>).with_context(damaged)?;
        let version = u16::from_le_bytes(*version);
        ensure!(
            version == VERSION,
            "{}: format {version}, this program knows {VERSION}; use the program that wrote it",
            path.display()
        );
        let saved: Saved = postcard::from_bytes(body).with_context(damaged)?;
        ensure!(
            saved.run == run,
            "{}: is of run {}, not of {run}; use another folder",
            path.display(),
            saved.run
        );
        ensure!(
            saved.hotkey == hotkey,
            "{}: is of {}, not of {}; use another folder",
            path.display(),
            ss58::encode(&saved.hotkey),
            ss58::encode(&hotkey)
        );
        Ok(saved)
    }

    fn place(&self, place: &Place) -> Result<SavedPlace> {
        let Place { theta, records } = place;
        let known = self.thetas.borrow().get(&theta.hash).copied();
        let part = match known {
            Some(part) => part,
            None => self.put(&theta.values)?,
        };
        self.thetas.borrow_mut().insert(theta.hash, part);
        Ok(SavedPlace { records: records.clone(), theta: theta.hash, steps: theta.steps, part })
    }

    fn follower(
        &self,
        world: &World<'_>,
        place: SavedPlace,
        anchor: SavedPlace,
        followed: BTreeMap<u64, Digest>,
        hotkey: Hotkey,
        shared: Shared,
    ) -> Result<Follower> {
        let read = |saved: SavedPlace| -> Result<Place> {
            let values = self.get(saved.part)?;
            ensure!(
                values.len() == world.run.layout.total(),
                "{}: θ has {} values, the model {}; remove the folder and join the run again",
                self.folder.display(),
                values.len(),
                world.run.layout.total()
            );
            let theta = Theta::new(world.run, upload(world.compute.cpu(), &values)?, saved.steps);
            ensure!(theta.hash == saved.theta, "{}: θ is not the one saved", self.folder.display());
            Ok(Place { theta: Arc::new(theta), records: saved.records })
        };
        Follower::restored(world, hotkey, shared, read(place)?, read(anchor)?, followed)
    }

    /// Keeps numbers under the hash of their bytes.
    fn put(&self, values: &[f32]) -> Result<Digest> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.put_part(VALUES, &bytes)
    }

    fn get(&self, digest: Digest) -> Result<Vec<f32>> {
        let bytes = self.part(VALUES, digest)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect())
    }

    /// Keeps bytes under their hash.
    fn put_part(&self, kind: &str, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let name = name(kind, &digest);
        if !self.folder.join(&name).exists() {
            self.write(&name, bytes)?;
        }
        Ok(digest)
    }

    fn part(&self, kind: &str, digest: Digest) -> Result<Vec<u8>> {
        let path = self.folder.join(name(kind, &digest));
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            Digest::of(&bytes) == digest,
            "{}: is damaged; remove the folder and join the run again",
            path.display()
        );
        Ok(bytes)
    }

    /// Removes parts that no state names any more.
    fn sweep(&self, kept: &BTreeSet<String>) -> Result<()> {
        let cannot = || format!("cannot tidy {}", self.folder.display());
        for entry in std::fs::read_dir(&self.folder).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            // Only what this program names so: parts, and temporary files.
            let name = entry.file_name();
            let ours = |name: &&str| {
                let kind = name.rsplit('.').next();
                [VALUES, OBJECT, "tmp"].into_iter().any(|ours| kind == Some(ours))
            };
            if name.to_str().filter(ours).is_some_and(|name| !kept.contains(name)) {
                std::fs::remove_file(entry.path()).with_context(cannot)?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        files::write(&self.folder.join(name), bytes)
    }
}

fn name(kind: &str, digest: &Digest) -> String {
    format!("{digest}.{kind}")
}
