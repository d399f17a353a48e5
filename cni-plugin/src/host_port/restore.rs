//! Putting back what somebody flushed (`nft flush ruleset`, `iptables -t nat -F`), which only a process that goes on can do.

use std::{collections::HashSet, path::Path};

use weft_netlink::Netlink;

use super::{
    claim::{Claim, Holder},
    iptables,
    mapping::PortMapBackend,
    nftables,
    records::{Record, Records},
};
use crate::{attachment::AttachmentId, error::Error};

/// Why host ports cannot be put back: a file or rules that cannot be read or written. Worth another try.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HostPortsError(String);

impl From<Error> for HostPortsError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// Puts the rules of host ports back that are missing in the calling thread's network namespace, of pods whose interface is there.
/// `networks` is the directory of their networks' reservations. Returns how many ports were missing.
///
/// # Errors
/// See [`HostPortsError`].
pub fn restore_host_ports(networks: &Path) -> Result<usize, HostPortsError> {
    let Some(records) = Records::open_existing(networks)? else { return Ok(0) };
    let recorded = records.all()?;
    if recorded.is_empty() {
        return Ok(0);
    }
    // After a restart of the node there are records of pods that are gone.
    let there = holders_there()?;
    let is_there = |record: &&Record| record.claims.iter().all(|claim| there.contains(&claim.holder));
    let recorded: Vec<&Record> = recorded.iter().filter(is_there).collect();
    let by = |backend| -> Vec<&Claim> {
        recorded.iter().filter(|record| record.backend == backend).flat_map(|record| &record.claims).collect()
    };
    let (by_nftables, by_iptables) = (by(PortMapBackend::Nftables), by(PortMapBackend::Iptables));
    let mut restored = 0;
    if !by_nftables.is_empty() {
        restored += nftables::restore(&by_nftables)?;
    }
    if !by_iptables.is_empty() {
        restored += iptables::restore(networks, &by_iptables)?;
    }
    Ok(restored)
}

/// The attachments whose interfaces say whose they are.
fn holders_there() -> Result<HashSet<Holder>, Error> {
    let holder = |AttachmentId { network, owner }: AttachmentId<'_>| Holder {
        network: network.to_owned(),
        container_id: owner.container_id.to_owned(),
        ifname: owner.ifname.to_owned(),
    };
    let links = Netlink::open()?.links()?;
    Ok(links.iter().filter_map(|link| AttachmentId::of_alias(link.alias.as_deref()?)).map(holder).collect())
}
