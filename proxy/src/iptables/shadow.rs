//! What the tables of one family hold, and the transactions that change it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    cluster_ips::ClusterIps,
    layout::{Layout, is_jump_to_ours},
    listing::{Observed, ObservedTable},
    names::{CLUSTER_IPS_REFUSED, FIREWALL, Table, is_service_chain},
    service::{PortRules, Rules},
    shared::SharedChain,
    transaction::Transaction,
};
use crate::{
    dataplane::Desired,
    model::IpFamily,
    plan::{PlanKey, ServicePortPlan},
};

/// What was last applied. Rules are rendered again from the plans when they are needed: a hundred thousand of them would
/// take more memory than all the rest of the agent.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    layout: Layout,
    ports: BTreeMap<PlanKey, Arc<ServicePortPlan>>,
    /// Of both families.
    node_port_addresses: BTreeSet<IpAddr>,
    cluster_ips: ClusterIps,
}

impl Shadow {
    /// From what is in the kernel: rewrites what is not right, deletes chains of Services that are gone, and leaves all else.
    pub(crate) fn load(layout: Layout, desired: &Desired, mut observed: Observed) -> (Self, Transaction) {
        let of_family = |(key, _): &(&PlanKey, _)| key.family == layout.family;
        let ports: BTreeMap<PlanKey, Arc<ServicePortPlan>> =
            desired.ports.iter().filter(of_family).map(|(key, plan)| (key.clone(), Arc::clone(plan))).collect();
        let cluster_ips = ClusterIps::of(ports.values().map(|plan| &**plan));
        let shadow = Self { layout, ports, node_port_addresses: desired.node_port_addresses.clone(), cluster_ips };
        let mut transaction = Transaction::default();
        for fixed in shadow.layout.fixed_chains() {
            if !observed.table(fixed.table).take(fixed.name, &fixed.rules) {
                transaction.table(fixed.table).rewrite(fixed.name, &fixed.rules);
            }
        }
        for chain in SharedChain::ALL {
            if !observed.table(chain.table()).take(chain.name(), shadow.rules(chain)) {
                transaction.table(chain.table()).rewrite(chain.name(), shadow.rules(chain));
            }
        }
        let refused = || shadow.cluster_ips.refused(&shadow.layout);
        if !observed.table(Table::Filter).take(CLUSTER_IPS_REFUSED, refused()) {
            transaction.table(Table::Filter).rewrite(CLUSTER_IPS_REFUSED, refused());
        }
        for plan in shadow.ports.values() {
            for (name, rules) in PortRules::of(plan, &shadow.layout).chains() {
                if !observed.table(Table::Nat).take(&name, &rules) {
                    transaction.table(Table::Nat).rewrite(&name, &rules);
                }
            }
        }
        for stale in observed.table(Table::Nat).names().into_iter().filter(|name| is_service_chain(name)) {
            transaction.table(Table::Nat).delete(stale);
        }
        ensure_jumps(&mut observed, &mut transaction);
        shadow.ensure_shared_with_kubelet(observed.table(Table::Filter), &mut transaction);
        (shadow, transaction)
    }

    /// Only what the plans of `keys` make different. Keys of the other family are passed over.
    pub(crate) fn update(&mut self, desired: &Desired, keys: &[PlanKey]) -> Transaction {
        let mut transaction = Transaction::default();
        let mut rewritten = BTreeSet::new();
        let (mut cluster_ips, ways_there) = (BTreeMap::new(), self.cluster_ips.jumps());
        for key in keys.iter().filter(|key| key.family == self.layout.family) {
            let (old, new) = (self.ports.get(key).cloned(), desired.ports.get(key).cloned());
            let [was, will] = [&old, &new].map(|plan| plan.as_deref().map(|plan| PortRules::of(plan, &self.layout)));
            change_chains(&mut transaction, &chains(was.as_ref()), &chains(will.as_ref()));
            let differs = |chain: &SharedChain| {
                let rules = |port: Option<&PortRules<'_>>| port.map(|port| chain.rules_of(port)).unwrap_or_default();
                rules(was.as_ref()) != rules(will.as_ref())
            };
            rewritten.extend(SharedChain::ALL.into_iter().filter(differs));
            self.cluster_ips.replace(old.as_deref(), new.as_deref(), &mut cluster_ips);
            match new {
                Some(plan) => self.ports.insert(key.clone(), plan),
                None => self.ports.remove(key),
            };
        }
        let filter = transaction.table(Table::Filter);
        if self.cluster_ips.follow(&cluster_ips, &self.layout, filter) && self.cluster_ips.jumps() != ways_there {
            rewritten.insert(SharedChain::RefusedServices);
        }
        self.rewrite(rewritten, &mut transaction);
        transaction
    }

