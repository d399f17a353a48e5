//! Takes rules out again: ours, or those of a kube-proxy.

use super::{
    driver::{Commands, Xtables, XtablesError},
    error,
    listing::Observed,
    names::Table,
    shadow::removal,
};
use crate::dataplane::DataPlaneError;

/// Removes every rule and chain of a kube-proxy in iptables mode, or of this data plane, which has the same names: both
/// families, both variants (kube-proxy.md 14.12). Connections that are translated already live on.
///
/// # Errors
/// The first table that could not be cleaned; the others are.
pub fn remove_kube_proxy_rules() -> Result<(), DataPlaneError> {
    remove_where(Commands::is_in_use)
}

/// Removes our own rules: from variants that carry our mark, so that a kube-proxy beside another data plane keeps its rules.
pub(crate) fn remove_ours() -> Result<(), DataPlaneError> {
    remove_where(Commands::has_ours)
}

fn remove_where(wanted: fn(&Commands) -> bool) -> Result<(), DataPlaneError> {
    let all = match Commands::all() {
        // Nobody can have put rules there.
        Err(XtablesError::Missing) => Vec::new(),
        other => other.map_err(error("look for iptables"))?,
    };
    let results: Vec<_> = all.into_iter().filter(wanted).map(|mut tables| remove(&mut tables)).collect();
    results.into_iter().collect::<Result<(), _>>().map_err(error("remove rules"))
}

/// Removes all of both families in one variant.
pub(crate) fn remove(tables: &mut dyn Xtables) -> Result<(), XtablesError> {
    let mut result = Ok(());
    for family in tables.families() {
        let mut observed = Observed::default();
        let removed = [Table::Filter, Table::Nat, Table::Mangle]
            .into_iter()
            .try_for_each(|table| {
                let into = observed.table(table);
                tables.list(family, table, &mut |line| into.add(line))
            })
            .and_then(|()| tables.run(family, &removal(observed)));
        result = result.and(removed);
    }
    result
}
