//! Removes from the node exactly what the overlay put there.

use std::{collections::BTreeSet, path::PathBuf};

use weft_netlink::{LinkKind, Netlink, RouteFilter};

use crate::{
    bridge_answers,
    family::Family,
    lease::{LeaseHolder, LeaseManager},
    netconf::NetConf,
    observe, packet_filter,
    subnet_env::SubnetEnv,
};

/// What to remove.
#[derive(Clone, Debug)]
pub struct CleanupConfig {
    /// The configuration the node ran with.
    pub net_conf: NetConf,
    /// Where `subnet.env` is.
    pub subnet_file: PathBuf,
    /// The node whose lease is given back.
    pub node_name: String,
}

/// Something could not be removed; everything else was.
#[derive(Debug, thiserror::Error)]
#[error("not removed: {}", failures.join("; "))]
pub struct CleanupError {
    /// What, and why.
    pub failures: Vec<String>,
}

/// Removes devices (with their addresses, routes, neighbours and forwarding entries), unreachable routes, packet rules,
/// `subnet.env` and, given `leases`, this node's lease, from the network namespace of the calling thread. What is gone already
/// is fine. Kernel parameters stay: others may rely on them by now. Returns what was there.
///
/// Do not hold up the calling thread's other tasks with it: the kernel part blocks, for some milliseconds.
///
/// # Errors
/// [`CleanupError`] names all that is left.
pub async fn cleanup(config: &CleanupConfig, leases: Option<&dyn LeaseManager>) -> Result<Vec<String>, CleanupError> {
    let mut teardown = Teardown::default();
    let mut holder = LeaseHolder::named(config.node_name.as_str());
    holder.subnets = SubnetEnv::read(&config.subnet_file).ok().flatten().and_then(|env| env.subnets());
    match Netlink::open() {
        Ok(netlink) => {
            // Before the devices go, which tell it best.
            teardown.note(recognise(&netlink, &config.net_conf, &mut holder).map(|()| None));
            if let Some(vxlan) = config.net_conf.backend.vxlan() {
                for family in Family::ALL {
                    teardown.note(remove_device(&netlink, &vxlan.device_name(family)));
                }
            }
            if config.net_conf.backend.routes_directly() {
                teardown.note(remove_direct(&netlink, &config.net_conf));
            }
            teardown.note(remove_unreachable(&netlink));
            if let Some(network) = config.net_conf.network(Family::V6) {
                let removed = bridge_answers::remove(&netlink, network.network);
                teardown.note(removed.map(|removed| removed.then(|| "IPv6 answers on flannel's bridge".to_owned())));
            }
        }
        Err(error) => teardown.note::<weft_netlink::Error>(Err(error)),
    }
    match packet_filter::remove() {
        Ok(removed) => teardown.removed.extend(removed),
        Err(error) => teardown.note(Err(error)),
    }
    let had_file = config.subnet_file.exists();
    let file = SubnetEnv::remove(&config.subnet_file);
    teardown.note(file.map(|()| had_file.then(|| config.subnet_file.display().to_string())));
    if let Some(leases) = leases {
        let released = leases.release(&holder).await;
        teardown.note(released.map(|()| Some(format!("lease of {}", config.node_name))));
    }
    teardown.finish()
}

/// Notes by what the node's lease may be recognised.
fn recognise(netlink: &Netlink, net_conf: &NetConf, holder: &mut LeaseHolder) -> weft_netlink::Result<()> {
    holder.addresses = netlink.addresses(None)?.iter().map(|entry| entry.address.ip()).collect();
    holder.addresses.retain(|address| !address.is_loopback());
    for (vxlan, family) in net_conf.backend.vxlan().into_iter().cycle().zip(Family::ALL) {
        holder.macs.extend(netlink.link_by_name(&vxlan.device_name(family))?.and_then(|link| link.mac));
    }
    Ok(())
}

fn remove_device(netlink: &Netlink, name: &str) -> weft_netlink::Result<Option<String>> {
    match netlink.link_by_name(name)? {
        Some(link) if matches!(link.kind, LinkKind::Vxlan(_)) => {
            netlink.delete_link(link.index).map(|()| Some(format!("device {name}")))
        }
        // Not a VXLAN device: not made by us.
        _ => Ok(None),
    }
}

/// Plain routes to peers: all in the pod network that have the form of ours.
fn remove_direct(netlink: &Netlink, net_conf: &NetConf) -> weft_netlink::Result<Option<String>> {
    let mut removed = Vec::new();
    let networks: Vec<_> =
        net_conf.families().filter_map(|family| net_conf.network(family)).map(|network| network.network).collect();
    for route in netlink.routes(&RouteFilter::default())? {
        if networks.iter().any(|network| observe::direct_hop(&route, *network, None).is_some()) {
            netlink.delete_route(&route)?;
            removed.push(format!("route {}", route.destination));
        }
    }
    Ok((!removed.is_empty()).then(|| removed.join(", ")))
}

fn remove_unreachable(netlink: &Netlink) -> weft_netlink::Result<Option<String>> {
    let ours: BTreeSet<_> = netlink
        .routes(&RouteFilter::default())?
        .into_iter()
        .filter(observe::is_our_unreachable)
        .map(|route| route.destination)
        .collect();
    for destination in &ours {
        netlink.delete_route(&observe::unreachable_route(*destination))?;
    }
    let list: Vec<String> = ours.iter().map(|d| format!("unreachable route {d}")).collect();
    Ok((!list.is_empty()).then(|| list.join(", ")))
}

#[derive(Default)]
struct Teardown {
    removed: Vec<String>,
    failures: Vec<String>,
}

impl Teardown {
    fn note<E: std::fmt::Display>(&mut self, result: Result<Option<String>, E>) {
        match result {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    fn finish(self) -> Result<Vec<String>, CleanupError> {
        if self.failures.is_empty() { Ok(self.removed) } else { Err(CleanupError { failures: self.failures }) }
    }
}