    /// Only the node-port addresses.
    pub(crate) fn update_node_port_addresses(&mut self, desired: &Desired) -> Transaction {
        let mut transaction = Transaction::default();
        let own = |addresses: &BTreeSet<IpAddr>| {
            let of_family = addresses.iter().filter(|address| IpFamily::of(**address) == self.layout.family);
            of_family.copied().collect::<Vec<_>>()
        };
        let differ = own(&self.node_port_addresses) != own(&desired.node_port_addresses);
        self.node_port_addresses.clone_from(&desired.node_port_addresses);
        if differ {
            self.rewrite([SharedChain::RefusedExternals, SharedChain::Services], &mut transaction);
        }
        transaction
    }

    /// Input for `iptables-restore` that fails if something is missing: the jumps, the fixed rules, and the first rule of
    /// each chain that all Services share. So any flush of a whole table shows.
    pub(crate) fn checks(&self) -> String {
        let mut checks: BTreeMap<Table, String> = BTreeMap::new();
        let mut check = |table, chain: &str, rule: &str| {
            checks.entry(table).or_default().push_str(&format!("-C {chain} {rule}\n"));
        };
        for jump in Layout::jumps() {
            check(jump.table, jump.from, jump.rule);
        }
        for fixed in self.layout.fixed_chains() {
            fixed.rules.iter().for_each(|rule| check(fixed.table, fixed.name, rule));
        }
        for chain in SharedChain::ALL {
            self.rules(chain).take(1).for_each(|rule| check(chain.table(), chain.name(), &rule));
        }
        self.cluster_ips
            .refused(&self.layout)
            .take(1)
            .for_each(|rule| check(Table::Filter, CLUSTER_IPS_REFUSED, &rule));
        for (chain, rule) in self.layout.shared_with_kubelet() {
            check(Table::Filter, chain, &rule);
        }
        checks.into_iter().map(|(table, checks)| format!("*{table}\n{checks}COMMIT\n")).collect()
    }

    pub(crate) fn plan(&self, key: &PlanKey) -> Option<&ServicePortPlan> {
        self.ports.get(key).map(|plan| &**plan)
    }

    fn rules(&self, chain: SharedChain) -> impl Iterator<Item = String> {
        chain.rules(self.ports.values(), &self.node_port_addresses, &self.cluster_ips, &self.layout)
    }

    fn rewrite(&self, chains: impl IntoIterator<Item = SharedChain>, transaction: &mut Transaction) {
        for chain in chains {
            transaction.table(chain.table()).rewrite(chain.name(), self.rules(chain));
        }
    }

    fn ensure_shared_with_kubelet(&self, filter: &ObservedTable, transaction: &mut Transaction) {
        let wanted = self.layout.shared_with_kubelet();
        let change = transaction.table(Table::Filter);
        if !wanted.is_empty() && filter.shared(FIREWALL).is_none() {
            change.declare(FIREWALL);
        }
        for (chain, rule) in wanted {
            let present = filter.shared(chain).is_some_and(|rules| rules.contains(&rule));
            match chain {
                _ if present => {}
                FIREWALL => change.append(chain, &rule),
                _ => change.insert_first(chain, &rule),
            }
        }
    }
}

fn chains(port: Option<&PortRules<'_>>) -> BTreeMap<String, Rules> {
    port.map(PortRules::chains).unwrap_or_default()
}

fn change_chains(transaction: &mut Transaction, was: &BTreeMap<String, Rules>, will: &BTreeMap<String, Rules>) {
    let nat = transaction.table(Table::Nat);
    for (name, rules) in will.iter().filter(|(name, rules)| was.get(*name) != Some(*rules)) {
        nat.rewrite(name, rules);
    }
    for name in was.keys().filter(|name| !will.contains_key(*name)) {
        nat.delete(name);
    }
}

/// Where the jumps of a built-in chain are not exactly ours in our order, all are put in its front anew. Kube-proxy's, which
/// read the same, are taken for ours.
fn ensure_jumps(observed: &mut Observed, transaction: &mut Transaction) {
    let mut wanted: BTreeMap<(Table, &str), Vec<&str>> = BTreeMap::new();
    for jump in Layout::jumps() {
        wanted.entry((jump.table, jump.from)).or_default().push(jump.rule);
    }
    for ((table, from), wanted) in wanted {
        let rules = observed.table(table).shared(from).unwrap_or_default();
        let present: Vec<&str> = rules.iter().map(String::as_str).filter(|rule| is_jump_to_ours(rule)).collect();
        if present != wanted {
            let change = transaction.table(table);
            present.iter().for_each(|rule| change.remove(from, rule));
            wanted.iter().rev().for_each(|rule| change.insert_first(from, rule));
        }
    }
}

/// Removes every chain of ours or of a kube-proxy, and the jumps to them. KUBE-FIREWALL stays: kubelet needs it (14.12).
pub(crate) fn removal(mut observed: Observed) -> Transaction {
    let mut transaction = Transaction::default();
    for table in Table::ALL {
        let (observed, change) = (observed.table(table), transaction.table(table));
        for (chain, rules) in observed.all_shared() {
            rules.iter().filter(|rule| is_jump_to_ours(rule)).for_each(|rule| change.remove(chain, rule));
        }
        observed.names().into_iter().for_each(|name| change.delete(name));
    }
    transaction
}
