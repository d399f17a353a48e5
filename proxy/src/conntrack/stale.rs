//! Which conntrack entries are stale. Pure.

use std::{collections::HashMap, net::SocketAddr};

use weft_netlink::ConntrackEntry;

use crate::{
    model::Protocol,
    plan::{Frontend, UdpFlows},
};

/// Recognises entries of UDP Service ports whose endpoint does not serve.
#[derive(Debug, Default)]
pub struct Stale<'a> {
    /// Serving endpoints by ClusterIP, externalIP or load balancer address.
    by_address: HashMap<SocketAddr, &'a [SocketAddr]>,
    by_node_port: HashMap<u16, &'a [SocketAddr]>,
}

impl<'a> Stale<'a> {
    /// For these Service ports, which are all of one family.
    pub fn of(flows: impl IntoIterator<Item = UdpFlows<'a>>) -> Self {
        let mut stale = Self::default();
        for flows in flows {
            for frontend in flows.frontends {
                match *frontend {
                    Frontend::ClusterIp(at) | Frontend::ExternalIp(at) | Frontend::LoadBalancer(at) => {
                        stale.by_address.insert(at, flows.serving);
                    }
                    Frontend::NodePort(port) => _ = stale.by_node_port.insert(port, flows.serving),
                }
            }
        }
        stale
    }

    /// Whether no entry at all can be stale.
    pub fn is_impossible(&self) -> bool {
        self.by_address.values().chain(self.by_node_port.values()).all(|serving| serving.is_empty())
    }

    /// Whether an entry leads to somebody who does not serve, while others do (10.2).
    ///
    /// Whom it leads to is seen from where answers come from. Never translated, it leads to the frontend itself, which
    /// does not serve either: made while there was no endpoint, it would black-hole its client for good (10.5).
    pub fn contains(&self, entry: &ConntrackEntry) -> bool {
        let destination = entry.original.destination;
        // A node port counts at any address (10.2), for addresses of the node come and go. An address of a Service with that
        // number goes before, or its good entries would be deleted too.
        let serving = self.by_address.get(&destination).or_else(|| self.by_node_port.get(&destination.port()));
        entry.protocol == Protocol::Udp.number()
            // With nobody to go to instead, an entry may as well stay (10.6).
            && serving.is_some_and(|serving| !serving.is_empty() && serving.binary_search(&entry.reply.source).is_err())
    }
}

/// The entries to delete, in the order they come in.
pub fn plan<'a>(
    flows: impl IntoIterator<Item = UdpFlows<'a>>,
    entries: impl IntoIterator<Item = ConntrackEntry>,
) -> Vec<ConntrackEntry> {
    let stale = Stale::of(flows);
    entries.into_iter().filter(|entry| stale.contains(entry)).collect()
}
