//! The reconciler's state as `weft status` shows it.

use std::collections::BTreeMap;

use super::{Reconciler, Task};
use crate::{
    family::Family,
    lease::{Lease, Subnets},
    plan::Subject,
    status::{FamilyStatus, OverlayStatus, PeerState, PeerStatus, RejectedStatus},
};

impl Reconciler {
    pub(super) fn status(&self, subnet_manager: String, lease_error: Option<&str>) -> OverlayStatus {
        OverlayStatus {
            ready: self.is_ready(),
            error: self.own_error(lease_error),
            backend: self.settings.net_conf.backend.kind().to_owned(),
            subnet_manager,
            ipv4: self.family_status(Family::V4).unwrap_or_default(),
            ipv6: self.family_status(Family::V6),
            mtu: self.pod_mtu(),
            packet_filter: self.packet_filter.manager().map(|manager| manager.name().to_owned()),
            conntrack_bypass: self.packet_filter.bypasses_conntrack(),
            sysctls: self.sysctls.clone(),
            peers: self.peer_status(),
            rejected: self
                .snapshot
                .rejected
                .iter()
                .map(|rejected| RejectedStatus { object: rejected.object.clone(), reason: rejected.reason.clone() })
                .collect(),
            repairs: self.repairs.values().sum(),
            repairs_by_kind: self.repairs.clone(),
        }
    }

    /// All that is wrong on this node itself, in one line.
    fn own_error(&self, lease_error: Option<&str>) -> Option<String> {
        let failures = self.retries.errors().filter_map(|(task, error)| match task {
            Task::Kernel(_, Subject::Peer(_)) => None,
            _ => Some(error),
        });
        let all: Vec<&str> =
            lease_error.into_iter().chain(self.snapshot.incomplete.as_deref()).chain(failures).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn family_status(&self, family: Family) -> Option<FamilyStatus> {
        let state = self.desired.families.get(&family)?;
        let underlay = self.underlay.get(&family)?;
        Some(FamilyStatus {
            device: state.device.as_ref().map(|device| device.name.clone()),
            interface: Some(underlay.name.clone()),
            public_ip: Some(underlay.public_address.to_string()),
            network: Some(state.network.to_string()),
            subnet: Some(state.subnet.to_string()),
            vtep_mac: state.device.as_ref().map(|device| device.mac.to_string()),
        })
    }

    fn peer_status(&self) -> Vec<PeerStatus> {
        let errors = self.peer_errors();
        self.snapshot
            .leases
            .iter()
            .filter(|lease| lease.subnets != self.lease.subnets)
            .map(|lease| peer(lease, errors.get(&lease.subnets)))
            .collect()
    }

    /// Why peers cannot be served, and what could not be written for them.
    fn peer_errors(&self) -> BTreeMap<Subnets, String> {
        let mut errors: BTreeMap<Subnets, String> = BTreeMap::new();
        let mut note = |subnets, text: &str| {
            let all = errors.entry(subnets).or_default();
            if !all.is_empty() {
                all.push_str("; ");
            }
            all.push_str(text);
        };
        for problem in &self.problems {
            note(problem.subnets, &problem.reason);
        }
        for (task, error) in self.retries.errors() {
            if let Task::Kernel(family, Subject::Peer(subnet)) = task {
                let holder = self.snapshot.leases.iter().find(|l| l.subnets.of(*family) == Some(*subnet));
                if let Some(lease) = holder {
                    note(lease.subnets, error);
                }
            }
        }
        errors
    }
}

fn peer(lease: &Lease, error: Option<&String>) -> PeerStatus {
    // The first family it has.
    let family = if lease.subnets.of(Family::V4).is_some() { Family::V4 } else { Family::V6 };
    let subnet = lease.subnets.of(family).map(|subnet| subnet.to_string());
    PeerStatus {
        subnet: subnet.unwrap_or_default(),
        subnet_v6: lease.subnets.of(Family::V6).map(|subnet| subnet.to_string()),
        public_ip: lease.attributes.public_address(family).map(|address| address.to_string()),
        vtep_mac: lease.attributes.vtep(family).map(|vtep| vtep.mac.to_string()),
        state: if error.is_none() { PeerState::Up } else { PeerState::Failed },
        error: error.cloned(),
    }
}
