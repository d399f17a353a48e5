//! Nodes that nobody manages: what Weft is compared with.

use anyhow::Result;
use weft_tests::Node;

/// Neither tunnel nor rules: what the machine can do.
pub(crate) fn routes_alone(node: &Node, peer: &Node, other: u8) -> Result<()> {
    let script = format!("sysctl -qw net.ipv4.ip_forward=1; ip route add 10.244.{other}.0/24 via {}", peer.v4());
    node.run("sh", &["-c", &script]).map(drop)
}

/// Device, entries and rules of a flannel node, as measured (flannel.md 4.1, 4.2 and 8).
pub(crate) fn flannel_style(node: &Node, own: u8, peer: &Node, other: u8) -> Result<()> {
    let mac = |number: u8| format!("02:00:00:00:0f:{number:02x}");
    let masq = "iptables -t nat -A FLANNEL-POSTRTG -m comment --comment 'flanneld masq'";
    let script = format!(
        "set -e
ip link add flannel.1 mtu 1450 address {own_mac} type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning udpcsum
ip address add 10.244.{own}.0/32 dev flannel.1
ip link set flannel.1 up
sysctl -qw net.ipv4.ip_forward=1
ip neigh replace 10.244.{other}.0 lladdr {other_mac} dev flannel.1 nud permanent
bridge fdb replace {other_mac} dev flannel.1 dst {remote} self permanent
ip route replace 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink
iptables -N FLANNEL-FWD; iptables -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
iptables -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT; iptables -A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT
iptables -t nat -N FLANNEL-POSTRTG
iptables -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG
{masq} -m mark --mark 0x4000/0x4000 -j RETURN
{masq} -s 10.244.{own}.0/24 -d 10.244.0.0/16 -j RETURN
{masq} -s 10.244.0.0/16 -d 10.244.{own}.0/24 -j RETURN
{masq} ! -s 10.244.0.0/16 -d 10.244.{own}.0/24 -j RETURN
{masq} -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
{masq} ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully",
        own_mac = mac(own),
        other_mac = mac(other),
        local = node.v4(),
        remote = peer.v4(),
    );
    node.run("sh", &["-c", &script]).map(drop)
}
