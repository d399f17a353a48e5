//! Pods that come, go and are not ready, while clients in the cluster and outside keep asking.

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, Hold, Load, LoadReport, Pod, Running, Server, SlicePort, eventually, secs};

use super::{
    NODE_PORT,
    operator::{Endpoint, Operator, cluster_ip, served_by, service, slice},
};

/// New connections a second of each client.
const RATE: u32 = 200;

/// A pod and its server.
type Serving = (Pod, Server);

/// `my-service` on two nodes, and clients of it.
struct Guide<'a> {
    cluster: &'a Cluster,
    operator: Operator<'a>,
    /// The load comes from the first node, questions from the second: round robin counts per node.
    client: Pod,
    observer: Pod,
}

impl<'a> Guide<'a> {
    /// With these endpoints, which serve before this returns.
    fn start(cluster: &'a Cluster, endpoints: &[Endpoint], names: &[&str]) -> Result<Self> {
        let (client, observer) = (cluster.node(1).pod("client")?, cluster.node(2).pod("observer")?);
        let guide = Self { cluster, operator: Operator::of(cluster)?, client, observer };
        guide.operator.apply(&service("type: NodePort", &[("http", "TCP", 80, "8080", Some(NODE_PORT))]))?;
        guide.set(endpoints)?;
        for from in [&guide.client, &guide.observer] {
            eventually(secs(10), || served_by(from, cluster_ip(80), names))?;
        }
        let node_port = cluster.node(1).socket_v4(NODE_PORT);
        eventually(secs(10), || served_by(cluster.outside(), node_port, names))?;
        Ok(guide)
    }

    fn pod(&self, node: usize, name: &str) -> Result<Serving> {
        serving(self.cluster, node, name)
    }

    /// What the controller of EndpointSlices would write.
    fn set(&self, endpoints: &[Endpoint]) -> Result<()> {
        self.operator.apply(&slice(&[SlicePort::new("http", "TCP", 8080)], endpoints))
    }

    /// A client in the cluster and one outside.
    fn load(&self) -> Result<[Running<LoadReport>; 2]> {
        let outside = Load::new(self.cluster.node(1).socket_v4(NODE_PORT), RATE);
        Ok([self.client.load(&Load::new(cluster_ip(80), RATE))?, self.cluster.outside().load(&outside)?])
    }

    /// Waits until new connections of all nodes go to these pods.
    fn until_served_by(&self, names: &[&str]) -> Result<()> {
        eventually(secs(10), || served_by(&self.observer, cluster_ip(80), names))?;
        for node in self.cluster.nodes() {
            eventually(secs(10), || {
                let services = node.agent().services()?;
                let service = services.iter().find(|port| port.name == "my-service").context("no my-service")?;
                ensure!(service.endpoints.len() == names.len(), "{}: {service:?}", node.name());
                Ok::<_, anyhow::Error>(())
            })?;
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.client.remove()?;
        self.observer.remove()
    }
}

fn serving(cluster: &Cluster, node: usize, name: &str) -> Result<Serving> {
    let pod = cluster.node(node).pod(name)?;
    let server = pod.serve()?;
    Ok((pod, server))
}

/// What a well-behaved server does when it is told to end: it finishes what it has begun, then goes.
fn terminate((pod, server): Serving) -> Result<()> {
    eventually(secs(10), || {
        let open = pod.run("ss", &["-Htn", "state", "established", "state", "syn-recv", "sport", "=", ":8080"])?;
        ensure!(open.is_empty(), "{pod} still talks:\n{open}", pod = pod.name());
        Ok(())
    })?;
    drop(server);
    pod.remove()
}

fn finish(loads: [Running<LoadReport>; 2]) -> Result<()> {
    for load in loads {
        let report = load.finish()?.all_good()?;
        ensure!(report.good > 20, "{report:?}");
    }
    Ok(())
}

#[test]
fn readiness_takes_an_endpoint_out_and_in() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).api_server().build()?;
    let (one, two) = (serving(&cluster, 1, "web-1")?, serving(&cluster, 2, "web-2")?);
    let (ready_1, ready_2) = (|| Endpoint::ready(&one.0), || Endpoint::ready(&two.0));
    let guide = Guide::start(&cluster, &[ready_1()?, ready_2()?], &["web-1", "web-2"])?;
    let loads = guide.load()?;
    // One of two long connections is with web-1, and goes on: unready means no new ones.
    let holds = [(); 2].map(|()| guide.observer.hold(&Hold::new(cluster_ip(80))));
    for _ in 0..3 {
        guide.set(&[Endpoint::unready(&one.0)?, ready_2()?])?;
        guide.until_served_by(&["web-2"])?;
        guide.set(&[ready_1()?, ready_2()?])?;
        guide.until_served_by(&["web-1", "web-2"])?;
    }
    finish(loads)?;
    let mut held = Vec::new();
    for hold in holds {
        let report = hold?.finish()?;
        ensure!(report.broken.is_none(), "{report:?}");
        held.push(report.name);
    }
    held.sort();
    ensure!(held == ["web-1", "web-2"], "{held:?}");
    guide.end()?;
    terminate(one)?;
    terminate(two)?;
    cluster.shutdown()
}

