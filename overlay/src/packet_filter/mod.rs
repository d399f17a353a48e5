//! The node's packet rules for pods: masquerading, the permission to be forwarded, and the conntrack bypass.
//!
//! | what | nftables | iptables |
//! |---|---|---|
//! | masquerading | chain of `inet weft-overlay` | FLANNEL-POSTRTG |
//! | forwarding | needs nothing | FLANNEL-FWD |
//! | conntrack bypass | chains of `inet weft-overlay` | (the same, if there is nft) |
//!
//! * `EnableNFTables` chooses, as far as the host has the program; without the field nftables is preferred.
//! * An nftables table cannot overrule the DROP of another one, only that one's own rules can. So FLANNEL-FWD is there in both
//!   modes as soon as iptables filters forwarded packets: docker sets the policy to DROP, firewalls add rules. firewalld's own
//!   nftables table cannot be helped from outside; the pod network must be added to its trusted zone.
//! * Whatever is switched on comes first and what is switched off goes last, so that there is no moment without rules.
//! * Changes by others are told by nftables' own notices (which iptables-nft causes too) and repaired within a second; while
//!   nothing is told, no program is run. The old iptables interface has no notices: where it has tables, they are looked at
//!   every 5 s.

mod chain;
mod command;
mod iptables;
mod looks;
mod nftables;
mod rules;
mod table_text;

use std::{collections::BTreeSet, time::Instant};

use tracing::info;
use weft_netlink::NftChange;

pub use self::rules::ConntrackBypass;
use self::{
    chain::Chain,
    command::is_installed,
    iptables::{Forwarding, Iptables, Program},
    looks::Looks,
    nftables::Table,
    table_text::TableRules,
};
pub(crate) use self::{
    command::FilterError,
    rules::{FilterRules, Manager, PodNetworks},
};
use crate::family::Family;

/// Whether a change may be about us: of our own table; of the chains that our iptables rules are in or jump from, and not of
/// kube-proxy's beside them, which may change many times a second; or a base chain of somebody who may judge by conntrack's
/// state what is forwarded.
pub(crate) fn concerns(change: &NftChange<'_>) -> bool {
    let Some(chain) = change.chain else { return [table_text::TABLE_NAME, "filter", "nat"].contains(&change.table) };
    change.table == table_text::TABLE_NAME
        || Chain::ALL.iter().any(|ours| ours.table() == change.table && [ours.hook(), ours.name()].contains(&chain))
        || (change.is_base && !nftables::is_known(change.table))
}

/// Our packet rules as they were last seen to be.
#[derive(Debug, Default)]
pub(crate) struct PacketFilter {
    /// What was asked for and done.
    done: Option<FilterRules>,
    manager: Option<Manager>,
    bypass: bool,
    table: Table,
    iptables: Option<Iptables>,
    /// Whether changes are told by notices.
    pub(crate) watched: bool,
    looks: Looks,
    /// FLANNEL-FWD was put first there once.
    placed: BTreeSet<Program>,
}

impl PacketFilter {
    /// With what masquerading is done, once that is so.
    pub(crate) fn manager(&self) -> Option<Manager> {
        self.manager.filter(|_| self.done.as_ref().is_some_and(|done| done.masquerade))
    }

    /// Whether the conntrack bypass is in place.
    pub(crate) fn bypasses_conntrack(&self) -> bool {
        self.bypass && self.done.is_some()
    }

    /// Somebody changed a table that ours are in, or we did.
    pub(crate) fn note_disturbance(&mut self) {
        self.looks.note();
    }

    /// Whether somebody may have changed the rules, so that [`PacketFilter::ensure`] should look.
    pub(crate) fn must_look(&self, now: Instant) -> bool {
        self.looks.is_due(now, || self.iptables.is_some_and(|iptables| iptables.must_poll()))
    }

