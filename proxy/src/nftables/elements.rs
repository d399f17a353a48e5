//! Which elements an entry needs.

use std::net::SocketAddr;

use ipnetwork::IpNetwork;

use super::{
    affinity::Numbers,
    buckets::Buckets,
    collection::Stage,
    element::{Element, FixedChain, Value},
    entries::{Entry, disjoint},
    plan::Elements,
    pool::{Chain, List, MapKind, Pool},
};
use crate::plan::{Endpoint, Outcome, PlanKey};

/// The entries of one Service port on their way into the table.
pub(crate) struct Writer<'a> {
    pub(crate) key: &'a PlanKey,
    pub(crate) buckets: &'a Buckets,
    pub(crate) numbers: &'a Numbers,
    pub(crate) source_ranges: &'a [IpNetwork],
}

impl Writer<'_> {
    pub(crate) fn collect(&self, entry: &Entry, elements: &mut Elements) {
        let target = entry.target;
        let mut next = self.balance(entry, elements);
        if entry.guarded {
            let allowed = disjoint(self.source_ranges).into_iter().map(|from| Element::Allowed { target, from });
            elements.extend(allowed.map(|element| (element, Value::Present)));
            if let Some(next) = &mut next {
                elements.insert(Element::Dispatch { stage: Stage::Admitted, target }, *next);
                *next = Value::Fixed(FixedChain::Guard(target.family()));
            }
        }
        elements.extend(next.map(|next| (Element::Dispatch { stage: Stage::First, target }, next)));
        elements.extend(refusal(entry).map(|refusal| (Element::Refusal(target), refusal)));
    }

    /// The endpoints of an entry; returns where packets to it go once their source is known to be admitted.
    fn balance(&self, entry: &Entry, elements: &mut Elements) -> Option<Value> {
        let target = entry.target;
        let [main, node] = [List::Main, List::Node].map(|list| {
            let (pool, endpoints) = entry.balanced(list)?;
            self.collect_endpoints(entry, pool, endpoints, elements);
            let chain = self.chain(pool);
            Some(Value::Chain(chain))
        });
        let Some(from_node) = &entry.from_node else { return main };
        let node = if *from_node == entry.outcome { main } else { node };
        let stages = [(Stage::Outside, main), (Stage::Node, node)];
        let stages =
            stages.into_iter().filter_map(|(stage, value)| Some((Element::Dispatch { stage, target }, value?)));
        elements.extend(stages);
        main.or(node).map(|_| Value::Fixed(FixedChain::BySource(target.family())))
    }

    fn collect_endpoints(&self, entry: &Entry, pool: Pool, endpoints: &[Endpoint], elements: &mut Elements) {
        let target = entry.target;
        elements.extend(self.endpoints(entry, pool, endpoints).map(|(element, e)| (element, Value::Endpoint(at(e)))));
        if pool.affinity.is_none() {
            return;
        }
        let number = self.numbers.of_port(self.key).expect("without a number there is no affinity");
        elements.insert(Element::AffinityPort(target), Value::Number(number));
        let map = self.chain(pool).map(MapKind::Choices);
        elements.extend(
            (0..).zip(endpoints).map(|(slot, endpoint)| {
                (Element::Endpoint { map, target, slot }, Value::Number(self.number(endpoint)))
            }),
        );
    }

    /// The elements that lead to the endpoints of one list.
    pub(crate) fn endpoints<'e>(
        &self,
        entry: &Entry,
        pool: Pool,
        endpoints: &'e [Endpoint],
    ) -> impl Iterator<Item = (Element, &'e Endpoint)> {
        let (map, target) = (self.chain(pool).endpoints(), entry.target);
        (0..).zip(endpoints).map(move |(slot, endpoint)| {
            let slot = if pool.affinity.is_some() { self.number(endpoint) } else { slot };
            (Element::Endpoint { map, target, slot }, endpoint)
        })
    }

    fn chain(&self, pool: Pool) -> Chain {
        self.buckets.get(self.key, pool).expect("chains were taken for this key")
    }

    fn number(&self, endpoint: &Endpoint) -> u32 {
        self.numbers.of_endpoint(self.key, at(endpoint)).expect("all endpoints of the plan have numbers")
    }
}

/// What happens to packets that no endpoint was found for: only where some clients have none.
fn refusal(entry: &Entry) -> Option<Value> {
    let outcomes = [Some(&entry.outcome), entry.from_node.as_ref()];
    let refusing = outcomes.into_iter().flatten().find(|outcome| outcome.endpoints().is_empty())?;
    Some(match refusing {
        Outcome::Drop => Value::Drop,
        // 9.8: those outside the source ranges are not told that there is nothing.
        _ if entry.guarded => Value::Fixed(FixedChain::RefuseGuarded(entry.target.family())),
        _ => Value::Fixed(FixedChain::Refuse),
    })
}

pub(crate) fn at(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port)
}
