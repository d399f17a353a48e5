//! How a node gets its lease: which MACs it publishes, which subnets it prefers.

use std::{collections::BTreeMap, fs::File, io::Read, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};
use weft_netlink::{LinkKind, Netlink};

use crate::{
    family::Family,
    interface::Underlay,
    lease::{Lease, LeaseAttributes, LeaseError, LeaseManager, LeaseRequest, LeaseSnapshot, Mac, Subnets, VtepData},
    netconf::Vxlan,
    reconcile::Settings,
    status::OverlayStatus,
    subnet_env::SubnetEnv,
};

const RANDOM: &str = "/dev/urandom";

/// How soon joining is tried again.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_LONGEST: Duration = Duration::from_secs(10);

/// What joining needs.
pub(crate) struct Joiner<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) netlink: &'a Netlink,
    pub(crate) underlay: &'a BTreeMap<Family, Underlay>,
    pub(crate) leases: &'a Arc<dyn LeaseManager>,
}

/// A node with a lease and the first full view of all others.
pub(crate) struct Joined {
    pub(crate) lease: Lease,
    /// What it was asked for with.
    pub(crate) requested: LeaseAttributes,
    pub(crate) snapshots: watch::Receiver<Option<Arc<LeaseSnapshot>>>,
    pub(crate) snapshot: Arc<LeaseSnapshot>,
}

/// The node has no lease yet. All of it may pass; the caller tries again.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Netlink(#[from] weft_netlink::Error),
    #[error("read {RANDOM} for a MAC address: {0}")]
    Random(#[source] std::io::Error),
    #[error("the lease manager stopped before its first full view")]
    NoView,
}

impl Joiner<'_> {
    /// Gets a lease, however long that takes; `status` says meanwhile what is missing.
    pub(crate) async fn join(&self, status: &watch::Sender<OverlayStatus>) -> Joined {
        let mut delay = AGAIN_FIRST;
        loop {
            match self.try_join().await {
                Ok(joined) => return joined,
                Err(error) => {
                    let error = error.to_string();
                    warn!(error, "no lease yet");
                    status.send_modify(|status| {
                        status.backend = self.settings.net_conf.backend.kind().to_owned();
                        status.subnet_manager = self.leases.describe();
                        status.error = Some(error);
                    });
                }
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(AGAIN_LONGEST);
        }
    }

    async fn try_join(&self) -> Result<Joined, JoinError> {
        let mut attributes = LeaseAttributes {
            public_ip: None,
            public_ipv6: None,
            backend_type: self.settings.net_conf.backend.kind().into(),
            backend_data: None,
            backend_v6_data: None,
        };
        let preferred = self.preferred();
        // Addresses alone are enough to recognise the node; the lease then tells the MACs that peers know.
        let request = lease_request(self.settings, self.underlay, attributes.clone(), preferred);
        let own = self.leases.own(&request).await?;
        let vxlan = self.settings.net_conf.backend.vxlan();
        for (family, vxlan) in self.settings.net_conf.families().zip(vxlan.into_iter().cycle()) {
            let vtep = VtepData { vni: vxlan.vni, mac: self.mac(vxlan, family, own.as_ref())? };
            match family {
                Family::V4 => attributes.backend_data = Some(vtep),
                Family::V6 => attributes.backend_v6_data = Some(vtep),
            }
        }
        let request = lease_request(self.settings, self.underlay, attributes, preferred);
        let lease = self.leases.acquire(&request).await?;
        info!(subnets = %lease.subnets, manager = self.leases.describe(), "has a lease");
        let mut snapshots = self.leases.watch().await?;
        let snapshot = match snapshots.wait_for(Option::is_some).await {
            Ok(snapshot) => snapshot.clone(),
            Err(_) => None,
        };
        let snapshot = snapshot.ok_or(JoinError::NoView)?;
        Ok(Joined { lease, requested: request.attributes, snapshots, snapshot })
    }

    /// The MAC of the device that exists (a running flannel's, perhaps), or the one peers know from the lease, or a new one.
    fn mac(&self, vxlan: &Vxlan, family: Family, own: Option<&Lease>) -> Result<Mac, JoinError> {
        let name = vxlan.device_name(family);
        let device = self
            .netlink
            .link_by_name(&name)?
            .filter(|link| matches!(link.kind, LinkKind::Vxlan(_)))
            .and_then(|link| link.mac);
        if let Some(mac) = device.filter(|mac| mac.is_unicast()) {
            info!(device = name, %mac, "adopting the device");
            return Ok(mac);
        }
        let published = own.and_then(|lease| lease.attributes.vtep(family)).map(|vtep| vtep.mac);
        match published.filter(|mac| mac.is_unicast()) {
            Some(mac) => Ok(mac),
            None => random_mac().map_err(JoinError::Random),
        }
    }

    /// A restarted node whose manager forgot it keeps the subnets its pods have addresses of.
    fn preferred(&self) -> Option<Subnets> {
        let path: &PathBuf = &self.settings.subnet_file;
        match SubnetEnv::read(path) {
            Ok(env) => env?.subnets(),
            Err(error) => {
                warn!(%error, "ignored");
                None
            }
        }
    }
}

/// The request for this node's lease, with the addresses of its underlay.
pub(crate) fn lease_request(
    settings: &Settings,
    underlay: &BTreeMap<Family, Underlay>,
    mut attributes: LeaseAttributes,
    preferred: Option<Subnets>,
) -> LeaseRequest {
    (attributes.public_ip, attributes.public_ipv6) = (None, None);
    for state in underlay.values() {
        match state.public_address {
            std::net::IpAddr::V4(address) => attributes.public_ip = Some(address),
            std::net::IpAddr::V6(address) => attributes.public_ipv6 = Some(address),
        }
    }
    LeaseRequest { node_name: settings.node_name.clone(), net_conf: settings.net_conf.clone(), attributes, preferred }
}

/// Locally administered and unicast, as the kernel draws them (IEEE 802, section 8.4).
fn random_mac() -> std::io::Result<Mac> {
    let mut octets = [0; 6];
    File::open(RANDOM)?.read_exact(&mut octets)?;
    octets[0] = (octets[0] & 0xfe) | 0x02;
    Ok(Mac(octets))
}
