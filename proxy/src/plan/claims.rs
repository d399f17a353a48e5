//! Which Service port gets a frontend that several ask for, so that a data plane finds every address in one plan only.
//!
//! The API server keeps ClusterIPs and node ports apart, but not external addresses, and nobody does for manifests.
//! kube-proxy leaves the choice to the order of its maps. Here a ClusterIP goes before an external IP, and that before a
//! load balancer's address, so that nobody takes over a ClusterIP by naming it; then the smaller key wins.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use super::{Frontend, PlanKey};
use crate::model::{IpFamily, Protocol};

/// What can be programmed only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Address(SocketAddr, Protocol),
    NodePort(u16, Protocol, IpFamily),
}

impl Place {
    fn of(frontend: Frontend, key: &PlanKey) -> Self {
        match frontend {
            Frontend::ClusterIp(address) | Frontend::ExternalIp(address) | Frontend::LoadBalancer(address) => {
                Self::Address(address, key.port.protocol)
            }
            Frontend::NodePort(port) => Self::NodePort(port, key.port.protocol, key.family),
        }
    }
}

/// All frontends anyone asks for.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Who asks, winner first; never empty.
    claimants: HashMap<Place, Vec<(Frontend, PlanKey)>>,
    /// Frontends that went to others.
    lost: BTreeMap<PlanKey, Vec<Frontend>>,
}

impl Claims {
    /// Replaces what `key` asks for: from `held` and what it lost, to `asked`. Returns the keys whose share may differ now,
    /// `key` not among them.
    pub(super) fn ask(&mut self, key: &PlanKey, held: &[Frontend], asked: &[Frontend]) -> Vec<PlanKey> {
        let before = [held, self.lost.get(key).map_or(&[][..], Vec::as_slice)].concat();
        let mut touched = Vec::new();
        for frontend in before.iter().filter(|frontend| !asked.contains(frontend)) {
            touched.extend(self.release(*frontend, key));
        }
        for frontend in asked.iter().filter(|frontend| !before.contains(frontend)) {
            touched.extend(self.claim(*frontend, key));
        }
        touched
    }

    /// Divides what `key` asks for: returns what it gets and notes the rest.
    pub(super) fn share(&mut self, key: &PlanKey, asked: &[Frontend]) -> Vec<Frontend> {
        let wins = |frontend: &&Frontend| self.winner(**frontend, key) == Some(key);
        let (won, lost): (Vec<_>, Vec<_>) = asked.iter().partition(wins);
        if lost.is_empty() {
            self.lost.remove(key);
        } else {
            self.lost.insert(key.clone(), lost);
        }
        won
    }

    /// What `key` asks for, given what it holds.
    pub(super) fn asked(&self, key: &PlanKey, held: &[Frontend]) -> Vec<Frontend> {
        let mut asked = [held, self.lost.get(key).map_or(&[][..], Vec::as_slice)].concat();
        asked.sort_unstable();
        asked
    }

    /// Every frontend that a key asks for and another one has: loser, frontend, winner.
    pub(super) fn contested(&self) -> impl Iterator<Item = (&PlanKey, Frontend, &PlanKey)> {
        self.lost.iter().flat_map(move |(key, lost)| {
            lost.iter().filter_map(move |frontend| Some((key, *frontend, self.winner(*frontend, key)?)))
        })
    }

    fn winner(&self, frontend: Frontend, key: &PlanKey) -> Option<&PlanKey> {
        self.claimants.get(&Place::of(frontend, key)).and_then(|claimants| claimants.first()).map(|(_, winner)| winner)
    }

    /// Returns the former winner if that is another one.
    fn claim(&mut self, frontend: Frontend, key: &PlanKey) -> Option<PlanKey> {
        let claimants = self.claimants.entry(Place::of(frontend, key)).or_default();
        let claim = (frontend, key.clone());
        let at = claimants.partition_point(|other| *other < claim);
        claimants.reserve_exact(1);
        claimants.insert(at, claim);
        (at == 0).then(|| claimants.get(1)).flatten().map(|(_, loser)| loser.clone())
    }

    /// Returns the new winner if `key` was the winner.
    fn release(&mut self, frontend: Frontend, key: &PlanKey) -> Option<PlanKey> {
        let place = Place::of(frontend, key);
        let claimants = self.claimants.get_mut(&place)?;
        let at = claimants.iter().position(|(asked, claimant)| *asked == frontend && claimant == key)?;
        claimants.remove(at);
        if claimants.is_empty() {
            self.claimants.remove(&place);
            return None;
        }
        (at == 0).then(|| claimants[0].1.clone())
    }
}
