//! What our table would do with a packet, read from the elements that are in it now.
//!
//! Goes the way `ruleset` draws: dispatch, guard, source, round-robin chain; then the refusals. One netlink request an element.

use std::net::SocketAddr;

use weft_netlink::{NftElement, NftQuery};

use super::{
    affinity,
    collection::{Collection, Stage},
    driver::NftError,
    element::{Element, FixedChain, Value},
    error,
    pool::{Chain, EndpointMap, MapKind, Masquerade},
    rules,
    ruleset::{ENTRANCE, TABLE, TABLE_NAME},
    target::Target,
    wire,
};
use crate::{
    dataplane::DataPlaneError,
    live::{Live, Next, NextReason, Probe, Verdict},
    plan::PacketSettings,
};

/// Reads the table of the calling thread's network namespace for each probe. `settings` are those of the data plane: what is
/// in the rules' text and not in elements. Beside a socket plane that is without NodePorts at localhost.
///
/// # Errors
/// The kernel could not be asked.
pub fn live(settings: &PacketSettings, probes: &[Probe]) -> Result<Vec<Live>, DataPlaneError> {
    let read = || -> Result<Vec<Live>, NftError> {
        let mut query = NftQuery::open()?;
        probes.iter().map(|probe| Reader { query: &mut query, settings, probe, live: Live::new() }.read()).collect()
    };
    read().map_err(error("read"))
}

