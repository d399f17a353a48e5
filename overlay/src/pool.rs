//! The pool that subnets are taken from: `Network`, `SubnetLen`, `SubnetMin`, `SubnetMax`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::family::{self, Family};

/// Which subnets of the pod network a node may take. Built by [`crate::NetConf::parse`], so its bounds are inside the
/// network and aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetPool {
    pub(crate) network: IpNetwork,
    /// Prefix length of one node's subnet.
    pub(crate) subnet_len: u8,
    /// Network address of the first subnet that may be given out.
    pub(crate) first: IpAddr,
    /// Network address of the last one.
    pub(crate) last: IpAddr,
}

impl SubnetPool {
    /// Whether a lease on `subnet` could have come from this pool.
    pub fn fits(&self, subnet: IpNetwork) -> bool {
        let start = family::number(subnet.network());
        Family::of(subnet.ip()) == Family::of(self.network.ip())
            && subnet.prefix() == self.subnet_len
            && (family::number(self.first)..=family::number(self.last)).contains(&start)
    }

    /// The lowest subnet that overlaps none of `taken`; `None` when the pool is used up.
    ///
    /// Leases of other lengths (a changed `SubnetLen`) take their whole range away.
    pub fn free(&self, taken: &[IpNetwork]) -> Option<IpNetwork> {
        self.all_free(taken).next()
    }

    /// All subnets that overlap none of `taken`, lowest first.
    pub(crate) fn all_free(&self, taken: &[IpNetwork]) -> impl Iterator<Item = IpNetwork> {
        let mut next = Some(family::number(self.first));
        std::iter::from_fn(move || {
            let (subnet, after) = self.free_from(next?, taken)?;
            next = after;
            Some(subnet)
        })
    }

    /// The first free subnet from `start` on, and where to look for the next.
    fn free_from(&self, mut start: u128, taken: &[IpNetwork]) -> Option<(IpNetwork, Option<u128>)> {
        let family = Family::of(self.network.ip());
        let size = 1u128 << (family.bits() - self.subnet_len);
        while start <= family::number(self.last) {
            let candidate = family::network(family::address(family, start)?, self.subnet_len)?;
            let Some(blocker) = taken.iter().find(|other| family::overlap(candidate, **other)) else {
                // The pool may end at the very last address of the family.
                return Some((candidate, start.checked_add(size)));
            };
            let blocked_to = family::number(last_address(*blocker)).max(start + (size - 1));
            // The next aligned start behind the blocker.
            start = (blocked_to / size).checked_add(1)?.checked_mul(size)?;
        }
        None
    }
}

fn last_address(network: IpNetwork) -> IpAddr {
    network.broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(network: &str, subnet_len: u8, first: &str, last: &str) -> SubnetPool {
        SubnetPool {
            network: network.parse().unwrap(),
            subnet_len,
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        }
    }

    fn nets(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn lowest_free_subnet_is_chosen() {
        let pool = pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.3.0");
        let cases: &[(&[&str], Option<&str>)] = &[
            (&[], Some("10.5.1.0/24")),
            (&["10.5.1.0/24"], Some("10.5.2.0/24")),
            (&["10.5.2.0/24", "10.5.1.0/24"], Some("10.5.3.0/24")),
            // Leases of another length block every subnet they touch.
            (&["10.5.1.128/25"], Some("10.5.2.0/24")),
            (&["10.5.0.0/23"], Some("10.5.2.0/24")),
            (&["10.5.0.0/22"], None),
            (&["10.5.1.0/24", "10.5.2.0/24", "10.5.3.0/24"], None),
        ];
        for (taken, free) in cases {
            let want = free.map(|n| n.parse().unwrap());
            assert_eq!(pool.free(&nets(taken)), want, "taken {taken:?}");
        }
    }

    #[test]
    fn all_free_subnets_are_found() {
        let pool = pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.4.0");
        let free: Vec<_> = pool.all_free(&nets(&["10.5.2.128/25"])).collect();
        assert_eq!(free, nets(&["10.5.1.0/24", "10.5.3.0/24", "10.5.4.0/24"]));
        assert_eq!(pool.all_free(&nets(&["10.5.0.0/16"])).count(), 0);
    }

    #[test]
    fn pool_may_end_at_the_last_address() {
        let v4 = pool("255.255.255.0/24", 26, "255.255.255.192", "255.255.255.192");
        assert_eq!(v4.free(&[]), Some("255.255.255.192/26".parse().unwrap()));
        assert_eq!(v4.free(&nets(&["255.255.255.192/26"])), None);
        let v6 = pool("ffff:ffff:ffff::/48", 64, "ffff:ffff:ffff:ffff::", "ffff:ffff:ffff:ffff::");
        assert_eq!(v6.free(&nets(&["ffff:ffff:ffff:ffff::/64"])), None);
    }

    #[test]
    fn lease_fits_only_with_the_length_and_inside_the_bounds() {
        let pool = pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.3.0");
        for (subnet, fits) in [
            ("10.5.1.0/24", true),
            ("10.5.3.0/24", true),
            ("10.5.0.0/24", false),
            ("10.5.4.0/24", false),
            ("10.5.1.0/25", false),
            ("fd00::/64", false),
        ] {
            assert_eq!(pool.fits(subnet.parse().unwrap()), fits, "{subnet}");
        }
    }
}
