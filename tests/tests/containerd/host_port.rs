//! Host ports of pods that containerd made.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use k8s_cri::v1::{PortMapping, Protocol};
use weft_tests::Request;

use crate::{
    cri::PodSpec,
    fixture::{PORT, with_containerd},
};

const HOST_PORT: u16 = 9080;

#[test]
fn a_host_port_is_served_to_the_outside_to_localhost_and_to_its_own_pod() -> Result<()> {
    with_containerd(|fixture| {
        let mapping = |protocol: Protocol| PortMapping {
            protocol: protocol as i32,
            container_port: i32::from(PORT),
            host_port: i32::from(HOST_PORT),
            host_ip: String::new(),
        };
        let spec = PodSpec { ports: vec![mapping(Protocol::Tcp), mapping(Protocol::Udp)], ..PodSpec::named("web") };
        let (pod, container) = fixture.serving_pod(&spec)?;
        let (node, outside) = (fixture.node(), fixture.cluster.outside());
        let at_node = node.socket_v4(HOST_PORT);
        for request in [Request::tcp(at_node), Request::udp(at_node)] {
            let answers = outside.request(&request.count(3))?.all_good().context("from outside")?;
            // 192.0.2.200 is the outside host: the client's address is kept.
            ensure!(answers.by_name["web"] == 3 && answers.sources["192.0.2.200"] == 3, "{answers:?}");
        }
        fixture.cluster.node(2).request(&Request::tcp(at_node))?.all_good().context("from another node")?;
        node.request(&Request::tcp(at_node))?.all_good().context("from the node to its own address")?;
        let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, HOST_PORT));
        node.request(&Request::tcp(localhost))?.all_good().context("from the node to localhost")?;
        fixture.request_in(&container, &Request::tcp(at_node))?.all_good().context("from the pod itself")?;

        fixture.remove(&pod)?;
        let answers = outside.request(&Request::tcp(at_node))?;
        ensure!(answers.failures[0].error.starts_with("ConnectionRefused"), "after removal: {answers:?}");
        fixture.nothing_left()
    })
}
