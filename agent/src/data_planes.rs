//! Which data planes carry the plan, by mode, and how those of the other modes are taken out again.

use std::{path::PathBuf, process::Command};

use anyhow::Context;
use tracing::{info, warn};
use weft_proxy::{
    dataplane::{DataPlane, DataPlaneError},
    ebpf::{self, Ebpf, SocketPlaneConfig},
    iptables::Iptables,
    nftables::{Nftables, PacketScope},
};

use crate::{
    cgroup,
    config::{ProxyConfig, ProxyMode},
};

/// The data planes of this node.
pub(crate) struct Chosen {
    /// In the order they are applied.
    pub(crate) planes: Vec<Box<dyn DataPlane>>,
    /// What to do once they carry everything: a former mode's rules must not outlive its agent.
    pub(crate) retire: Box<dyn FnOnce() + Send>,
    /// The cgroup whose processes are clients, for the sockets to close when an endpoint goes.
    pub(crate) cgroup_root: Option<PathBuf>,
}

/// Opens the data planes of the configured mode, or of the best one this node can have.
///
/// # Errors
/// What the mode that was asked for lacks.
pub(crate) fn open(proxy: &ProxyConfig) -> anyhow::Result<Chosen> {
    let mode = match proxy.mode {
        ProxyMode::Best => return best(proxy),
        asked_for => asked_for,
    };
    let sockets = if mode == ProxyMode::Ebpf { Some(sockets(proxy)?) } else { None };
    Ok(chosen(mode, sockets, proxy))
}

/// The first mode this node can have; says what it lacks for a better one.
fn best(proxy: &ProxyConfig) -> anyhow::Result<Chosen> {
    let missing = match sockets(proxy) {
        Ok(sockets) => return Ok(chosen(ProxyMode::Ebpf, Some(sockets), proxy)),
        Err(error) => format!("{error:#}"),
    };
    if is_there("nft") {
        warn!(missing, fallback = "nftables", "this node cannot have the ebpf mode");
        return Ok(chosen(ProxyMode::Nftables, None, proxy));
    }
    warn!(missing = format!("{missing}; nft"), fallback = "iptables", "this node can only have the iptables mode");
    Ok(chosen(ProxyMode::Iptables, None, proxy))
}

fn chosen(mode: ProxyMode, sockets: Option<Ebpf>, proxy: &ProxyConfig) -> Chosen {
    let planes: Vec<Box<dyn DataPlane>> = match (mode, sockets) {
        (_, Some(sockets)) => {
            vec![Box::new(sockets), Box::new(packets(proxy, PacketScope::External { second_line: false }))]
        }
        (ProxyMode::Iptables, None) => vec![Box::new(Iptables::new(proxy.packets.clone()))],
        (_, None) => vec![Box::new(packets(proxy, PacketScope::All))],
    };
    Chosen { planes, retire: retire(mode, proxy), cgroup_root: cgroup_root(proxy).ok() }
}

fn cgroup_root(proxy: &ProxyConfig) -> anyhow::Result<PathBuf> {
    proxy.cgroup_root.clone().map_or_else(cgroup::mounted_root, Ok)
}

fn sockets(proxy: &ProxyConfig) -> anyhow::Result<Ebpf> {
    let (cgroup_root, bpffs) = (cgroup_root(proxy)?, proxy.bpffs.clone());
    Ok(Ebpf::open(SocketPlaneConfig { cgroup_root, bpffs, sizes: proxy.map_sizes })?)
}

fn packets(proxy: &ProxyConfig, scope: PacketScope) -> Nftables {
    Nftables::new(scope, proxy.packets.clone())
}

/// Removes what agents of other modes left.
fn retire(mode: ProxyMode, proxy: &ProxyConfig) -> Box<dyn FnOnce() + Send> {
    let proxy = proxy.clone();
    Box::new(move || {
        let others = [
            (mode != ProxyMode::Ebpf).then(|| ("ebpf", ebpf::cleanup(&proxy.bpffs))),
            (mode == ProxyMode::Iptables).then(|| ("nftables", packets(&proxy, PacketScope::All).cleanup())),
            (mode != ProxyMode::Iptables).then(|| ("iptables", remove_iptables(&proxy))),
        ];
        for (other, result) in others.into_iter().flatten() {
            match result {
                Ok(()) => info!(mode = other, "nothing of this mode is left"),
                Err(error) => warn!(mode = other, %error, "cannot remove what this mode left"),
            }
        }
    })
}

/// A node without iptables has no rules in it.
fn remove_iptables(proxy: &ProxyConfig) -> Result<(), DataPlaneError> {
    if is_there("iptables") { Iptables::new(proxy.packets.clone()).cleanup() } else { Ok(()) }
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Removes the data planes of every mode (`weft cleanup`); returns what went wrong.
pub(crate) fn remove_all(proxy: &ProxyConfig) -> Vec<anyhow::Error> {
    let removals = [
        ebpf::cleanup(&proxy.bpffs).context("ebpf"),
        packets(proxy, PacketScope::All).cleanup().context("nftables"),
        remove_iptables(proxy).context("iptables"),
    ];
    removals.into_iter().filter_map(Result::err).collect()
}
