//! Services: exact shares at every frontend, changes without a failed connection.

use crate::fixture::{
    NAMES_NODE_PORT, Serving, WEB_NODE_PORT, assert_exact, names_vip, names_vip_v6, shares, web_vip, web_vip_v6,
};
use anyhow::{Result, ensure};
use weft_tests::{Cluster, Load, Protocol, Request, eventually, secs};

#[test]
fn a_cluster_ip_is_shared_exactly_by_tcp_and_udp_clients() -> Result<()> {
    let serving = Serving::start()?;
    let client = &serving.clients[0];
    let answers = assert_exact(client, &Request::tcp(web_vip()))?;
    let own = client.socket_v4(0)?.ip().to_string();
    ensure!(answers.sources == shares(&[&own], 600), "pods saw {:?}, not {own}", answers.sources);
    ensure!(answers.peers == shares(&["10.96.0.10:80"], 600), "getpeername said {:?}", answers.peers);
    for protocol in [Protocol::Udp, Protocol::UdpUnconnected] {
        let answers = assert_exact(client, &Request::new(protocol, names_vip()))?;
        ensure!(answers.peers == shares(&["10.96.0.53:53"], 600), "{protocol:?}: {:?}", answers.peers);
    }
    // A process of the node, and the pod behind the Service itself.
    assert_exact(serving.cluster.node(2), &Request::tcp(web_vip()))?;
    assert_exact(&serving.web[2], &Request::tcp(web_vip()))?;
    serving.shutdown()
}

#[test]
fn a_node_port_is_shared_exactly_for_clients_outside() -> Result<()> {
    let serving = Serving::start()?;
    let outside = serving.cluster.outside();
    for node in serving.cluster.nodes() {
        assert_exact(outside, &Request::tcp(node.socket_v4(WEB_NODE_PORT)))?;
        assert_exact(outside, &Request::udp(node.socket_v4(NAMES_NODE_PORT)))?;
    }
    serving.shutdown()
}

#[test]
fn a_node_port_answers_pods_and_the_node_itself() -> Result<()> {
    let serving = Serving::start()?;
    let node = serving.cluster.node(1);
    for client in [&**node, &*serving.clients[0], &*serving.clients[1], &*serving.web[0]] {
        assert_exact(client, &Request::tcp(node.socket_v4(WEB_NODE_PORT)))?;
        assert_exact(client, &Request::udp(node.socket_v4(NAMES_NODE_PORT)))?;
    }
    serving.shutdown()
}

#[test]
fn all_of_it_holds_for_ipv6() -> Result<()> {
    let serving = Serving::dual_stack()?;
    let (client, node, outside) = (&serving.clients[0], serving.cluster.node(1), serving.cluster.outside());
    for target in [web_vip(), web_vip_v6()] {
        assert_exact(client, &Request::tcp(target))?;
    }
    for target in [names_vip(), names_vip_v6()] {
        assert_exact(client, &Request::udp(target))?;
        assert_exact(client, &Request::new(Protocol::UdpUnconnected, target))?;
    }
    assert_exact(outside, &Request::tcp(node.socket_v6(WEB_NODE_PORT)))?;
    assert_exact(outside, &Request::udp(node.socket_v6(NAMES_NODE_PORT)))?;
    serving.shutdown()
}

#[test]
fn a_service_without_endpoints_refuses_at_once() -> Result<()> {
    let serving = Serving::start()?;
    serving.set_endpoints(&[])?;
    let client = &serving.clients[0];
    let refused = |request: Request| -> Result<()> {
        let answers = client.request(&request)?;
        let errors: Vec<_> = answers.failures.iter().map(|failure| &failure.error).collect();
        let kind = errors.first().is_some_and(|error| error.starts_with("ConnectionRefused"));
        ensure!(kind && answers.failures[0].at_ms < 100, "{answers:?}");
        Ok(())
    };
    for request in [Request::tcp(web_vip()), Request::udp(names_vip())] {
        eventually(secs(2), || refused(request.clone()))?;
    }
    let node_port = Request::tcp(serving.cluster.node(1).socket_v4(WEB_NODE_PORT));
    eventually(secs(2), || {
        let answers = serving.cluster.outside().request(&node_port)?;
        let kind = answers.failures.first().is_some_and(|failure| failure.error.starts_with("ConnectionRefused"));
        ensure!(kind, "{answers:?}");
        Ok(())
    })?;
    serving.shutdown()
}

#[test]
fn endpoints_leave_and_return_without_a_failed_connection() -> Result<()> {
    let serving = Serving::on(Cluster::builder().alone())?;
    let load = serving.clients[0].load(&Load::new(web_vip(), 2000))?;
    let outside = serving.cluster.outside();
    let node_port = serving.cluster.node(2).socket_v4(WEB_NODE_PORT);
    let load_outside = outside.load(&Load::new(node_port, 500))?;
    for round in 0..20 {
        let leaves = round % 3;
        let stay: Vec<usize> = (0..3).filter(|&pod| pod != leaves).collect();
        serving.set_endpoints(&stay)?;
        settled(&serving, &stay)?;
        serving.set_endpoints(&[0, 1, 2])?;
        settled(&serving, &[0, 1, 2])?;
    }
    let (report, report_outside) = (load.finish()?.all_good()?, load_outside.finish()?.all_good()?);
    ensure!(report.good > 500 && report_outside.good > 125, "{report:?} {report_outside:?}");
    assert_exact(&serving.clients[1], &Request::tcp(web_vip()))?;
    serving.shutdown()
}

/// Waits until a client without other traffic on its node is served by exactly these pods, evenly.
fn settled(serving: &Serving, pods: &[usize]) -> Result<()> {
    let names: Vec<&str> = pods.iter().map(|&pod| serving.web[pod].name()).collect();
    let expected = shares(&names, 12 / u64::try_from(pods.len())?);
    eventually(secs(2), || {
        let answers = serving.clients[2].request(&Request::tcp(web_vip()).count(12))?.all_good()?;
        ensure!(answers.by_name == expected, "{} instead of {expected:?}", answers.counts());
        Ok(())
    })?;
    Ok(())
}

#[test]
fn services_tell_how_many_connections_each_endpoint_got() -> Result<()> {
    let serving = Serving::start()?;
    assert_exact(&serving.clients[0], &Request::tcp(web_vip()))?;
    eventually(secs(3), || {
        let services = serving.cluster.node(1).agent().services()?;
        let web = services.iter().find(|port| port.name == "web" && port.family == "IPv4");
        let counts: Vec<u64> = web.iter().flat_map(|port| &port.endpoints).map(|end| end.connections).collect();
        ensure!(counts == [200, 200, 200], "connections {counts:?}");
        Ok(())
    })?;
    serving.shutdown()
}
