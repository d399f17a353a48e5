//! What happens to the agent and its rules meanwhile.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use weft_tests::{eventually, unix_us};

use super::{Course, Mode, PATIENCE};
use crate::{
    agent::{MARKER_FILE, Watched, marker},
    history::Damage,
    kernel,
};

impl Course<'_> {
    /// The agent ends, or somebody removes what it wrote.
    pub(super) fn trouble(&mut self) -> Result<()> {
        match self.rng.u32(..4) {
            0 => self.restart(false),
            1 | 2 => self.restart(true),
            _ => self.damage(),
        }
    }

    /// Half of a batch is written while no agent runs.
    fn restart(&mut self, kill: bool) -> Result<()> {
        let agent = self.stage.cluster.node(1).agent();
        if kill {
            // In the middle of its work.
            let pause = Duration::from_millis(self.rng.u64(..30));
            self.stage.cluster.manifests().apply(MARKER_FILE, &marker(self.version + 1))?;
            thread::sleep(pause);
            agent.kill()?;
            self.report.kills += 1;
        } else {
            agent.stop()?;
            self.report.restarts += 1;
        }
        self.stage.cluster.node(1).agent().start()
    }

    /// Removes the rules of the mode behind the agent's back, and waits until they are there again.
    fn damage(&mut self) -> Result<()> {
        let node = self.stage.cluster.node(1);
        // It may have been started just now.
        eventually(PATIENCE, || Watched::new(node).has_applied(self.version))?;
        let before = Watched::new(node).proxy()?.repairs;
        let kind = if self.mode == Mode::Ebpf { Damage::FromOutside } else { Damage::AllPaths };
        self.court.history().excuse(kind, unix_us());
        let command = match self.mode {
            Mode::Ebpf | Mode::Nftables => "nft flush ruleset",
            Mode::Iptables => kernel::FLUSH_IPTABLES,
        };
        node.run("sh", &["-ec", command])?;
        let repaired = || {
            let proxy = Watched::new(node).proxy()?;
            anyhow::ensure!(proxy.repairs > before && proxy.synced, "not repaired: {}", proxy.error);
            // Tables are flushed one by one: the agent may have repaired the first before the last was flushed.
            if self.mode == Mode::Iptables { kernel::is_back(node) } else { Ok(()) }
        };
        let (_, took) = eventually(PATIENCE, repaired).with_context(|| format!("after {command}"))?;
        self.court.history().end_excuses(unix_us());
        self.report.damages += 1;
        self.report.slowest_repair_ms = self.report.slowest_repair_ms.max(took.as_millis() as u64);
        Ok(())
    }
}
