//! Host ports in our nftables table, by netlink: observe the table, plan the difference, commit it in one transaction.

use std::{collections::BTreeMap, mem::ManuallyDrop};

use weft_netlink::{NftBatch, NftData, NftElement, NftQuery, NftWriter};

use super::{
    claim::{Claim, Holder, bytes_of, port_bytes},
    mapping::Masquerade,
    table::{self, FAMILIES, Family, TABLE},
};
use crate::error::{Code, Error};

/// How often a transaction is tried again because somebody changed rules between our look and it. Of many pods at a time
/// one comes through each time.
const ATTEMPTS: usize = 500;

/// Elements by set and key.
type Elements = BTreeMap<(&'static str, Vec<u8>), NftElement>;

/// The table as it is.
struct Observed {
    generation: u32,
    exists: bool,
    /// It has our rules.
    is_whole: bool,
    elements: Elements,
}

/// A socket to look, which the end of the process closes: to close any of netfilter's waits until all that was deleted in this
/// network namespace, by whomever, is destroyed, some 15 ms (`nft_rcv_nl_event`). At the end of a DEL the kernel has long been
/// waiting for the removal of the interface. `None`: the kernel has no nftables.
fn open() -> Result<Option<ManuallyDrop<NftQuery>>, Error> {
    match NftQuery::open().and_then(|mut query| query.generation().map(|_| query)) {
        Ok(query) => Ok(Some(ManuallyDrop::new(query))),
        // EINVAL: nfnetlink knows of no such subsystem.
        Err(error) if error.is_unsupported() || error.errno() == Some(nix::libc::EINVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the kernel has nftables.
pub(super) fn is_supported() -> Result<bool, Error> {
    Ok(open()?.is_some())
}

/// Adds claims, which come later than all that are there.
pub(super) fn add(claims: &[Claim]) -> Result<(), Error> {
    update(&mut ManuallyDrop::new(NftQuery::open()?), &commit, &mut |present| {
        let order = present.iter().map(|claim| claim.order).max().unwrap_or(0) + 1;
        // One for the same pod and port is of a pod that had the address before.
        present.retain(|old| !claims.iter().any(|new| new.element().key == old.element().key));
        present.extend(claims.iter().map(|claim| Claim { order, ..claim.clone() }));
    })
}

/// Removes the claims of some holders and returns them. Ports that others claim as well are theirs then.
pub(super) fn remove(whose: &dyn Fn(&Holder) -> bool) -> Result<Vec<Claim>, Error> {
    let Some(mut query) = open()? else { return Ok(Vec::new()) };
    // Most pods have none, and most nodes have no table.
    let mut removed = claims_of(&mut query)?;
    removed.retain(|claim| whose(&claim.holder));
    if !removed.is_empty() {
        update(&mut query, &commit, &mut |present| present.retain(|claim| !whose(&claim.holder)))?;
    }
    Ok(removed)
}

/// Adds those of the claims that are missing, in their order, and whatever of the table is; for processes that go on, so nothing stays
/// open. Returns how many were missing.
pub(super) fn restore(claims: &[&Claim]) -> Result<usize, Error> {
    let mut missing = 0;
    let commit = |batch| NftWriter::open()?.commit(batch);
    update(&mut NftQuery::open()?, &commit, &mut |present| {
        let lacks = |claim: &&&Claim| !present.iter().any(|other| other.equals(claim));
        let absent: Vec<Claim> = claims.iter().filter(lacks).map(|claim| (*claim).clone()).collect();
        let last = present.iter().map(|claim| claim.order).max().unwrap_or(0);
        missing = absent.len();
        present.extend((last + 1..).zip(absent).map(|(order, claim)| Claim { order, ..claim }));
    })?;
    Ok(missing)
}

/// All claims there are; for processes that go on, so nothing stays open. `None`: the kernel has no nftables.
pub(super) fn claims() -> Result<Option<Vec<Claim>>, Error> {
    open()?.map(|query| claims_of(&mut ManuallyDrop::into_inner(query))).transpose()
}

/// Fails unless the ports lead to the pod.
pub(super) fn check(claims: &[Claim]) -> Result<(), Error> {
    let observed = observe(&mut NftQuery::open()?)?;
    let not_as_made = |message: String| Err(Error::new(Code::NotAsMade, message));
    if !observed.is_whole {
        return not_as_made(format!("rules of nftables table inet {TABLE} are missing"));
    }
    let present = observed.claims();
    let is_present = |claim: &&Claim| present.iter().any(|other| other.equals(claim));
    if let Some(claim) = claims.iter().find(|claim| !is_present(claim)) {
        return not_as_made(format!("host port {} is not mapped to {}", claim.port(), claim.pod));
    }
    for (place, element) in elements(claims) {
        let wanted = |found: &&NftElement| found.data == element.data;
        if place.0 != FAMILIES[0].claims
            && place.0 != FAMILIES[1].claims
            && observed.elements.get(&place).filter(wanted).is_none()
        {
            let port = claims.iter().map(Claim::port).collect::<Vec<_>>().join(", ");
            return not_as_made(format!("host ports {port}: map {} leads elsewhere, or lacks an element", place.0));
        }
    }
    Ok(())
}

/// Changes the claims, and all that follows from them.
fn update(
    query: &mut NftQuery,
    commit: &dyn Fn(NftBatch) -> weft_netlink::Result<()>,
    change: &mut dyn FnMut(&mut Vec<Claim>),
) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let observed = observe(query)?;
        let mut claims = observed.claims();
        change(&mut claims);
        let Some(batch) = plan(&observed, &claims) else { return Ok(()) };
        match commit(batch) {
            Err(error) if error.is_outdated() => {}
            other => return other.map_err(Error::from),
        }
    }
    Err(Error::new(Code::TryAgainLater, format!("rules changed {ATTEMPTS} times while host ports were being mapped")))
}

/// By a socket that stays open, as those to look do.
fn commit(batch: NftBatch) -> weft_netlink::Result<()> {
    ManuallyDrop::new(NftWriter::open()?).commit(batch)
}

fn claims_of(query: &mut NftQuery) -> Result<Vec<Claim>, Error> {
    let mut claims = Vec::new();
    for family in &FAMILIES {
        let elements = query.elements(TABLE, family.claims)?;
        claims.extend(elements.iter().flatten().filter_map(Claim::of_element));
    }
    Ok(claims)
}

fn observe(query: &mut NftQuery) -> Result<Observed, Error> {
    // First: what changes from here on makes the transaction fail.
    let generation = query.generation()?;
    let rules = query.rule_counts(TABLE)?;
    let sets = query.sets(TABLE)?;
    let is_whole = rules == table::rule_counts() && all_sets().all(|set| sets.iter().any(|present| present == set));
    let mut elements = Elements::new();
    for set in all_sets().filter(|set| sets.iter().any(|present| present == set)) {
        for element in query.elements(TABLE, set)?.into_iter().flatten() {
            elements.insert((set, element.key.clone()), element);
        }
    }
    Ok(Observed { generation, exists: !rules.is_empty() || !sets.is_empty(), is_whole, elements })
}

fn all_sets() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(Family::sets)
}

impl Observed {
    fn claims(&self) -> Vec<Claim> {
        let claims = self.elements.iter().filter(|((set, _), _)| FAMILIES.iter().any(|family| family.claims == *set));
        claims.filter_map(|(_, element)| Claim::of_element(element)).collect()
    }
}

/// The transaction after which the table has what follows from the claims; `None` if it has that already. Without any claim
/// the table goes: a node without host ports pays nothing for them.
fn plan(observed: &Observed, claims: &[Claim]) -> Option<NftBatch> {
    let mut batch = NftBatch::at_generation(TABLE, observed.generation);
    if claims.is_empty() {
        batch.delete_table();
        return observed.exists.then_some(batch);
    }
    let desired = elements(claims);
    if !observed.is_whole {
        if observed.exists {
            batch.delete_table();
        }
        table::make(&mut batch);
        desired.iter().for_each(|((set, _), element)| batch.add(set, element));
        return Some(batch);
    }
    let lacks = |elements: &Elements, place, element| elements.get(place) != Some(element);
    let superfluous: Vec<_> = observed.elements.iter().filter(|(p, e)| lacks(&desired, p, e)).collect();
    let missing: Vec<_> = desired.iter().filter(|(p, e)| lacks(&observed.elements, p, e)).collect();
    superfluous.iter().for_each(|((set, _), element)| batch.delete(set, element));
    missing.iter().for_each(|((set, _), element)| batch.add(set, element));
    (!superfluous.is_empty() || !missing.is_empty()).then_some(batch)
}

/// All elements that follow from the claims. Of two for one port, that of the later pod wins.
fn elements(claims: &[Claim]) -> Elements {
    let mut ordered: Vec<_> = claims.iter().collect();
    ordered.sort_by_key(|claim| claim.order);
    let mut elements = Elements::new();
    let mut put = |set, element: NftElement| drop(elements.insert((set, element.key.clone()), element));
    for claim in ordered {
        let family = Family::of(claim.pod.is_ipv4());
        put(family.claims, claim.element());
        let (from, pod, port) = (claim.protocol_and_port(), bytes_of(claim.pod.ip()), port_bytes(claim.pod.port()));
        let data = Some(NftData::Value([&pod[..], &port].concat()));
        let (map, key) = if claim.host.is_unspecified() {
            (family.any, from.to_vec())
        } else {
            (family.addressed, [&bytes_of(claim.host)[..], &from].concat())
        };
        put(map, NftElement { key, data, ..NftElement::default() });
        let to = [&pod[..], &from[..4], &port].concat();
        match claim.masquerade {
            Masquerade::Never => {}
            Masquerade::WhereNeeded => {
                put(family.hairpin, NftElement { key: [&pod[..], &to].concat(), ..NftElement::default() });
            }
            Masquerade::Always => put(family.masquerade, NftElement { key: to, ..NftElement::default() }),
        }
    }
    elements
}
