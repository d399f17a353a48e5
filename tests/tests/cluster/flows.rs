//! Connections and flows that are there already when endpoints come or go.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use weft_netlink::Netns;
use weft_tests::{Cluster, Hold, HoldReport, Place, Request, Running, SlicePort, eventually, secs};

use crate::fixture::{Serving, WEB_NODE_PORT, shares, web_vip};

#[test]
fn rule_4_13_connections_outlive_their_endpoint_in_ebpf_mode() -> Result<()> {
    connections_outlive_their_endpoint("ebpf")
}

#[test]
fn rule_4_13_connections_outlive_their_endpoint_in_nftables_mode() -> Result<()> {
    connections_outlive_their_endpoint("nftables")
}

#[test]
fn rule_4_13_connections_outlive_their_endpoint_in_iptables_mode() -> Result<()> {
    connections_outlive_their_endpoint("iptables")
}

fn serving(mode: &str) -> Result<Serving> {
    Serving::on(Cluster::builder().agent_flag("--proxy-mode", mode).agent_flag("--cluster-cidr", "10.244.0.0/16"))
}

fn connections_outlive_their_endpoint(mode: &str) -> Result<()> {
    let serving = serving(mode)?;
    let (pod, outside) = (&*serving.clients[0], serving.cluster.outside());
    let node_port = serving.cluster.node(1).socket_v4(WEB_NODE_PORT);
    // In turn: each endpoint has one from the pod and one from outside.
    let held = [hold_three(pod, web_vip())?, hold_three(outside, node_port)?];
    serving.set_endpoints(&[2])?;
    for (client, target) in [(pod, web_vip()), (outside, node_port)] {
        eventually(secs(10), || {
            let answers = client.request(&Request::tcp(target).count(6))?.all_good()?;
            ensure!(answers.by_name == shares(&["web-3"], 6), "{}", answers.counts());
            Ok::<_, anyhow::Error>(())
        })?;
    }
    // The point of it: round trips while the endpoints are gone.
    thread::sleep(Duration::from_millis(300));
    for connections in held {
        let reports = connections.into_iter().map(Running::finish).collect::<Result<Vec<_>>>()?;
        ensure!(reports.iter().all(|report| report.broken.is_none() && report.round_trips > 20), "{reports:?}");
        let mut names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
        names.sort_unstable();
        ensure!(names == ["web-1", "web-2", "web-3"], "{reports:?}");
    }
    serving.shutdown()
}

fn hold_three(client: &Place, target: SocketAddr) -> Result<[Running<HoldReport>; 3]> {
    Ok([client.hold(&Hold::new(target))?, client.hold(&Hold::new(target))?, client.hold(&Hold::new(target))?])
}

#[test]
fn rule_9_5_a_flow_from_before_the_service_is_led_to_it_in_ebpf_mode() -> Result<()> {
    a_flow_from_before_the_service_is_led_to_it("ebpf")
}

#[test]
fn rule_9_5_a_flow_from_before_the_service_is_led_to_it_in_nftables_mode() -> Result<()> {
    a_flow_from_before_the_service_is_led_to_it("nftables")
}

#[test]
fn rule_9_5_a_flow_from_before_the_service_is_led_to_it_in_iptables_mode() -> Result<()> {
    a_flow_from_before_the_service_is_led_to_it("iptables")
}

/// A client outside that sends from one port all the time, so that conntrack never forgets that it went to the node itself.
fn a_flow_from_before_the_service_is_led_to_it(mode: &str) -> Result<()> {
    const NODE_PORT: u16 = 30099;
    let serving = serving(mode)?;
    let (host, outside) = (serving.cluster.node(1), serving.cluster.outside());
    let target = host.socket_v4(NODE_PORT);
    let socket = Netns::open(outside.netns())?.run(|| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    })??;
    let own = {
        let _server = host.serve_as("host", NODE_PORT)?;
        answer(&socket, "host")
    };
    ensure!(own, "nothing is there yet that would lead it elsewhere");
    let service = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: late, namespace: default}}
spec:
  type: NodePort
  clusterIP: 10.96.0.99
  ports:
  - {{name: dns, protocol: UDP, port: 53, targetPort: 8080, nodePort: {NODE_PORT}}}
"
    );
    // In the order in which two watches may tell of them.
    serving.cluster.manifests().endpoints("late", &[SlicePort::new("dns", "UDP", 8080)], &[&serving.web[0]])?;
    thread::sleep(Duration::from_millis(50));
    serving.cluster.manifests().apply("late.yaml", &service)?;
    ensure!(answer(&socket, "web-1"), "the flow stays where it was");
    serving.shutdown()
}

/// Whether `name` answers within ten seconds.
fn answer(socket: &UdpSocket, name: &str) -> bool {
    let deadline = Instant::now() + secs(10);
    let mut buffer = [0; 128];
    while Instant::now() < deadline {
        // Nobody listens for a while: that is told as an error of the next call.
        let _ = socket.send(b"?");
        if let Ok(length) = socket.recv(&mut buffer)
            && buffer[..length].starts_with(name.as_bytes())
        {
            return true;
        }
    }
    false
}
