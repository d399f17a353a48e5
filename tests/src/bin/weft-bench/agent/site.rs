//! The node, its pods, and the agent on it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use weft_tests::{Cluster, Place, Request, Server, eventually, secs};

use super::objects::Objects;
use crate::{
    overlay::peers::Notices,
    services::{
        ENDPOINTS,
        node::{MTU, server_pod},
        objects::{NODE_PORT, SERVER_PORT},
    },
};

/// Of the node.
pub(super) const SUBNET: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 0);
/// Room for the pods of a thousand nodes, beside the Services.
const NETWORK: &str = "10.192.0.0/10";

/// What stays while agents come and go.
pub(super) struct Site {
    client: Place,
    /// For what may come before the rules do.
    prober: Place,
    outside: Place,
    node: Place,
    node_port: SocketAddr,
    servers: [Vec<Ipv4Addr>; 2],
    _running: Vec<Server>,
    net_conf: PathBuf,
}

impl Site {
    pub(super) fn build(cluster: &Cluster) -> Result<Self> {
        let node = cluster.node(1);
        let at = |last: usize| Ipv4Addr::from(u32::from(SUBNET) + last as u32);
        let servers = [0, 1].map(|server| (0..ENDPOINTS).map(|n| at(20 + 20 * server + n)).collect::<Vec<_>>());
        let mut running = Vec::new();
        for (name, addresses) in ["web-0", "web-1"].into_iter().zip(&servers) {
            running.push(server_pod(node, name, addresses)?.serve_as(name, SERVER_PORT)?);
        }
        let net_conf = cluster.run().directory().join("large-net-conf.json");
        fs::write(&net_conf, format!(r#"{{"Network":"{NETWORK}","Backend":{{"Type":"vxlan"}}}}"#))?;
        Ok(Self {
            client: node.bare_pod("client", at(10), MTU)?,
            prober: node.bare_pod("prober", at(11), MTU)?,
            outside: cluster.outside().clone(),
            node: Place::clone(node),
            node_port: node.socket_v4(NODE_PORT),
            servers,
            _running: running,
            net_conf,
        })
    }

    /// Addresses of the two servers that the last Service can have.
    pub(super) fn servers(&self) -> [Vec<Ipv4Addr>; 2] {
        self.servers.clone()
    }

    pub(super) fn client(&self) -> &Place {
        &self.client
    }

    /// What the kernel says of the node's routes and neighbours from now on.
    pub(super) fn notices(&self) -> Result<Notices> {
        Notices::of(&self.node)
    }

    /// Starts the agent.
    pub(super) fn start(&self, cluster: &Cluster) -> Result<u32> {
        let agent = cluster.node(1).agent();
        agent.start_with(&self.flags()?)?;
        agent.id()
    }

    /// Stops the agent and removes everything it made.
    pub(super) fn clean_up(&self, cluster: &Cluster) -> Result<()> {
        let agent = cluster.node(1).agent();
        agent.stop()?;
        let output =
            agent.command("cleanup").args(agent.arguments_with(&self.flags()?)).output().context("weft cleanup")?;
        if !output.status.success() {
            bail!("weft cleanup: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Waits until the last Service works inside and from outside.
    pub(super) fn wait_for_services(&self, objects: &Objects) -> Result<()> {
        for (client, target) in [(&self.prober, objects.last()), (&self.outside, self.node_port)] {
            let request = Request::tcp(target).timeout(Duration::from_millis(100));
            eventually(secs(60), || client.request(&request)?.all_good()).with_context(|| format!("{target}"))?;
        }
        Ok(())
    }

    fn flags(&self) -> Result<[(&'static str, &str); 5]> {
        Ok([
            ("--components", "overlay,proxy"),
            ("--subnet-manager", "kube"),
            ("--cluster-cidr", NETWORK),
            // The small cluster comes after the large one.
            ("--trust-empty-lists", "true"),
            ("--net-conf", self.net_conf.to_str().context("a path in UTF-8")?),
        ])
    }
}
