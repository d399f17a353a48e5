//! The ClusterIPs of one family, whose other ports and protocols are refused (9.10), and the few networks that hold them.
//!
//! A rule for each ClusterIP stands in a chain of its own. Only packets to one of those networks walk it that nothing has
//! translated: never those to a Service, a pod, or the world outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::{
    layout::{Layout, comment},
    names::CLUSTER_IPS_REFUSED,
    service::{destination, network},
    transaction::TableChange,
};
use crate::plan::{Frontend, ServicePortPlan};

/// Most networks that lead to the chain: every new connection is compared with each. ClusterIPs are out of one or two
/// ServiceCIDRs, so this many hold little else.
const NETWORKS: usize = 4;

/// With more changes at once the chain is written anew.
const CHANGES: usize = 100;

/// The addresses, each with how many Service ports have it.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterIps(BTreeMap<IpAddr, u32>);

impl ClusterIps {
    pub(super) fn of<'a>(plans: impl Iterator<Item = &'a ServicePortPlan>) -> Self {
        let mut all = Self::default();
        plans.flat_map(addresses).for_each(|address| *all.0.entry(address).or_default() += 1);
        all
    }

    /// One Service port has another plan. Notes in `touched` each address that may have come or gone, and whether it was there
    /// before the first change.
    pub(super) fn replace(
        &mut self,
        old: Option<&ServicePortPlan>,
        new: Option<&ServicePortPlan>,
        touched: &mut BTreeMap<IpAddr, bool>,
    ) {
        for address in old.into_iter().flat_map(addresses) {
            let users = self.0.entry(address).or_default();
            touched.entry(address).or_insert(*users > 0);
            *users = users.saturating_sub(1);
            if *users == 0 {
                self.0.remove(&address);
            }
        }
        for address in new.into_iter().flat_map(addresses) {
            let users = self.0.entry(address).or_default();
            touched.entry(address).or_insert(*users > 0);
            *users += 1;
        }
    }

    /// Brings the chain up to date, after [`ClusterIps::replace`] has noted what was touched. Returns whether any address
    /// came or went.
    pub(super) fn follow(&self, touched: &BTreeMap<IpAddr, bool>, layout: &Layout, filter: &mut TableChange) -> bool {
        let changes: BTreeSet<(bool, IpAddr)> = touched
            .iter()
            .map(|(address, before)| (*before, self.0.contains_key(address), *address))
            .filter(|(before, now, _)| before != now)
            .map(|(_, now, address)| (now, address))
            .collect();
        if changes.len() > CHANGES {
            filter.rewrite(CLUSTER_IPS_REFUSED, self.refused(layout));
        } else {
            for (now, address) in &changes {
                match now {
                    true => filter.append(CLUSTER_IPS_REFUSED, &refused(*address, layout)),
                    false => filter.remove(CLUSTER_IPS_REFUSED, &refused(*address, layout)),
                }
            }
        }
        !changes.is_empty()
    }

    /// The rules of the chain. Their order means nothing.
    pub(super) fn refused(&self, layout: &Layout) -> impl Iterator<Item = String> {
        self.0.keys().map(move |address| refused(*address, layout))
    }

    /// The rules that lead there.
    pub(super) fn jumps(&self) -> Vec<String> {
        let why = comment("other ports of cluster IPs");
        let jump = |to: &IpNetwork| format!("-d {} {why} -j {CLUSTER_IPS_REFUSED}", network(to));
        self.networks().iter().map(jump).collect()
    }

    /// The smallest networks, at most [`NETWORKS`], that hold all addresses: cut where neighbours have the fewest leading bits
    /// in common. No two overlap: among neighbours in one network, a single pair differs in the bit after its prefix.
    fn networks(&self) -> Vec<IpNetwork> {
        let sorted: Vec<IpAddr> = self.0.keys().copied().collect();
        let mut cuts: Vec<(u8, usize)> =
            sorted.windows(2).enumerate().map(|(at, pair)| (common_bits(pair[0], pair[1]), at + 1)).collect();
        cuts.sort_unstable();
        let mut cuts: Vec<usize> = cuts.into_iter().take(NETWORKS - 1).map(|(_, at)| at).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([sorted.len()]);
        let begins = [0].into_iter().chain(cuts.iter().copied());
        begins.zip(ends).filter_map(|(begin, end)| around(*sorted.get(begin)?, *sorted.get(end - 1)?)).collect()
    }
}

fn addresses(plan: &ServicePortPlan) -> impl Iterator<Item = IpAddr> {
    plan.frontends.iter().filter_map(|frontend| match frontend {
        Frontend::ClusterIp(at) => Some(at.ip()),
        _ => None,
    })
}

fn refused(address: IpAddr, layout: &Layout) -> String {
    format!("{} -j {}", destination(address), layout.reject())
}

/// How many leading bits two addresses of one family share.
fn common_bits(a: IpAddr, b: IpAddr) -> u8 {
    let bits = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    u8::try_from(bits).expect("at most 128 bits")
}

/// The smallest network with both addresses, host bits set to 0.
fn around(first: IpAddr, last: IpAddr) -> Option<IpNetwork> {
    let network = IpNetwork::new(first, common_bits(first, last)).ok()?;
    IpNetwork::new(network.network(), network.prefix()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|address| (address.parse().unwrap(), 1));
        ClusterIps(addresses.collect()).networks().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn networks_are_cut_where_addresses_are_far_apart() {
        assert_eq!(networks(&[]), [""; 0]);
        assert_eq!(networks(&["10.96.0.1"]), ["10.96.0.1/32"]);
        assert_eq!(networks(&["10.96.0.1", "10.96.0.10"]), ["10.96.0.1/32", "10.96.0.10/32"]);
        let far = ["10.96.0.1", "10.96.0.2", "10.96.0.10", "10.96.1.1", "10.110.7.7", "172.20.0.1"];
        assert_eq!(networks(&far), ["10.96.0.0/28", "10.96.1.1/32", "10.110.7.7/32", "172.20.0.1/32"]);
        assert_eq!(networks(&["fd96::1", "fd96::2"]), ["fd96::1/128", "fd96::2/128"]);
    }

    proptest! {
        #[test]
        fn networks_hold_all_and_do_not_overlap(addresses in prop::collection::btree_set(any::<u32>(), 0..40)) {
            let all: BTreeMap<IpAddr, u32> =
                addresses.iter().map(|bits| (std::net::Ipv4Addr::from_bits(*bits).into(), 1)).collect();
            let networks = ClusterIps(all.clone()).networks();
            prop_assert!(networks.len() <= NETWORKS);
            for address in all.keys() {
                prop_assert_eq!(networks.iter().filter(|network| network.contains(*address)).count(), 1);
            }
        }
    }
}
