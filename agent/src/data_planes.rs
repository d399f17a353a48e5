//! Which data planes carry the plan, by mode, and how those of the other modes are taken out again.

use std::{path::PathBuf, process::Command};

use anyhow::Context;
use tracing::{info, warn};
use weft_proxy::{
    dataplane::{DataPlane, DataPlaneError},
    ebpf::{self, Ebpf, SocketPlaneConfig},
    iptables::Iptables,
    nftables::{Nftables, PacketScope},
    plan::{LocalTraffic, PacketSettings},
};

use crate::{
    cgroup,
    config::{ProxyConfig, ProxyMode},
};

/// The data planes of this node.
pub(crate) struct Chosen {
    /// In the order they are applied; the last one is that of packets.
    pub(crate) planes: Vec<Box<dyn DataPlane>>,
    /// Makes the one of packets anew, for other local traffic; it goes on from what is in the kernel.
    pub(crate) packets: PacketPlane,
    /// What to do once they carry everything: a former mode's rules must not outlive its agent.
    pub(crate) retire: Box<dyn FnOnce() + Send>,
    /// The cgroup whose processes are clients, for the sockets to close when an endpoint goes.
    pub(crate) cgroup_root: Option<PathBuf>,
}

/// A data plane of packets, for what counts as local traffic.
pub(crate) type PacketPlane = Box<dyn Fn(LocalTraffic) -> Box<dyn DataPlane> + Send>;

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
    let packets = packet_plane(mode, proxy.clone());
    let mut planes: Vec<Box<dyn DataPlane>> = Vec::new();
    if let Some(sockets) = sockets {
        planes.push(Box::new(sockets));
    }
    planes.push(packets(proxy.packets.local_traffic.clone()));
    Chosen { planes, packets, retire: retire(mode, proxy), cgroup_root: cgroup_root(proxy).ok() }
}

fn packet_plane(mode: ProxyMode, proxy: ProxyConfig) -> PacketPlane {
    Box::new(move |local_traffic| {
        let settings = PacketSettings { local_traffic, ..proxy.packets.clone() };
        match mode {
            ProxyMode::Ebpf => {
                Box::new(Nftables::new(PacketScope::External { second_line: proxy.second_line }, settings))
            }
            ProxyMode::Iptables if proxy.take_over_kube_proxy => Box::new(Iptables::new(settings)),
            ProxyMode::Iptables => Box::new(Iptables::new(settings).sparing_kube_proxy()),
            ProxyMode::Best | ProxyMode::Nftables => Box::new(Nftables::new(PacketScope::All, settings)),
        }
    })
}

fn cgroup_root(proxy: &ProxyConfig) -> anyhow::Result<PathBuf> {
    proxy.cgroup_root.clone().map_or_else(cgroup::mounted_root, Ok)
}

fn sockets(proxy: &ProxyConfig) -> anyhow::Result<Ebpf> {
    let (cgroup_root, bpffs) = (cgroup_root(proxy)?, proxy.bpffs.clone());
    let sockets = Ebpf::open(SocketPlaneConfig { cgroup_root, bpffs, sizes: proxy.map_sizes })?;
    Ok(if proxy.packets.localhost_node_ports { sockets } else { sockets.without_localhost_node_ports() })
}

fn remove_nftables(proxy: &ProxyConfig) -> Result<(), DataPlaneError> {
    Nftables::new(PacketScope::All, proxy.packets.clone()).cleanup()
}

/// Removes what agents of other modes left.
fn retire(mode: ProxyMode, proxy: &ProxyConfig) -> Box<dyn FnOnce() + Send> {
    let proxy = proxy.clone();
    Box::new(move || {
        let others = [
            (mode != ProxyMode::Ebpf).then(|| ("ebpf", ebpf::cleanup(&proxy.bpffs))),
            (mode == ProxyMode::Iptables).then(|| ("nftables", remove_nftables(&proxy))),
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
        remove_nftables(proxy).context("nftables"),
        remove_iptables(proxy).context("iptables"),
    ];
    removals.into_iter().filter_map(Result::err).collect()
}
