//! hostPort: ports of the node that lead to a pod (section 8), in place of the reference plugin `portmap`.
//!
//! What is claimed is written in the kernel's rules, with whose it is: so DEL and GC need no files, and whatever a killed plugin
//! left is found. It is recorded in files too ([`records`]), for the agent to put back what somebody flushed.

mod claim;
mod iptables;
mod mapping;
mod nftables;
mod records;
mod restore;
mod stale_flows;
mod table;

use std::path::Path;

use weft_netlink::sysctl;

use crate::{
    attachment::{AttachmentId, ValidAttachments},
    config::Config,
    error::{Code, Error},
    extras::{Attached, Extra},
    host_port::{
        claim::{Claim, Holder},
        records::{Record, Records},
    },
    result::{AddResult, Reported},
    teardown::Teardown,
};

pub(crate) use mapping::{Masquerade, PortMapBackend, PortMapSettings};
pub use restore::{HostPortsError, restore_host_ports};

/// The nftables table with the host ports of all pods.
pub const HOST_PORTS_TABLE: &str = table::TABLE;

/// The extra.
pub(crate) struct HostPort;

/// Where the rules of a configuration are to be: as it says, else nftables, else iptables. DEL and GC look in all places, for the
/// configuration may have changed since ADD.
fn backend(config: &Config) -> Result<PortMapBackend, Error> {
    match config.port_map.backend {
        Some(backend) => Ok(backend),
        None if nftables::is_supported()? => Ok(PortMapBackend::Nftables),
        None => Ok(PortMapBackend::Iptables),
    }
}

/// All host ports of this node, of networks with their files in `data_dir`.
pub(crate) fn all_claims(data_dir: &Path) -> Result<Vec<Claim>, Error> {
    let mut claims = nftables::claims()?.unwrap_or_default();
    claims.extend(iptables::claims(data_dir)?);
    Ok(claims)
}

impl Extra for HostPort {
    fn add(&self, attached: &Attached<'_>, _: &mut AddResult) -> Result<(), Error> {
        let claims = claims(attached)?;
        if claims.is_empty() {
            return Ok(());
        }
        if claims.iter().any(Claim::serves_loopback) {
            sysctl::set(&route_localnet(attached), "1")?;
        }
        let (config, backend) = (attached.config, backend(attached.config)?);
        let records = Records::open(&config.data_dir)?;
        records.write(&Record { backend, claims: claims.clone() })?;
        match backend {
            PortMapBackend::Nftables => nftables::add(&claims)?,
            PortMapBackend::Iptables => iptables::add(config, &claims)?,
        }
        drop(records);
        // Rules first: what comes in between is translated already, and not tracked without a translation again.
        stale_flows::forget_others(attached.host, &claims);
        Ok(())
    }

    fn del(&self, id: AttachmentId<'_>, config: &Config) -> Result<(), Error> {
        remove(config, Records::open_if_of(&config.data_dir, id), &|holder: &Holder| holder.is(id))
    }

    fn check(&self, attached: &Attached<'_>, _: &Reported) -> Result<(), Error> {
        let claims = claims(attached)?;
        if claims.is_empty() {
            return Ok(());
        }
        if claims.iter().any(Claim::serves_loopback) && sysctl::get(&route_localnet(attached))? != "1" {
            let parameter = route_localnet(attached).replace('/', ".");
            return Err(Error::new(
                Code::NotAsMade,
                format!("{parameter} is off: host ports cannot be had by 127.0.0.1"),
            ));
        }
        match backend(attached.config)? {
            PortMapBackend::Nftables => nftables::check(&claims),
            PortMapBackend::Iptables => iptables::check(attached.config, &claims),
        }
    }

    fn gc(&self, config: &Config, valid: &ValidAttachments) -> Result<(), Error> {
        let is_stale = |holder: &Holder| holder.network == config.name && !valid.contains(holder.owner());
        remove(config, Records::open_existing(&config.data_dir), &is_stale)
    }

    fn status(&self, config: &Config) -> Result<(), Error> {
        if !config.port_map.may_be_asked_for {
            return Ok(());
        }
        let usable = match backend(config) {
            Ok(PortMapBackend::Nftables) => nftables::is_supported().map(drop),
            Ok(PortMapBackend::Iptables) => iptables::status(),
            Err(error) => Err(error),
        };
        usable.map_err(|error| Error {
            code: Code::NotAvailable,
            message: format!("host ports cannot be mapped: {}", error.message),
            ..error
        })
    }
}

/// Removes the claims of some holders, wherever they are, and then what is written of them. Goes on after a failure.
fn remove(
    config: &Config,
    records: Result<Option<Records>, Error>,
    whose: &dyn Fn(&Holder) -> bool,
) -> Result<(), Error> {
    let mut teardown = Teardown::default();
    for removed in [nftables::remove(whose), iptables::remove(config, whose)] {
        teardown.step(removed.map(|claims| stale_flows::forget(&claims)));
    }
    teardown.step(records.and_then(|records| records.map_or(Ok(()), |records| records.remove(whose))));
    teardown.finish()
}

/// What the attachment is to have: each mapping, in each family the pod and the mapping have.
fn claims(attached: &Attached<'_>) -> Result<Vec<Claim>, Error> {
    let settings = &attached.config.port_map;
    let mappings = settings.mappings()?;
    if mappings.is_empty() {
        return Ok(Vec::new());
    }
    let holder = Holder::of(attached.id)?;
    let first = |v4: bool| attached.leases.iter().map(|lease| lease.address.ip()).find(|ip| ip.is_ipv4() == v4);
    let mut claims = Vec::new();
    for pod in [first(true), first(false)].into_iter().flatten() {
        for mapping in mappings.iter().filter(|mapping| mapping.has_family_of(pod)) {
            claims.push(Claim::new(mapping, pod, &holder, settings.masquerade));
        }
    }
    Ok(claims)
}

/// Without it, a packet from 127.0.0.1 does not leave the node, and its answer is not taken. For this interface only: the
/// rules keep pods from what else listens on loopback addresses.
fn route_localnet(attached: &Attached<'_>) -> String {
    format!("net/ipv4/conf/{}/route_localnet", attached.host_end.name)
}
