//! Which subnets a node takes from the pools, given what others have.

use ipnetwork::IpNetwork;

use crate::{
    family,
    lease::{LeaseError, Subnets},
    netconf::NetConf,
    pool::SubnetPool,
};

/// For each family on its own: the first of `known` that is free and fits, or what `pick` takes from the pool.
pub(crate) fn choose(
    conf: &NetConf,
    taken: &[Subnets],
    known: &[Subnets],
    mut pick: impl FnMut(&SubnetPool, &[IpNetwork]) -> Option<IpNetwork>,
) -> Result<Subnets, LeaseError> {
    let mut chosen: Vec<IpNetwork> = Vec::new();
    for family in conf.families() {
        let Some(pool) = conf.network(family).and_then(|network| network.pool) else {
            return Err(LeaseError::NoPool { family });
        };
        let taken: Vec<IpNetwork> = taken.iter().filter_map(|lease| lease.of(family)).collect();
        let is_free = |subnet: &IpNetwork| !taken.iter().any(|t| family::overlap(*t, *subnet));
        let known = known.iter().filter_map(|known| known.of(family));
        let subnet =
            known.filter(|subnet| pool.fits(*subnet)).find(is_free).or_else(|| pick(&pool, &taken)).ok_or_else(
                || LeaseError::NoFreeSubnet {
                    family,
                    network: pool.network,
                    subnet_len: pool.subnet_len,
                    taken: taken.len(),
                },
            )?;
        chosen.push(subnet);
    }
    Subnets::from_networks(chosen).ok_or(LeaseError::NoPool { family: family::Family::V4 })
}
