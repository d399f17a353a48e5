//! From flannel to Weft node by node, as docs/migrate.md has it: nodes as flannel and its CNI plugin leave them, pods on their
//! bridges, and connections between these all the while.

use std::fs;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, Load, Node, Pod, Request, Server, eventually, secs};

use super::operator::Operator;

/// A pod on flannel's bridge; its address ends in 2, the first that host-local gives.
const OLD: &str = "old";

fn mac(number: usize) -> String {
    format!("02:00:0a:f4:0{number}:00")
}

/// What flannel wrote into a Node, and kubelet and the controller manager before it.
fn node_object(number: usize, node: &Node) -> String {
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: n{number}\n  annotations:\n    \
         flannel.alpha.coreos.com/backend-data: '{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}'\n    \
         flannel.alpha.coreos.com/backend-type: vxlan\n    flannel.alpha.coreos.com/kube-subnet-manager: \"true\"\n    \
         flannel.alpha.coreos.com/public-ip: {address}\n\
         spec: {{podCIDR: 10.244.{number}.0/24, podCIDRs: [10.244.{number}.0/24]}}\n",
        mac = mac(number),
        address = node.v4(),
    )
}

/// Device, entries, bridge and one pod of a node that flanneld and its CNI plugin took care of.
fn flannel(cluster: &Cluster, number: usize) -> Result<(weft_tests::Place, Server)> {
    let node = cluster.node(number);
    let mut script = format!(
        "set -e
sysctl -qw net.ipv4.ip_forward=1
ip link add flannel.1 mtu 1450 address {mac} type vxlan id 1 local {address} dev eth0 dstport 8472 nolearning udpcsum
ip address add 10.244.{number}.0/32 dev flannel.1
ip link set flannel.1 up
ip link add cni0 mtu 1450 type bridge
ip link set cni0 up
ip address add 10.244.{number}.1/24 dev cni0
",
        mac = mac(number),
        address = node.v4()
    );
    for (other, peer) in (1..).zip(cluster.nodes()).filter(|(other, _)| *other != number) {
        script += &format!(
            "ip neigh replace 10.244.{other}.0 lladdr {mac} dev flannel.1 nud permanent
bridge fdb replace {mac} dev flannel.1 dst {address} self permanent
ip route replace 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink
",
            mac = mac(other),
            address = peer.v4()
        );
    }
    node.run("sh", &["-c", &script])?;

    // Namespace and cgroup as the kit makes them; then the bridge plugin's way instead of a route.
    let pod = node.bare_pod(OLD, format!("10.244.{number}.2").parse()?, 1450)?;
    node.run(
        "sh",
        &["-c", &format!("ip address flush dev {OLD} && ip route flush dev {OLD} && ip link set {OLD} master cni0")],
    )?;
    let inside = format!(
        "ip address flush dev eth0 && ip route flush dev eth0 && ip address add 10.244.{number}.2/24 dev eth0 \
         && ip route add default via 10.244.{number}.1"
    );
    pod.run("sh", &["-c", &inside])?;
    let reservations = node.directory().join("cni/networks/cbr0");
    fs::create_dir_all(&reservations).with_context(|| format!("create {}", reservations.display()))?;
    fs::write(reservations.join(format!("10.244.{number}.2")), "old\r\neth0")?;
    let server = pod.serve_as(&format!("old-{number}"), 8080)?;
    Ok((pod, server))
}

#[test]
fn nodes_move_from_flannel_one_by_one_under_load() -> Result<()> {
    let builder = Cluster::builder().nodes(3).api_server().without_agents();
    let cluster = builder.agent_flag("--subnet-manager", "kube").build()?;
    let operator = Operator::of(&cluster)?;
    let nodes: String = (1..).zip(cluster.nodes()).map(|(number, node)| node_object(number, node)).collect();
    operator.apply(&nodes)?;
    let old = (1..=3).map(|number| flannel(&cluster, number)).collect::<Result<Vec<_>>>()?;
    let at = |number: usize| std::net::SocketAddr::from(([10, 244, u8::try_from(number).expect("small"), 2], 8080));
    for (pod, _) in &old {
        for number in 1..=3 {
            eventually(secs(10), || pod.request(&Request::tcp(at(number)))?.all_good())?;
        }
    }

    let loads = [old[0].0.load(&Load::new(at(2), 100))?, old[1].0.load(&Load::new(at(3), 100))?];
    let mut new: Vec<(Pod, Server)> = Vec::new();
    for (number, node) in (1..).zip(cluster.nodes()) {
        node.agent().start()?;
        node.agent().wait_ready(secs(20))?;
        let overlay = node.agent().status()?.overlay.context("no overlay")?;
        ensure!(overlay.vtep_mac == mac(number) && overlay.peers_up() == 2, "{overlay:?}");
        // The runtime takes Weft's list from here on.
        let pod = node.pod(&format!("new-{number}"))?;
        ensure!(pod.socket_v4(0)?.to_string() == format!("10.244.{number}.3:0"), "{:?}", pod.addresses());
        let server = pod.serve()?;
        new.push((pod, server));
        // All reach all, whoever made them, wherever they are; each with its own address.
        let everyone = || old.iter().map(|(pod, _)| pod).chain(new.iter().map(|(pod, _)| &**pod));
        let targets: Vec<_> =
            (1..=3).map(at).map(Ok).chain(new.iter().map(|(pod, _)| pod.socket_v4(8080))).collect::<Result<_>>()?;
        for from in everyone() {
            for target in &targets {
                from.request(&Request::tcp(*target))?.all_good().with_context(|| format!("{from} to {target}"))?;
            }
        }
    }
    // Back again: without its agent the node is as flannel would find it.
    cluster.node(2).agent().stop()?;
    for number in 1..=3 {
        old[1].0.request(&Request::tcp(at(number)).count(5))?.all_good()?;
    }
    let link = cluster.node(2).run("ip", &["link", "show", "flannel.1"])?;
    ensure!(link.contains(&mac(2)), "{link}");
    for load in loads {
        load.finish()?.all_good()?;
    }
    new.into_iter().try_for_each(|(pod, _)| pod.remove())?;
    drop(old);
    cluster.shutdown()
}
