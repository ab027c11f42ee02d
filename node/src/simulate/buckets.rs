//! Buckets of a simulation: one a node, in memory or in folders, and a second one for those who show two faces.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use gauntlet::Hotkey;

use crate::run::Buckets;
use crate::storage::{Patience, Storage, StoreOptions, Trouble, ss58};

/// All buckets.
pub(crate) struct SimBuckets {
    /// Folder of the buckets; none keeps them in memory.
    root: Option<PathBuf>,
    own: BTreeMap<Hotkey, Storage>,
    second: BTreeMap<Hotkey, Storage>,
    /// Readers who see second faces: every other node.
    misled: BTreeSet<Hotkey>,
    /// Readers that reach nobody at the moment.
    offline: RefCell<BTreeSet<Hotkey>>,
    /// Owners whose judgements nobody else can read.
    mute: RefCell<BTreeSet<Hotkey>>,
    /// Owners whose buckets answer nobody, not even them.
    down: RefCell<BTreeSet<Hotkey>>,
    /// Chain time in milliseconds: what is put is stamped with it.
    now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl SimBuckets {
    pub(crate) fn new(root: Option<PathBuf>, now_ms: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        let (own, second) = (BTreeMap::new(), BTreeMap::new());
        let (offline, mute, down) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { root, own, second, misled: BTreeSet::new(), offline, mute, down, now_ms }
    }

    /// Gives a node its bucket, and an address. The address goes on chain and so into block hashes: it must not depend on
    /// where this run keeps its files.
    pub(crate) fn add(&mut self, hotkey: Hotkey, two_faces: bool) -> Result<String> {
        let url = |name: String| match &self.root {
            Some(root) => root.join(name).display().to_string(),
            None => "memory:".to_owned(),
        };
        let name = ss58::encode(&hotkey);
        let open = |name: String| -> Result<Storage> {
            let now_ms = Arc::clone(&self.now_ms);
            Ok(Storage::open(&url(name), &StoreOptions::default())?.with_clock(move || now_ms()))
        };
        let bucket = open(name.clone())?;
        // What it does not say otherwise there is what it says to everybody.
        let second = two_faces.then(|| open(format!("{name}.second"))).transpose()?;
        let second = second.map(|second| second.in_front_of(&bucket));
        if self.own.len() % 2 == 1 {
            self.misled.insert(hotkey);
        }
        self.own.insert(hotkey, bucket);
        self.second.extend(second.map(|second| (hotkey, second)));
        Ok(format!("simulation:{name}"))
    }

    /// Cuts a reader off from everybody else, or lets it back.
    pub(crate) fn set_offline(&self, hotkey: Hotkey, offline: bool) {
        let mut all = self.offline.borrow_mut();
        if offline {
            all.insert(hotkey)
        } else {
            all.remove(&hotkey)
        };
    }

    /// The bucket of `owner` fails for everybody else who asks for its judgements, from now on.
    pub(crate) fn mute(&self, owner: Hotkey) {
        self.mute.borrow_mut().insert(owner);
    }

    /// The bucket of `owner` fails for everybody from now on.
    pub(crate) fn take_down(&self, owner: Hotkey) {
        self.down.borrow_mut().insert(owner);
    }
}

impl Buckets for SimBuckets {
    fn of(&self, reader: &Hotkey, owner: &Hotkey) -> Option<Storage> {
        if reader != owner && self.offline.borrow().contains(reader) {
            let bucket = self.own.get(owner)?.with_patience(Patience::none());
            return Some(bucket.with_trouble(|_| Some(Trouble::Drop)));
        }
        if self.down.borrow().contains(owner) {
            let bucket = self.own.get(owner)?.with_patience(Patience::none());
            return Some(bucket.with_trouble(|_| Some(Trouble::Status(503))));
        }
        if reader != owner && self.mute.borrow().contains(owner) {
            let bucket = self.own.get(owner)?.with_patience(Patience::none());
            let judgement = |key: &str| key.contains("/judge/");
            return Some(
                bucket.with_trouble(move |asked| judgement(asked.key).then_some(Trouble::Status(503))),
            );
        }
        match self.second.get(owner) {
            Some(second) if reader != owner && self.misled.contains(reader) => Some(second.clone()),
            _ => self.own.get(owner).cloned(),
        }
    }

    fn second(&self, owner: &Hotkey) -> Option<Storage> {
        self.second.get(owner).cloned()
    }
}
