//! Taking and keeping this node's lease among others who do the same at the same moment.

use std::time::Duration;

use ipnetwork::IpNetwork;

use super::{
    Held,
    store::{Listing, Record, Store},
};
use crate::{
    allocate,
    family::Family,
    lease::{Lease, LeaseAttributes, LeaseError, LeaseHolder, LeaseRequest, Subnets},
    netconf::NetConf,
    pool::SubnetPool,
};

/// How often a node that lost a race chooses again before its caller backs off.
const RACES: usize = 64;
/// Longest pause after a lost race. It grows up to this and is drawn anew each time, so that losers do not meet again.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// Among how many free subnets one is drawn, as flannel does it: fewer nodes draw the same.
const DRAWN_FROM: usize = 100;

/// What to write, decided on one listing.
#[derive(Debug)]
enum Move<'a> {
    /// Publish on the key that is ours already.
    Keep(&'a Record),
    /// Take another, and give back what was ours.
    Take { subnets: Subnets, instead: Option<&'a Record> },
}

/// Makes sure that this node holds a lease with `request.attributes`.
pub(super) async fn acquire(
    store: &Store,
    request: &LeaseRequest,
    held: Option<&Held>,
) -> Result<(Lease, Held), LeaseError> {
    for race in 0..RACES {
        pause(race).await;
        let listing = store.list().await?;
        let done = match decide(&listing, request, held)? {
            Move::Keep(record) => keep(store, record, request).await?,
            Move::Take { subnets, instead } => take(store, &listing, subnets, instead, request).await?,
        };
        if let Some(done) = done {
            return Ok(done);
        }
    }
    Err(LeaseError::LostRaces { races: RACES })
}

async fn pause(races_lost: usize) {
    if races_lost > 0 {
        let longest = LONGEST_PAUSE.min(Duration::from_millis(5) * u32::try_from(races_lost).unwrap_or(u32::MAX));
        tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
    }
}

/// The best of the records that are this node's: what it wrote last; what has the MAC of its VTEP (its address may have
/// changed); what has its public address (its device may be new), a reservation before a lease.
pub(super) fn own<'a>(listing: &'a Listing, attributes: &LeaseAttributes, held: Option<&Held>) -> Option<&'a Record> {
    let rank = |record: &Record| {
        let lease = record.read.as_ref().ok()?;
        let any = |same: &dyn Fn(Family) -> bool| Family::ALL.into_iter().any(same);
        let same_mac = |family| {
            let mac = |of: &LeaseAttributes| of.vtep(family).map(|vtep| vtep.mac);
            mac(attributes).is_some() && mac(attributes) == mac(&lease.attributes)
        };
        let same_address = |family| {
            let ours = attributes.public_address(family);
            ours.is_some() && ours == lease.attributes.public_address(family)
        };
        if held.is_some_and(|held| held.subnets == lease.subnets && held.mod_revision == record.mod_revision) {
            Some(0)
        } else if any(&same_mac) {
            Some(1)
        } else if any(&same_address) {
            Some(if record.is_permanent() { 2 } else { 3 })
        } else {
            None
        }
    };
    let ranked = listing.records.iter().filter_map(|record| Some((rank(record)?, record)));
    ranked.min_by_key(|(rank, record)| (*rank, record.subnets)).map(|(_, record)| record)
}

/// Whether a record is the lease of a node that another process ran: by the MAC of a VTEP, which nobody else has; or, for
/// backends without, by subnet and address together.
pub(super) fn is_of(record: &Record, holder: &LeaseHolder) -> bool {
    let Ok(lease) = &record.read else { return false };
    let any = |same: &dyn Fn(Family) -> bool| Family::ALL.into_iter().any(same);
    let same_mac = |family| lease.attributes.vtep(family).is_some_and(|vtep| holder.macs.contains(&vtep.mac));
    let same_address =
        |family| lease.attributes.public_address(family).is_some_and(|address| holder.addresses.contains(&address));
    any(&same_mac) || (holder.subnets == Some(lease.subnets) && any(&same_address))
}

