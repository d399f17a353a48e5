//! Takes rules out again: ours, or those of a kube-proxy.

use std::path::Path;

use super::{
    driver::{Commands, Xtables, wait_for_others},
    error,
    failure::XtablesError,
    listing::Observed,
    names::Table,
    shadow::removal,
    variant::Variant,
};
use crate::{dataplane::DataPlaneError, model::IpFamily};

/// The variants in which a kube-proxy has rules.
///
/// # Errors
/// The programs cannot be run.
pub fn kube_proxy_variants() -> Result<Vec<Variant>, DataPlaneError> {
    let all = installed().map_err(error("look for iptables"))?;
    Ok(all.into_iter().filter(Commands::has_kube_proxy).map(|commands| commands.variant()).collect())
}

/// Removes every rule and chain of a kube-proxy in iptables mode: both families, both variants (kube-proxy.md 14.12). kubelet's
/// chains stay (12.7). In a variant that this data plane uses, its chains have the same names and stay too; only what it does
/// not use goes. Connections that are translated already live on.
///
/// # Errors
/// The first table that could not be cleaned; the others are.
pub fn remove_kube_proxy_rules() -> Result<(), DataPlaneError> {
    remove_where(Commands::has_kube_proxy, |commands| match commands.has_ours() {
        true => &[Table::Mangle],
        false => &Table::ALL,
    })
}

/// Removes our own rules: from variants that carry our mark, so that a kube-proxy beside another data plane keeps its rules.
pub(crate) fn remove_ours() -> Result<(), DataPlaneError> {
    remove_where(Commands::has_ours, |_| &Table::ALL)
}

fn remove_where(
    wanted: fn(&Commands) -> bool,
    of_them: fn(&Commands) -> &'static [Table],
) -> Result<(), DataPlaneError> {
    wait_for_others().map_err(error("look for iptables"))?;
    let wanted = installed().map_err(error("look for iptables"))?.into_iter().filter(wanted);
    let results: Vec<_> = wanted
        .map(|mut commands| {
            let tables = of_them(&commands);
            remove_from(&mut commands, tables)
        })
        .collect();
    results.into_iter().collect::<Result<(), _>>().map_err(error("remove rules"))
}

fn installed() -> Result<Vec<Commands>, XtablesError> {
    match Commands::all() {
        // Nobody can have put rules there.
        Err(XtablesError::Missing) => Ok(Vec::new()),
        other => other,
    }
}

/// Removes all of both families in one variant.
pub(crate) fn remove(commands: &mut dyn Xtables) -> Result<(), XtablesError> {
    remove_from(commands, &Table::ALL)
}

fn remove_from(commands: &mut dyn Xtables, tables: &[Table]) -> Result<(), XtablesError> {
    let mut result = Ok(());
    for family in commands.families() {
        let mut observed = Observed::default();
        let mut there = tables.iter().filter(|table| !commands.replaces_tables() || is_loaded(family, **table));
        let removed = there.try_for_each(|table| {
            let into = observed.table(*table);
            commands.list(family, *table, &mut |line| into.add(line))
        });
        result = result.and(removed.and_then(|()| commands.run(family, &removal(observed))));
    }
    result
}

/// Whether a legacy table exists: looking at it would make it, and then it costs every packet. Where that cannot be told, it may.
fn is_loaded(family: IpFamily, table: Table) -> bool {
    let names = match family {
        IpFamily::V4 => "ip_tables_names",
        IpFamily::V6 => "ip6_tables_names",
    };
    let listed = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(names));
    // Without the file there is no legacy table of this family at all.
    listed.is_ok_and(|listed| listed.lines().any(|name| name == table.to_string()))
}
