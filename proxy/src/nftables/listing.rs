//! Reads back our table by netlink: `nft` would take seconds and hundreds of megabytes for 100,000 elements.

use std::collections::{BTreeMap, BTreeSet};

use weft_netlink::NftQuery;

use super::{
    collection::Collection,
    plan::Content,
    pool::Chain,
    rules,
    ruleset::{self, TABLE_NAME},
    shadow::Observed,
    table::Table,
    wire,
};
use crate::plan::PacketSettings;

/// What there is of us in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Our table.
    pub(crate) table: Observed,
    /// Whether the stand-in is there, as it is when an agent was killed while it built our table anew.
    pub(crate) stand_in: bool,
}

/// Reads it.
///
/// # Errors
/// As [`NftQuery`] says.
pub(crate) fn observe(query: &mut NftQuery, settings: &PacketSettings) -> weft_netlink::Result<Seen> {
    let stand_in = query.tables()?.contains(&Table::StandIn.to_string());
    Ok(Seen { table: observe_ours(query, settings)?, stand_in })
}

fn observe_ours(query: &mut NftQuery, settings: &PacketSettings) -> weft_netlink::Result<Observed> {
    let chains = query.chains(TABLE_NAME)?;
    if chains.get(ruleset::ENTRANCE.0).is_none_or(|rules| *rules == 0) {
        // No table, or one that does nothing for anybody.
        return Ok(Observed::Nothing);
    }
    let names = query.sets(TABLE_NAME)?;
    // The maps that stand in rules have names from the kernel.
    let named = names.iter().filter(|name| !name.starts_with("__"));
    let collections: Option<Vec<_>> = named.map(|name| Collection::parse(name)).collect();
    let (Some(collections), Some(chains)) = (collections, chains_of_ours(chains, settings)) else {
        return Ok(Observed::Foreign);
    };
    if !Collection::fixed().all(|fixed| collections.contains(&fixed)) {
        return Ok(Observed::Foreign);
    }
    let mut content = Content { chains, ..Content::default() };
    for collection in collections {
        match collection {
            Collection::Affinity(_) => continue,
            Collection::Endpoints(map) => drop(content.maps.insert(map)),
            _ => {}
        }
        for element in query.elements(TABLE_NAME, &collection.to_string())? {
            let Some((element, value)) = element.and_then(|element| wire::decode(collection, &element)) else {
                return Ok(Observed::Foreign);
            };
            content.elements.insert(element, value);
        }
    }
    Ok(Observed::Ours(content))
}

/// The round-robin chains, if all others are those of the static part, each with its number of rules.
fn chains_of_ours(mut chains: BTreeMap<String, usize>, settings: &PacketSettings) -> Option<BTreeSet<Chain>> {
    for chain in ruleset::static_chains(settings) {
        chains.remove(&chain.name).filter(|rules| *rules == chain.rules.len())?;
    }
    chains.remove(&ruleset::layout_mark(settings)).filter(|rules| *rules == 0)?;
    let round_robin = |(name, count): (String, usize)| {
        Chain::parse(&name).filter(|chain| rules::chain_rules(settings, *chain).len() == count)
    };
    chains.into_iter().map(round_robin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_put_there_or_took_away_makes_the_table_not_ours() {
        let settings = PacketSettings::default();
        let chains = ruleset::static_chains(&settings).into_iter().map(|chain| (chain.name, chain.rules.len()));
        let ours: BTreeMap<String, usize> = chains.chain([(ruleset::layout_mark(&settings), 0)]).collect();
        assert_eq!(chains_of_ours(ours.clone(), &settings).map(|chains| chains.len()), Some(0));
        let with = |name: &str, rules| ours.clone().into_iter().chain([(name.to_owned(), rules)]).collect();
        assert_eq!(chains_of_ours(with("rr4-tcp-2-0", 1), &settings).map(|chains| chains.len()), Some(1));
        for (name, rules) in [("mine", 0), ("nat-prerouting", 2), ("rr4-tcp-2-0", 0), ("rr4-tcp-2-0-masq", 1)] {
            assert_eq!(chains_of_ours(with(name, rules), &settings), None, "{name}");
        }
        let without: BTreeMap<_, _> = ours.clone().into_iter().filter(|(name, _)| name != "filter-input").collect();
        assert_eq!(chains_of_ours(without, &settings), None);
        let other = PacketSettings { masquerade_bit: 3, ..settings };
        assert_eq!(chains_of_ours(ours, &other), None, "other settings are another layout");
    }
}
