//! Which Service port uses which round-robin chain.
//!
//! A `numgen inc` counter belongs to its rule, so a Service port is in exact round robin only in a chain of its own. Making a
//! chain is the work of `nft`, which takes the longer the more there are: 10 ms with 2,000, 40 ms with 10,000. So beyond
//! [`CHAINS`] they are shared, each new Service port joining the least used.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::pool::{Chain, Pool};
use crate::{packed::pack, plan::PlanKey};

/// Number of chains up to which each Service port has its own. A pool without any chain still gets its first one.
pub(crate) const CHAINS: usize = 2048;

/// The chains in use and who uses them.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    limit: usize,
    /// Users of each chain; never 0.
    users: BTreeMap<Chain, u32>,
    /// The bucket that a Service port has in a pool.
    held: BTreeMap<(PlanKey, Pool), u32>,
}

impl Buckets {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, users: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// The chain `key` has in `pool`, taking one if it has none.
    pub(crate) fn take(&mut self, key: &PlanKey, pool: Pool) -> Chain {
        self.get(key, pool).unwrap_or_else(|| {
            let chain = self.choose(pool);
            self.adopt(key, chain);
            chain
        })
    }

    /// The chain `key` has in `pool`.
    pub(crate) fn get(&self, key: &PlanKey, pool: Pool) -> Option<Chain> {
        self.held.get(&(key.clone(), pool)).map(|bucket| Chain { pool, bucket: *bucket })
    }

    /// Lets `key` use `chain`, as it did before a restart; nothing if it already has a chain in that pool.
    pub(crate) fn adopt(&mut self, key: &PlanKey, chain: Chain) {
        if let Entry::Vacant(vacant) = self.held.entry((key.clone(), chain.pool)) {
            vacant.insert(chain.bucket);
            *self.users.entry(chain).or_default() += 1;
        }
    }

    /// Gives back what `key` has in `pool`.
    pub(crate) fn release(&mut self, key: &PlanKey, pool: Pool) {
        let Some(bucket) = self.held.remove(&(key.clone(), pool)) else { return };
        let chain = Chain { pool, bucket };
        let users = self.users.get_mut(&chain).expect("a held chain has users");
        *users -= 1;
        if *users == 0 {
            self.users.remove(&chain);
        }
    }

    /// Packs what everything was put into, in the order of keys.
    pub(crate) fn pack(&mut self) {
        pack(&mut self.held);
    }

    /// All chains in use.
    pub(crate) fn chains(&self) -> BTreeSet<Chain> {
        self.users.keys().copied().collect()
    }

    fn choose(&self, pool: Pool) -> Chain {
        let in_pool = || self.users.range(Chain { pool, bucket: 0 }..=Chain { pool, bucket: u32::MAX });
        let least_used = in_pool().min_by_key(|(_, users)| **users);
        if let Some((chain, _)) = least_used
            && self.users.len() >= self.limit
        {
            return *chain;
        }
        // The smallest number not in use: chains come in order, so it is where the count first runs ahead.
        let mut bucket = 0;
        for (chain, _) in in_pool() {
            if chain.bucket != bucket {
                break;
            }
            bucket += 1;
        }
        Chain { pool, bucket }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{IpFamily, Protocol},
        nftables::{
            pool::{List, Masquerade},
            target::Class,
            testing::key,
        },
    };

    fn pool(count: u32) -> Pool {
        Pool {
            list: List::Main,
            class: Class::Vip,
            family: IpFamily::V4,
            protocol: Protocol::Tcp,
            count,
            masquerade: Masquerade::Never,
            affinity: None,
        }
    }

    #[test]
    fn each_has_its_own_chain_until_the_limit() {
        let mut buckets = Buckets::new(3);
        let chains = ["a", "b", "c"].map(|name| buckets.take(&key(name), pool(2)).bucket);
        assert_eq!(chains, [0, 1, 2]);
        buckets.take(&key("b"), pool(2));
        assert_eq!(buckets.take(&key("d"), pool(2)).bucket, 0, "the least used, lowest first");
        assert_eq!(buckets.take(&key("e"), pool(2)).bucket, 1);
        assert_eq!(buckets.take(&key("f"), pool(3)).bucket, 0, "a new pool needs a first chain");
    }

    #[test]
    fn a_released_chain_goes_with_its_last_user_and_its_number_is_used_again() {
        let mut buckets = Buckets::new(9);
        for name in ["a", "b", "c"] {
            buckets.take(&key(name), pool(2));
        }
        buckets.release(&key("b"), pool(2));
        assert_eq!(buckets.chains().iter().map(|c| c.bucket).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(buckets.take(&key("d"), pool(2)).bucket, 1);
        for name in ["a", "c", "d"] {
            buckets.release(&key(name), pool(2));
        }
        assert!(buckets.chains().is_empty());
    }

    #[test]
    fn an_adopted_chain_is_kept() {
        let mut buckets = Buckets::new(9);
        buckets.adopt(&key("a"), Chain { pool: pool(2), bucket: 7 });
        assert_eq!(buckets.take(&key("a"), pool(2)).bucket, 7);
        assert_eq!(buckets.take(&key("b"), pool(2)).bucket, 0);
    }
}
