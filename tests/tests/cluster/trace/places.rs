//! Who connects to what: clients inside and outside, and Services of all kinds.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use weft_tests::{Asker, Protocol, SlicePort, eventually, secs};

use crate::fixture::{NAMES_NODE_PORT, Serving, WEB_NODE_PORT, names_vip, names_vip_v6, web_vip, web_vip_v6};

const LOCAL_NODE_PORT: u16 = 30081;
const EMPTY_NODE_PORT: u16 = 30082;
const STICKY_NODE_PORT: u16 = 30083;

/// Somebody who connects.
pub(super) struct Client {
    /// Index of the node whose agent is asked; of the node the packets go to, for who is outside.
    pub(super) node: Option<usize>,
    /// Of each family.
    sides: [Side; 2],
    pub(super) asker: Asker,
}

/// A client of a family.
pub(super) struct Side {
    /// FROM.
    pub(super) name: String,
    /// The address its servers see, unless it is masqueraded.
    pub(super) address: Option<String>,
}

impl Client {
    /// As who it connects to `target`.
    pub(super) fn side(&self, target: SocketAddr) -> &Side {
        &self.sides[usize::from(target.is_ipv6())]
    }
}

/// Policy Local, no endpoints, session affinity.
pub(super) fn more_services(serving: &Serving) -> Result<()> {
    let manifests = serving.cluster.manifests();
    for (number, name, node_port, spec, pods) in [
        (1, "local", LOCAL_NODE_PORT, "externalTrafficPolicy: Local", &serving.web[..1]),
        (2, "empty", EMPTY_NODE_PORT, "sessionAffinity: None", &[][..]),
        (3, "sticky", STICKY_NODE_PORT, "sessionAffinity: ClientIP", &serving.web[..]),
        (4, "inner", 30084, "internalTrafficPolicy: Local", &serving.web[1..2]),
        (5, "assoc", 30085, "sessionAffinity: None", &serving.web[..]),
    ] {
        // Nobody has an SCTP socket here: see `sctp_is_traced`.
        let protocol = if name == "assoc" { "SCTP" } else { "TCP" };
        let http = [SlicePort::new("http", protocol, 8080)];
        manifests.endpoints(name, &http, &pods.iter().collect::<Vec<_>>())?;
        manifests.apply(
            &format!("{name}.yaml"),
            &format!(
                "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  type: NodePort
  clusterIP: 10.96.1.{number}
  clusterIPs: [10.96.1.{number}, \"2001:db8:96::1:{number}\"]
  ipFamilies: [IPv4, IPv6]
  {spec}
  ports:
  - {{name: http, protocol: {protocol}, port: 80, targetPort: 8080, nodePort: {node_port}}}
"
            ),
        )?;
    }
    for node in serving.cluster.nodes() {
        // Refusals are ICMP messages, of which the kernel sends each client one a second only (icmp(7)).
        node.run("sysctl", &["-qw", "net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratelimit=0"])?;
        eventually(secs(20), || {
            let (services, status) = (node.agent().services()?, node.agent().status()?);
            ensure!(services.len() == 14 && status.ready, "{} of 14 ports, ready {}", services.len(), status.ready);
            ensure!(services.iter().all(|port| port.name != "sticky" || port.endpoints.len() == 3), "{services:?}");
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn clients(serving: &Serving) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for (index, node) in serving.cluster.nodes().iter().enumerate() {
        let sides = [(); 2].map(|()| Side { name: "node".to_owned(), address: None });
        clients.push(Client { node: Some(index), sides, asker: node.asker()? });
        for pod in [&serving.clients[index], &serving.web[index]] {
            let sides = [pod.socket_v4(0)?, pod.socket_v6(0)?].map(|at| {
                let address = at.ip().to_string();
                // By name and by address.
                let by_address = pod.name().starts_with("web");
                let name = if by_address { address.clone() } else { format!("default/{}", pod.name()) };
                Side { name, address: Some(address) }
            });
            clients.push(Client { node: Some(index), sides, asker: pod.asker()? });
        }
    }
    let addresses = [weft_tests::OUTSIDE_V4.to_string(), weft_tests::OUTSIDE_V6.to_string()];
    let sides = addresses.map(|address| Side { name: address.clone(), address: Some(address) });
    clients.push(Client { node: None, sides, asker: serving.cluster.outside().asker()? });
    Ok(clients)
}

pub(super) fn targets(serving: &Serving) -> Result<Vec<(SocketAddr, Protocol)>> {
    use Protocol::{Tcp, Udp, UdpUnconnected};
    let mut targets = vec![(web_vip(), Tcp), (web_vip_v6(), Tcp)];
    for names in [names_vip(), names_vip_v6()] {
        targets.extend([(names, Udp), (names, UdpUnconnected)]);
    }
    for number in 1..=4 {
        for ip in [format!("10.96.1.{number}"), format!("2001:db8:96::1:{number}")] {
            targets.push((SocketAddr::new(ip.parse()?, 80), Tcp));
        }
    }
    // Nobody's port of a ClusterIP.
    targets.extend([
        (SocketAddr::new("10.96.1.1".parse()?, 81), Tcp),
        (SocketAddr::new("2001:db8:96::1:1".parse()?, 81), Tcp),
    ]);
    for node in serving.cluster.nodes() {
        for port in [WEB_NODE_PORT, LOCAL_NODE_PORT, EMPTY_NODE_PORT, STICKY_NODE_PORT, 30999] {
            targets.extend([(node.socket_v4(port), Tcp), (node.socket_v6(port), Tcp)]);
        }
        targets.extend([(node.socket_v4(NAMES_NODE_PORT), Udp), (node.socket_v6(NAMES_NODE_PORT), Udp)]);
    }
    for pod in &serving.web {
        for (open, shut) in [(pod.socket_v4(8080)?, pod.socket_v4(8081)?), (pod.socket_v6(8080)?, pod.socket_v6(8081)?)]
        {
            targets.extend([(open, Tcp), (shut, Tcp), (open, Udp)]);
        }
    }
    Ok(targets)
}
