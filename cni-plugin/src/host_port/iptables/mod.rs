//! Host ports where the kernel has no nftables, or where the configuration says so: chains of our own in iptables' table nat.
//!
//! Rules carry the same comments as elements of our nftables table, so DEL and GC find them. One rule a mapping: iptables has no
//! maps, so here a new connection to the node is compared with every host port.

mod ledger;
mod programs;
mod tables;

use std::path::Path;

use self::{ledger::Ledger, programs::Programs};
use super::claim::{Claim, Holder};
use crate::{
    config::Config,
    error::{Code, Error},
    teardown::Teardown,
};

/// Adds claims in front of those that are there: the later pod wins.
pub(super) fn add(config: &Config, claims: &[Claim]) -> Result<(), Error> {
    let mut ledger = Ledger::open(&config.data_dir)?;
    for (v4, claims) in by_family(claims.iter()) {
        let programs = ledger.of_family(v4).cloned().map_or_else(|| Programs::choose(v4), Ok)?;
        let present = programs.tables()?;
        // Rules that are not noted would not be looked for.
        ledger.note(&programs)?;
        programs.restore(&present.additions(v4, &claims))?;
    }
    Ok(())
}

/// Removes the claims of some holders and returns them; with the last one the chains go too.
pub(super) fn remove(config: &Config, whose: &dyn Fn(&Holder) -> bool) -> Result<Vec<Claim>, Error> {
    // Looking at rules would cost milliseconds of every DEL.
    let Some(mut ledger) = Ledger::open_noted(&config.data_dir)? else { return Ok(Vec::new()) };
    let (mut removed, mut kept, mut teardown) = (Vec::new(), 0, Teardown::default());
    for programs in ledger.programs() {
        let removal = programs.tables().map(|tables| tables.removal(whose));
        teardown.step(removal.and_then(|removal| {
            kept += removal.kept;
            removed.extend(removal.claims);
            programs.restore(&removal.input)
        }));
    }
    teardown.finish()?;
    if kept == 0 {
        ledger.clear()?;
    }
    Ok(removed)
}

/// Adds those of the claims that are missing, in their order, and the way to them. Returns how many were missing.
pub(super) fn restore(data_dir: &Path, claims: &[&Claim]) -> Result<usize, Error> {
    let (mut ledger, mut missing) = (Ledger::open(data_dir)?, 0);
    for (v4, claims) in by_family(claims.iter().copied()) {
        let programs = ledger.of_family(v4).cloned().map_or_else(|| Programs::choose(v4), Ok)?;
        let present = programs.tables()?;
        let lacks = |claim: &&Claim| !present.claims().any(|found| found.equals(claim));
        let absent: Vec<_> = claims.into_iter().filter(lacks).collect();
        ledger.note(&programs)?;
        programs.restore(&present.additions(v4, &absent))?;
        missing += absent.len();
    }
    Ok(missing)
}

/// All claims there are.
pub(super) fn claims(data_dir: &Path) -> Result<Vec<Claim>, Error> {
    let Some(ledger) = Ledger::open_noted(data_dir)? else { return Ok(Vec::new()) };
    let mut claims = Vec::new();
    for programs in ledger.programs() {
        claims.extend(programs.tables()?.claims());
    }
    Ok(claims)
}

/// Fails unless the rules of the claims are there, and the way to them.
pub(super) fn check(config: &Config, claims: &[Claim]) -> Result<(), Error> {
    let lacks = |what: &str| Err(Error::new(Code::NotAsMade, format!("iptables has no rule {what}")));
    let ledger = Ledger::open_noted(&config.data_dir)?;
    for (v4, claims) in by_family(claims.iter()) {
        let programs = ledger.as_ref().and_then(|ledger| ledger.of_family(v4));
        let present = programs.map(Programs::tables).transpose()?.unwrap_or_default();
        if let Some(rule) = present.lacks(v4) {
            return lacks(rule);
        }
        let is_missing = |wanted: &&&Claim| !present.claims().any(|found| found.equals(wanted));
        if let Some(missing) = claims.iter().find(is_missing) {
            return lacks(&format!("that leads host port {} to {}", missing.port(), missing.pod));
        }
    }
    Ok(())
}

/// Whether iptables can be run.
pub(super) fn status() -> Result<(), Error> {
    Programs::choose(true)?.tables().map(drop)
}

/// The families that are asked for, IPv4 first.
fn by_family<'a>(claims: impl Iterator<Item = &'a Claim>) -> impl Iterator<Item = (bool, Vec<&'a Claim>)> {
    let (v4, v6): (Vec<_>, Vec<_>) = claims.partition(|claim| claim.pod.is_ipv4());
    [(true, v4), (false, v6)].into_iter().filter(|(_, claims)| !claims.is_empty())
}