struct Reader<'a> {
    query: &'a mut NftQuery,
    settings: &'a PacketSettings,
    probe: &'a Probe,
    live: Live,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Live, NftError> {
        let entrance = if self.probe.client.interface.is_some() { ENTRANCE.0 } else { "nat-output" };
        if self.query.rules(TABLE_NAME, entrance)? == 0 {
            self.live.problem(format!("chain {entrance} of {TABLE} is not there, or has no rule"));
            return Ok(self.live);
        }
        match self.look_up(Stage::First)? {
            Some((target, value)) => self.follow(target, value)?,
            None => self.live.step("services, nodeports: nothing"),
        }
        if self.live.verdict == Verdict::Untouched {
            self.refuse()?;
        }
        Ok(self.live)
    }

    /// The verdict maps of a stage: an address and port of a Service beats a NodePort of the same number.
    fn look_up(&mut self, stage: Stage) -> Result<Option<(Target, Value)>, NftError> {
        for target in self.targets()? {
            if let Some(value) = self.value(Element::Dispatch { stage, target })? {
                return Ok(Some((target, value)));
            }
        }
        Ok(None)
    }

    fn targets(&mut self) -> Result<Vec<Target>, NftError> {
        let mut targets = vec![self.vip()];
        // In output 127.0.0.0/8 has a rule of its own (6.6).
        let at_localhost = self.probe.client.interface.is_none()
            && self.settings.localhost_node_ports
            && self.probe.destination.is_ipv4()
            && self.probe.destination.ip().is_loopback();
        let node_port = self.node_port()?;
        targets.extend(if at_localhost { Some(self.node_port_target()) } else { node_port });
        Ok(targets)
    }

    fn vip(&self) -> Target {
        let Probe { destination, protocol, .. } = *self.probe;
        Target::Vip { address: destination.ip(), protocol, port: destination.port() }
    }

    fn node_port(&mut self) -> Result<Option<Target>, NftError> {
        let is_of_node = self.value(Element::NodePortAddress(self.probe.destination.ip()))?.is_some();
        Ok(is_of_node.then_some(self.node_port_target()))
    }

    fn node_port_target(&self) -> Target {
        let Probe { destination, protocol, .. } = *self.probe;
        Target::NodePort { family: self.probe.family(), protocol, port: destination.port() }
    }

    fn follow(&mut self, target: Target, value: Value) -> Result<(), NftError> {
        let stage = match value {
            Value::Chain(chain) => return self.balance(target, chain),
            Value::Fixed(FixedChain::Guard(_)) => {
                if !self.is_allowed(target)? {
                    self.live.verdict = Verdict::Drop;
                    return Ok(());
                }
                Stage::Admitted
            }
            Value::Fixed(FixedChain::BySource(_)) => self.by_source(),
            other => {
                self.live.problem(format!("{target} maps to {other}, which is no way to an endpoint"));
                return Ok(());
            }
        };
        // The guard looks only at addresses; the others at NodePorts too.
        match self.look_up(stage)? {
            Some((target, value)) => self.follow(target, value),
            None => {
                self.live.step(format!("{}: nothing", Collection::Dispatch(stage, target.class(), target.family())));
                Ok(())
            }
        }
    }

    fn is_allowed(&mut self, target: Target) -> Result<bool, NftError> {
        let from = self.probe.client.address;
        let key = wire::allowed_key(target, from);
        let set = Collection::Allowed(target.family()).to_string();
        let found = self.query.element(TABLE_NAME, &set, &key)?.is_some();
        self.live.step(format!("{set} {target} . {from}: {}", if found { "admitted" } else { "not admitted" }));
        Ok(found)
    }

    fn by_source(&mut self) -> Stage {
        if is_local(self.settings, self.probe) {
            self.live.step("source: local traffic");
            Stage::Node
        } else if self.probe.client.of_node {
            self.live.step("source: an address of this node, masqueraded");
            self.live.masquerade = true;
            Stage::Node
        } else {
            self.live.step("source: from outside");
            Stage::Outside
        }
    }

    fn balance(&mut self, target: Target, chain: Chain) -> Result<(), NftError> {
        let pool = chain.pool;
        let expected = rules::chain_rules(self.settings, chain).len();
        let found = self.query.rules(TABLE_NAME, &chain.to_string())?;
        if found != expected {
            self.live.problem(format!("chain {chain} of {TABLE} has {found} rules instead of {expected}"));
        }
        self.live.masquerade |= match pool.masquerade {
            Masquerade::Never => false,
            Masquerade::Always => true,
            Masquerade::UnlessLocal => {
                self.settings.local_traffic.tells(self.probe.family()) && !is_local(self.settings, self.probe)
            }
        };
        let endpoints = self.endpoints_in_turn(target, chain)?;
        self.live.step(format!("{chain}: {} endpoints in turn", endpoints.len()));
        let kept = if pool.affinity.is_some() { self.kept(target, chain.endpoints())? } else { None };
        self.live.next = kept.or(match endpoints[..] {
            [endpoint] => Some(Next { endpoint, reason: NextReason::Only }),
            _ => None,
        });
        self.hairpin(&endpoints)?;
        self.live.lead_to(endpoints);
        Ok(())
    }

    fn endpoints_in_turn(&mut self, target: Target, chain: Chain) -> Result<Vec<SocketAddr>, NftError> {
        let (map, count) = (chain.endpoints(), chain.pool.count);
        let mut endpoints = Vec::new();
        for slot in 0..count {
            let number = match chain.pool.affinity {
                None => Some(slot),
                Some(_) => self.number(Element::Endpoint { map: chain.map(MapKind::Choices), target, slot })?,
            };
            let endpoint = number.map(|number| self.endpoint(map, target, number)).transpose()?.flatten();
            match endpoint {
                Some(endpoint) => endpoints.push(endpoint),
                None => {
                    self.live.problem(format!("{map} of {TABLE} has no element {slot} of {count} for {target}"));
                }
            }
        }
        Ok(endpoints)
    }

    /// A client that may be given itself needs its element, or its answers would not come back.
    fn hairpin(&mut self, endpoints: &[SocketAddr]) -> Result<(), NftError> {
        let client = self.probe.client.address;
        let itself = endpoints.iter().any(|endpoint| endpoint.ip() == client);
        if itself && self.value(Element::Hairpin(client))?.is_none() {
            self.live.problem(format!("hairpin of {TABLE} has no element {client} . {client}"));
        }
        Ok(())
    }

    fn kept(&mut self, target: Target, endpoints: EndpointMap) -> Result<Option<Next>, NftError> {
        let Some(port) = self.number(Element::AffinityPort(target))? else {
            self.live.problem(format!("{target} has no number for session affinity in {TABLE}"));
            return Ok(None);
        };
        let family = self.probe.family();
        let key = affinity::record_key(self.probe.client.address, port);
        let set = Collection::Affinity(family).to_string();
        let Some(number) = self.query.element(TABLE_NAME, &set, &key)?.as_ref().and_then(wire::number) else {
            self.live.step(format!("{set}: no record of this client"));
            return Ok(None);
        };
        let endpoint = self.endpoint(endpoints, target, number)?;
        self.live.step(format!("{set}: this client had number {number:#x}"));
        Ok(endpoint.map(|endpoint| Next { endpoint, reason: NextReason::Affinity { left: None } }))
    }

    /// The filter chains, where nothing has translated the packet.
    fn refuse(&mut self) -> Result<(), NftError> {
        let (from_node, to_node) = (self.probe.client.interface.is_none(), self.probe.to_node);
        let mut refusal = None;
        if to_node && let Some(target) = self.node_port()? {
            refusal = self.value(Element::Refusal(target))?.map(|value| (target, value));
        }
        if refusal.is_none() {
            let target = self.vip();
            refusal = self.value(Element::Refusal(target))?.map(|value| (target, value));
        }
        let destination = self.probe.destination.ip();
        match refusal {
            Some((_, Value::Drop)) => self.live.verdict = Verdict::Drop,
            Some((target, Value::Fixed(FixedChain::RefuseGuarded(_)))) => {
                let allowed = self.is_allowed(target)?;
                self.live.verdict = if allowed { Verdict::Reject } else { Verdict::Drop };
            }
            Some(_) => self.live.verdict = Verdict::Reject,
            // Other ports of a ClusterIP, unless it is an address of the node.
            None if (from_node || !to_node) && self.value(Element::ClusterIp(destination))?.is_some() => {
                self.live.verdict = Verdict::Reject;
            }
            None => {}
        }
        Ok(())
    }

    fn endpoint(&mut self, map: EndpointMap, target: Target, slot: u32) -> Result<Option<SocketAddr>, NftError> {
        let element = Element::Endpoint { map, target, slot };
        Ok(match self.read_value(element)? {
            Some(Value::Endpoint(at)) => Some(at),
            _ => None,
        })
    }

    fn number(&mut self, element: Element) -> Result<Option<u32>, NftError> {
        Ok(match self.read_value(element)? {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        })
    }

    fn value(&mut self, element: Element) -> Result<Option<Value>, NftError> {
        let value = self.read_value(element)?;
        if let Some(value) = value {
            self.live
                .step(format!("{} {element}: {value}", element.collection()).trim_end_matches([':', ' ']).to_owned());
        }
        Ok(value)
    }

    fn read_value(&mut self, element: Element) -> Result<Option<Value>, NftError> {
        let collection = element.collection();
        let key = wire::identify(element).key;
        let found: Option<NftElement> = self.query.element(TABLE_NAME, &collection.to_string(), &key)?;
        let Some(found) = found else { return Ok(None) };
        let value = wire::decode(collection, &found).map(|(_, value)| value);
        if value.is_none() {
            self.live.problem(format!("element {element} of {collection} in {TABLE} is not of our making"));
        }
        Ok(value)
    }
}

/// As the rules tell it (8.8).
fn is_local(settings: &PacketSettings, probe: &Probe) -> bool {
    settings.local_traffic.includes(probe.client.address, probe.client.interface.as_deref())
}
