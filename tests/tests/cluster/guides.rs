//! What beginner's guides let their readers do, with agents fed by an API server and objects written by the real `kubectl`.
//! Pods come and go here as their controllers would have it; no request may fail.

mod documents;
mod migrate;
mod operator;
mod rollout;

use anyhow::{Result, ensure};
use weft_tests::{Cluster, Pod, Request, Server, SlicePort, eventually, secs};

use crate::single::{answered, fails};
use operator::{Endpoint, Operator, cluster_ip, served_by, service, slice};

/// Where the guides' Service of several nodes is reached at every node.
const NODE_PORT: u16 = 30007;

#[test]
fn a_service_without_selector_leads_to_hand_made_endpoints() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).api_server().host("old-db").host("new-db").build()?;
    let operator = Operator::of(&cluster)?;
    let (old, (old_address, _)) = cluster.host("old-db");
    let (new, (new_address, _)) = cluster.host("new-db");
    let _servers = (old.serve_as("old-db", 9376)?, new.serve_as("new-db", 9376)?);
    let port = [SlicePort::new("http", "TCP", 9376)];
    let hand_made = |address: &dyn ToString| slice(&port, &[Endpoint::at(address)]);
    operator.apply(&service("type: ClusterIP", &[("http", "TCP", 80, "9376", None)]))?;
    operator.apply(&hand_made(&old_address))?;

    let client = cluster.node(1).pod("client")?;
    for from in [&*client, &**cluster.node(1), &**cluster.node(2)] {
        eventually(secs(10), || served_by(from, cluster_ip(80), &["old-db"]))?;
    }
    // The database moves; nobody who asks for it has to know.
    let load = client.load(&weft_tests::Load::new(cluster_ip(80), 200))?;
    operator.apply(&hand_made(&new_address))?;
    eventually(secs(10), || served_by(&client, cluster_ip(80), &["new-db"]))?;
    load.finish()?.all_good()?;

    operator.kubectl(&["delete", "endpointslice", "my-service-1", "--wait=false"])?;
    fails(&client, cluster_ip(80), &["ConnectionRefused"])?;
    client.remove()?;
    cluster.shutdown()
}

#[test]
fn two_named_ports_of_one_service_lead_to_two_ports_of_its_pods() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).api_server().build()?;
    let operator = Operator::of(&cluster)?;
    let client = cluster.node(1).pod("client")?;
    let (mut pods, mut servers): (Vec<Pod>, Vec<Server>) = (Vec::new(), Vec::new());
    for node in cluster.nodes() {
        let pod = node.pod(&format!("web-{}", node.name()))?;
        servers.push(pod.serve_as(&format!("http-{}", node.name()), 9376)?);
        servers.push(pod.serve_as(&format!("https-{}", node.name()), 9377)?);
        pods.push(pod);
    }
    let endpoints: Vec<_> = pods.iter().map(Endpoint::ready).collect::<Result<_>>()?;
    operator
        .apply(&service("type: ClusterIP", &[("http", "TCP", 80, "web", None), ("https", "TCP", 443, "9377", None)]))?;
    operator.apply(&slice(&[SlicePort::new("http", "TCP", 9376), SlicePort::new("https", "TCP", 9377)], &endpoints))?;

    for (port, names) in [(80, ["http-n1", "http-n2"]), (443, ["https-n1", "https-n2"])] {
        eventually(secs(10), || served_by(&client, cluster_ip(port), &names))?;
    }
    // A port that the Service does not have.
    fails(&client, cluster_ip(9376), &["ConnectionRefused"])?;
    drop(servers);
    pods.into_iter().chain([client]).try_for_each(Pod::remove)?;
    cluster.shutdown()
}

#[test]
fn a_node_port_is_reached_at_every_nodes_address_from_everywhere() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).api_server().build()?;
    let operator = Operator::of(&cluster)?;
    // One pod, on one node: two of three nodes have to hand on what they get.
    let web = cluster.node(2).pod("web")?;
    let _server = web.serve()?;
    let client = cluster.node(1).pod("client")?;
    operator.apply(&service("type: NodePort", &[("http", "TCP", 80, "8080", Some(NODE_PORT))]))?;
    operator.apply(&slice(&[SlicePort::new("http", "TCP", 8080)], &[Endpoint::ready(&web)?]))?;

    let everywhere = [cluster.outside(), &client, &web].into_iter().chain(cluster.nodes().iter().map(|node| &**node));
    for from in everywhere {
        for node in cluster.nodes() {
            answered(from, node.socket_v4(NODE_PORT))?;
            let answers = from.request(&Request::tcp(node.socket_v4(NODE_PORT)).count(20))?.all_good()?;
            ensure!(answers.by_name["web"] == 20, "{from} at {}: {answers:?}", node.name());
        }
    }
    client.remove()?;
    web.remove()?;
    cluster.shutdown()
}