#[test]
fn scaling_from_one_to_three_to_two() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).api_server().build()?;
    let one = serving(&cluster, 1, "web-1")?;
    let guide = Guide::start(&cluster, &[Endpoint::ready(&one.0)?], &["web-1"])?;
    let loads = guide.load()?;

    let (two, three) = (guide.pod(2, "web-2")?, guide.pod(1, "web-3")?);
    guide.set(&[Endpoint::ready(&one.0)?, Endpoint::ready(&two.0)?, Endpoint::ready(&three.0)?])?;
    guide.until_served_by(&["web-1", "web-2", "web-3"])?;

    guide.set(&[Endpoint::ready(&one.0)?, Endpoint::ready(&two.0)?, Endpoint::terminating(&three.0)?])?;
    guide.until_served_by(&["web-1", "web-2"])?;
    guide.set(&[Endpoint::ready(&one.0)?, Endpoint::ready(&two.0)?])?;
    terminate(three)?;
    guide.until_served_by(&["web-1", "web-2"])?;

    finish(loads)?;
    guide.end()?;
    terminate(one)?;
    terminate(two)?;
    cluster.shutdown()
}

#[test]
fn a_rolling_update_replaces_every_pod() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).api_server().build()?;
    // Of one version after the other; always as many as shall serve.
    let mut pods = vec![serving(&cluster, 1, "v1-1")?, serving(&cluster, 2, "v1-2")?, serving(&cluster, 2, "v1-3")?];
    let ready = |pods: &[Serving]| pods.iter().map(|(pod, _)| Endpoint::ready(pod)).collect::<Result<Vec<_>>>();
    let guide = Guide::start(&cluster, &ready(&pods)?, &["v1-1", "v1-2", "v1-3"])?;
    let loads = guide.load()?;
    for number in 1..=3 {
        // The new one is there, not ready; then ready; then an old one ends, and is gone.
        let new = guide.pod(1 + number % 2, &format!("v2-{number}"))?;
        let mut endpoints = ready(&pods)?;
        endpoints.push(Endpoint::unready(&new.0)?);
        guide.set(&endpoints)?;
        pods.push(new);
        guide.set(&ready(&pods)?)?;
        let old = pods.remove(0);
        let mut endpoints = ready(&pods)?;
        endpoints.push(Endpoint::terminating(&old.0)?);
        guide.set(&endpoints)?;
        let names: Vec<&str> = pods.iter().map(|(pod, _)| pod.name()).collect();
        guide.until_served_by(&names)?;
        guide.set(&ready(&pods)?)?;
        terminate(old)?;
    }
    guide.until_served_by(&["v2-1", "v2-2", "v2-3"])?;
    finish(loads)?;
    guide.end()?;
    pods.into_iter().try_for_each(terminate)?;
    cluster.shutdown()
}
