//! A hotkey's lease on chain: two nodes of one hotkey would sign two objects, or two records, for one window.

use anyhow::{Context, Result};
use gauntlet::Hotkey;

use super::World;
use super::persist::Disk;

/// Tells nodes of one hotkey apart.
pub(super) type Instance = [u8; 16];

/// Windows a lease lasts; it is renewed every window.
const WINDOWS: u64 = 2;

/// A node's hold on its hotkey.
pub(super) struct Lease {
    hotkey: Hotkey,
    instance: Instance,
    /// Block of the newest renewal.
    renewed: u64,
}

impl Lease {
    /// Takes the lease. A node with a disk has its own again after a restart; without one it waits until the old one has
    /// run out. Errors: another node holds it.
    pub(super) fn take(world: &mut World<'_>, hotkey: Hotkey, disk: Option<&Disk>) -> Result<Self> {
        let instance = match disk {
            Some(disk) => disk.instance()?,
            None => {
                let mut fresh = Instance::default();
                getrandom::fill(&mut fresh).context("no randomness from the system")?;
                fresh
            }
        };
        let mut lease = Self { hotkey, instance, renewed: world.chain.head()?.number };
        lease.claim(world)?;
        Ok(lease)
    }

    /// Renews it, once a window. Errors: it ran out, and another node took it.
    pub(super) fn renew(&mut self, world: &mut World<'_>, block: u64) -> Result<()> {
        if block.saturating_sub(self.renewed) < world.run.manifest.window.blocks {
            return Ok(());
        }
        self.renewed = block;
        self.claim(world)
    }

    fn claim(&mut self, world: &mut World<'_>) -> Result<()> {
        let length = world.run.manifest.window.blocks.saturating_mul(WINDOWS);
        Ok(world.chain.claim(self.hotkey, self.instance, self.renewed.saturating_add(length))?)
    }
}