fn decide<'a>(listing: &'a Listing, request: &LeaseRequest, held: Option<&Held>) -> Result<Move<'a>, LeaseError> {
    let own = own(listing, &request.attributes, held);
    let own_subnets = own.and_then(|record| record.subnets);
    if let (Some(record), Some(subnets)) = (own, own_subnets)
        && fits(&request.net_conf, subnets)
    {
        return Ok(Move::Keep(record));
    }
    let is_own = |record: &&Record| own.is_some_and(|own| own.name == record.name);
    let taken: Vec<Subnets> =
        listing.records.iter().filter(|record| !is_own(record)).filter_map(|record| record.subnets).collect();
    let known: Vec<Subnets> = own_subnets.into_iter().chain(request.preferred).collect();
    let subnets = allocate::choose(&request.net_conf, &taken, &known, draw)?;
    // A reservation is the operator's, also one that does not fit.
    Ok(Move::Take { subnets, instead: own.filter(|record| !record.is_permanent()) })
}

/// Whether a lease has exactly the families of the network, from its pools.
fn fits(conf: &NetConf, subnets: Subnets) -> bool {
    Family::ALL.into_iter().all(|family| match (conf.network(family), subnets.of(family)) {
        (Some(network), Some(subnet)) => network.pool.is_some_and(|pool| pool.fits(subnet)),
        (None, None) => true,
        _ => false,
    })
}

fn draw(pool: &SubnetPool, taken: &[IpNetwork]) -> Option<IpNetwork> {
    let free: Vec<IpNetwork> = pool.all_free(taken).take(DRAWN_FROM).collect();
    fastrand::choice(free)
}

/// Publishes on the node's own key; `None` if somebody changed it meanwhile.
async fn keep(store: &Store, record: &Record, request: &LeaseRequest) -> Result<Option<(Lease, Held)>, LeaseError> {
    let Some(subnets) = record.subnets else {
        return Ok(None);
    };
    let lease = Lease { subnets, attributes: request.attributes.clone() };
    if !record.is_permanent() {
        return with_grant(store, lease, async |lease, id| store.rewrite(record, lease, id).await).await;
    }
    // flannel turns a reservation into a lease of 24 hours (flannel-defects.md C.2); here it stays one.
    let revision = if record.read.as_ref() == Ok(&lease) {
        Some(record.mod_revision)
    } else {
        store.rewrite(record, &lease, 0).await?
    };
    Ok(revision.map(|mod_revision| {
        let held = Held { subnets, mod_revision, permanent: true };
        (lease, held)
    }))
}

async fn take(
    store: &Store,
    seen: &Listing,
    subnets: Subnets,
    instead: Option<&Record>,
    request: &LeaseRequest,
) -> Result<Option<(Lease, Held)>, LeaseError> {
    let shape = |subnets: Subnets| Family::ALL.map(|family| subnets.of(family).map(|subnet| subnet.prefix()));
    let alone = subnets.iter().count() > 1
        || seen.records.iter().filter_map(|record| record.subnets).any(|other| shape(other) != shape(subnets));
    let lease = Lease { subnets, attributes: request.attributes.clone() };
    with_grant(store, lease, async |lease, id| store.create(lease, id, instead, seen, alone).await).await
}

/// Writes with a new etcd lease, which goes again if the write was not to be.
async fn with_grant(
    store: &Store,
    lease: Lease,
    write: impl AsyncFnOnce(&Lease, i64) -> Result<Option<i64>, LeaseError>,
) -> Result<Option<(Lease, Held)>, LeaseError> {
    let id = store.grant().await?;
    match write(&lease, id).await? {
        Some(mod_revision) => {
            let held = Held { subnets: lease.subnets, mod_revision, permanent: false };
            Ok(Some((lease, held)))
        }
        None => {
            store.revoke(id).await;
            Ok(None)
        }
    }
}

/// Renews what this node holds, with a new etcd lease, as flannel does; `None` if it is not this node's any more.
pub(super) async fn renew(store: &Store, held: &Held) -> Result<Option<Held>, LeaseError> {
    let listing = store.list().await?;
    let mine = listing
        .records
        .iter()
        .find(|record| record.subnets == Some(held.subnets) && record.mod_revision == held.mod_revision);
    let Some((record, Ok(lease))) = mine.map(|record| (record, record.read.clone())) else {
        return Ok(None);
    };
    let renewed = with_grant(store, lease, async |lease, id| store.rewrite(record, lease, id).await).await?;
    Ok(renewed.map(|(_, held)| held))
}
