//! Choosing addresses.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;

use super::{
    Error, Lease, Owner,
    range::{Range, RangeSet},
    store::{self, Store},
};

/// The addresses of a network on this node.
#[derive(Debug)]
pub(crate) struct Pool {
    directory: PathBuf,
    sets: Vec<RangeSet>,
    shared_with: Vec<PathBuf>,
}

/// Frees every address of an owner in a network's directory; without the directory there is none.
pub(super) fn release(directory: &Path, owner: Owner<'_>) -> Result<(), Error> {
    match Store::open_existing(directory)? {
        Some(store) => store.release_all(owner),
        None => Ok(()),
    }
}

impl Pool {
    /// `directory` is the network's own.
    pub(crate) fn new(directory: PathBuf, sets: Vec<RangeSet>) -> Self {
        Self { directory, sets, shared_with: Vec::new() }
    }

    /// The same for networks whose directories these are, with pods in the same subnet.
    pub(crate) fn beside(self, others: &[PathBuf]) -> Self {
        Self { shared_with: others.to_vec(), ..self }
    }

    /// Takes one address from each set of ranges, in their order: the requested one if there is one in it, else the
    /// next free one. All or none.
    pub(crate) fn allocate(&self, owner: Owner<'_>, requested: &[IpAddr]) -> Result<Vec<Lease>, Error> {
        let store = Store::open(&self.directory)?;
        let taken = self.taken(&store)?;
        let mut leases = Vec::new();
        match self.allocate_from(&store, &taken, owner, requested, &mut leases) {
            Ok(()) => Ok(leases),
            Err(error) => {
                // The cause is worth more than what goes wrong in undoing; DEL will try again.
                let _ = give_back(&store, owner, &leases);
                Err(error)
            }
        }
    }

    /// Frees exactly these addresses, if they are still the owner's.
    pub(super) fn give_back(directory: &Path, owner: Owner<'_>, leases: &[Lease]) -> Result<(), Error> {
        give_back(&Store::open(directory)?, owner, leases)
    }

    /// Fails if a set of ranges has no address left. Changes nothing.
    pub(super) fn check_room(&self) -> Result<(), Error> {
        let Some(store) = Store::open_to_read(&self.directory)? else { return Ok(()) };
        let taken = self.taken(&store)?;
        let full = self.sets.iter().find(|set| set.round_robin(None).all(|(address, _)| taken.contains_key(&address)));
        full.map_or(Ok(()), |set| Err(Error::Exhausted(set.to_string())))
    }

    /// All addresses in use, with the text of their files.
    fn taken(&self, store: &Store) -> Result<BTreeMap<IpAddr, String>, Error> {
        let mut taken = BTreeMap::new();
        for directory in &self.shared_with {
            if let Some(other) = Store::open_to_read(directory)? {
                taken.extend(other.reservations()?);
            }
        }
        taken.extend(store.reservations()?);
        Ok(taken)
    }

    fn allocate_from(
        &self,
        store: &Store,
        taken: &BTreeMap<IpAddr, String>,
        owner: Owner<'_>,
        requested: &[IpAddr],
        leases: &mut Vec<Lease>,
    ) -> Result<(), Error> {
        let mut requested = requested.to_vec();
        for (index, set) in self.sets.iter().enumerate() {
            refuse_second(set, taken, owner)?;
            let wanted = requested.iter().position(|address| set.range_of(*address).is_some());
            let lease = match wanted.map(|position| requested.remove(position)) {
                Some(address) => take_requested(store, set, taken, address, owner)?,
                None => take_next(store, index, set, taken, owner)?,
            };
            leases.push(lease);
            store.set_last_reserved(index, lease.address.ip())?;
        }
        if requested.is_empty() {
            return Ok(());
        }
        let left: Vec<_> = requested.iter().map(ToString::to_string).collect();
        Err(Error::RequestedOutside(left.join(", ")))
    }
}

fn give_back(store: &Store, owner: Owner<'_>, leases: &[Lease]) -> Result<(), Error> {
    leases.iter().try_for_each(|lease| store.release(lease.address.ip(), owner))
}

/// One attachment has one address of a set (A4).
fn refuse_second(set: &RangeSet, taken: &BTreeMap<IpAddr, String>, owner: Owner<'_>) -> Result<(), Error> {
    match taken.iter().find(|(address, text)| store::is_of(text, owner) && set.range_of(**address).is_some()) {
        None => Ok(()),
        Some((address, _)) => Err(Error::Duplicate { address: *address, container_id: owner.container_id.to_owned() }),
    }
}

fn take_requested(
    store: &Store,
    set: &RangeSet,
    taken: &BTreeMap<IpAddr, String>,
    address: IpAddr,
    owner: Owner<'_>,
) -> Result<Lease, Error> {
    let refused = |reason: String| Error::Requested { address, reason };
    let range = set.range_of(address).ok_or_else(|| refused(format!("is not in range set {set}")))?;
    if address == range.gateway {
        return Err(refused("is the subnet's gateway".to_owned()));
    }
    if taken.contains_key(&address) || !store.reserve(address, owner)? {
        return Err(refused(format!("is not available in range set {set}")));
    }
    Ok(lease(address, range))
}

fn take_next(
    store: &Store,
    index: usize,
    set: &RangeSet,
    taken: &BTreeMap<IpAddr, String>,
    owner: Owner<'_>,
) -> Result<Lease, Error> {
    for (address, range) in set.round_robin(store.last_reserved(index)) {
        if !taken.contains_key(&address) && store.reserve(address, owner)? {
            return Ok(lease(address, range));
        }
    }
    Err(Error::Exhausted(set.to_string()))
}

fn lease(address: IpAddr, range: &Range) -> Lease {
    let address = IpNetwork::new(address, range.prefix()).expect("the prefix length is that of a subnet it lies in");
    Lease { address, gateway: range.gateway }
}

#[cfg(test)]
mod tests;