    /// When to look at what was told of.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.looks.next()
    }

    /// Makes the rules be as asked for; true if they were not. With `verify` it looks whether what was written is still there.
    ///
    /// # Errors
    /// [`FilterError`]; what was in place stays.
    pub(crate) fn ensure(&mut self, rules: &FilterRules, verify: bool, now: Instant) -> Result<bool, FilterError> {
        if !verify && self.done.as_ref() == Some(rules) {
            return Ok(false);
        }
        let first = self.done.as_ref() != Some(rules);
        self.looks.begin(now);
        self.done = None;
        if first {
            self.iptables = Iptables::find();
        }
        let manager = self.choose(rules)?;
        let changed = self.put(rules, manager, first)?;
        if changed {
            self.looks.wrote();
        }
        if self.manager != Some(manager) && rules.masquerade {
            info!(manager = manager.name(), "masquerading");
        }
        (self.manager, self.done) = (Some(manager), Some(rules.clone()));
        Ok(changed)
    }

    fn choose(&self, rules: &FilterRules) -> Result<Manager, FilterError> {
        let has_nft = is_installed("nft");
        match (rules.nftables, self.iptables) {
            (Some(false), Some(_)) => Ok(Manager::Iptables),
            _ if has_nft => Ok(Manager::Nftables),
            (_, Some(_)) => Ok(Manager::Iptables),
            _ if !rules.masquerade => Ok(Manager::Nftables),
            _ => Err(FilterError::Missing { what: "--ip-masq", program: "nft or iptables" }),
        }
    }

    fn put(&mut self, rules: &FilterRules, manager: Manager, first: bool) -> Result<bool, FilterError> {
        let mut changed = false;
        let mut tracked = false;
        // New before old: the table of the other manager goes only when the chains are there, and the other way round.
        if manager == Manager::Iptables {
            (changed, tracked) = self.put_chains(rules, manager, first)?;
        }
        self.bypass = self.wants_bypass(rules, tracked)?;
        let table = TableRules {
            networks: rules.networks.clone(),
            masquerade: rules.masquerade && manager == Manager::Nftables,
            bypass: self.bypass,
        };
        if table.masquerade || table.bypass {
            changed |= self.table.ensure(&table)?;
        } else if first && is_installed("nft") {
            changed |= self.table.remove()?;
        }
        if manager == Manager::Nftables {
            let (chains_changed, tracked) = self.put_chains(rules, manager, first)?;
            changed |= chains_changed;
            if tracked && self.bypass && rules.bypass == ConntrackBypass::Auto {
                self.bypass = false;
                changed |= self.table.ensure(&TableRules { bypass: false, ..table })?;
            }
        }
        if first && is_installed("nft") {
            changed |= nftables::remove_flannels()?;
        }
        Ok(changed)
    }

    fn wants_bypass(&self, rules: &FilterRules, tracked: bool) -> Result<bool, FilterError> {
        let has_nft = is_installed("nft");
        match rules.bypass {
            ConntrackBypass::Off => Ok(false),
            ConntrackBypass::On if has_nft => Ok(true),
            ConntrackBypass::On => Err(FilterError::Missing { what: "--conntrack-bypass=on", program: "nft" }),
            ConntrackBypass::Auto => Ok(has_nft && !tracked && !nftables::others_track()?),
        }
    }

    /// The chains of all programs and both families; also whether somebody judges forwarded packets by conntrack's state.
    fn put_chains(&mut self, rules: &FilterRules, manager: Manager, first: bool) -> Result<(bool, bool), FilterError> {
        let Some(iptables) = self.iptables else { return Ok((false, false)) };
        let (mut changed, mut tracked) = (false, false);
        for family in Family::ALL {
            let networks = rules.networks.iter().find(|networks| Family::of(networks.network.ip()) == family);
            let own = (manager == Manager::Iptables && networks.is_some()).then(|| iptables.standard(family));
            let mut programs = iptables.in_use(family);
            if let Some(own) = own.filter(|own| !programs.contains(own)) {
                programs.push(own);
            }
            for program in programs {
                let forwarding = if rules.forward || rules.bypass == ConntrackBypass::Auto {
                    program.forwarding()?
                } else {
                    Forwarding::default()
                };
                tracked |= forwarding.tracked;
                for chain in Chain::ALL {
                    let wanted = networks.filter(|_| match chain {
                        Chain::Forward => rules.forward && (own == Some(program) || forwarding.filtered),
                        Chain::Masquerade => rules.masquerade && own == Some(program),
                    });
                    changed |= self.put_chain(program, chain, wanted, first)?;
                }
            }
        }
        Ok((changed, tracked))
    }

    fn put_chain(
        &mut self,
        program: Program,
        chain: Chain,
        wanted: Option<&PodNetworks>,
        first: bool,
    ) -> Result<bool, FilterError> {
        match wanted {
            Some(networks) => {
                let move_up = chain == Chain::Forward && self.placed.insert(program);
                program.ensure(chain, networks, move_up)
            }
            // Later nobody but us makes them.
            None if first => program.remove(chain),
            None => Ok(false),
        }
    }
}

/// Removes all our packet rules, and those of a flannel that ran here before; what was there.
///
/// # Errors
/// [`FilterError`], the first; without the programs there can be none of ours.
pub(crate) fn remove() -> Result<Vec<String>, FilterError> {
    let mut removed = Vec::new();
    if is_installed("nft") {
        removed.extend(Table::default().remove()?.then(|| "table inet weft-overlay".to_owned()));
        removed.extend(nftables::remove_flannels()?.then(|| "flannel's nftables tables".to_owned()));
    }
    if let Some(iptables) = Iptables::find() {
        for family in Family::ALL {
            for program in iptables.in_use(family) {
                for chain in Chain::ALL {
                    removed.extend(program.remove(chain)?.then(|| format!("{family} chain {}", chain.name())));
                }
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_others_do_not_concern_us() {
        for (table, chain, is_base, ours) in [
            ("weft-overlay", None, false, true),
            ("weft-overlay", Some("postrouting"), true, true),
            ("filter", None, false, true),
            ("filter", Some("FORWARD"), false, true),
            ("filter", Some("FLANNEL-FWD"), false, true),
            ("nat", Some("POSTROUTING"), true, true),
            ("nat", Some("FORWARD"), false, false),
            ("filter", Some("KUBE-SERVICES"), false, false),
            ("nat", Some("KUBE-SEP-ABC"), false, false),
            ("kube-proxy", Some("services"), true, false),
            ("kube-proxy", None, false, false),
            ("weft", Some("prerouting"), true, true),
            ("weft-services", Some("prerouting"), true, false),
            ("firewall", Some("forward"), true, true),
            ("firewall", Some("allowed"), false, false),
        ] {
            assert_eq!(concerns(&NftChange { table, chain, is_base }), ours, "{table} {chain:?} {is_base}");
        }
    }
}
