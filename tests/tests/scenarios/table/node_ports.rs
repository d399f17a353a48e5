//! Section 6: addresses of NodePorts.

use crate::{
    objects::{
        Family,
        Server::{A1, A2, B1},
        service,
    },
    scenario::{
        Client::{Node, Outside, Pod, PodElsewhere},
        Flags, Group, Mode,
        Outcome::{Refused, Untouched},
        Target::{NodePort, NodePortLoopback, NodePortSecond, NodePortTunnel},
        by, given,
    },
};

pub(super) fn groups() -> Vec<Group> {
    vec![
        given("nodePortAddresses unset", [service().on([A1, B1]).node_port(), service().node_port()])
            .row("6.1", "another address of the node, from outside", Outside, NodePortSecond, by([A1, B1]).sees_n1())
            .row("6.1", "from a pod", Pod, NodePortSecond, by([A1, B1]))
            .row("6.1", "the address of the pod network, from a pod", Pod, NodePortTunnel, by([A1, B1]))
            .row("6.1", "from a pod of another node", PodElsewhere, NodePortTunnel, by([A1, B1]).sees_n1())
            .row("6.1", "from the node", Node, NodePortTunnel, by([A1, B1]).sees_n1())
            .row("6.7", "no endpoints: refused at every address", Outside, NodePortSecond, Refused)
            .second(),
        given("nodePortAddresses unset, the loopback address", [service().on([A1]).node_port()])
            .row("6.6", "127.0.0.1 on the node", Node, NodePortLoopback, by([A1]).sees_n1())
            .only(Family::V4)
            .row("6.6", "::1 on the node", Node, NodePortLoopback, by([A1]).sees_n1())
            .otherwise(Mode::PACKETS, &Refused, "the kernel routes nothing from ::1 to another interface")
            .only(Family::V6),
        given(
            "nodePortAddresses with the first address of each family",
            [service().on([A1, B1]).node_port(), service().node_port()],
        )
        .with(Flags::MasqueradeAll)
        .row("6.2", "that address, from outside", Outside, NodePort, by([A1, B1]).sees_n1())
        .row("6.2", "from a pod", Pod, NodePort, by([A1, B1]))
        .row("6.2", "from the node", Node, NodePort, by([A1, B1]))
        .row("6.2", "another address, from outside", Outside, NodePortSecond, Untouched)
        .row("6.2", "from a pod", Pod, NodePortSecond, Untouched)
        .row("6.2", "from the node", Node, NodePortSecond, Untouched)
        .row("6.2", "the address of the pod network", Pod, NodePortTunnel, Untouched)
        .row("6.6", "the loopback address", Node, NodePortLoopback, Untouched)
        .row("6.7", "no endpoints: refused at that address", Outside, NodePort, Refused)
        .second()
        .row("6.7", "no endpoints: another address is left alone", Outside, NodePortSecond, Untouched)
        .second(),
        given("localhostNodePorts false", [service().on([A1, B1]).node_port()])
            .with(Flags::Bridge)
            .row("6.6", "the loopback address", Node, NodePortLoopback, Untouched)
            .row("6.6", "another address from the node", Node, NodePort, by([A1, B1]).sees_n1()),
        given("nodePortAddresses primary", [service().on([A1, B1]).node_port()])
            .with(Flags::NodeCidr)
            .row("6.3", "the Node's address, from outside", Outside, NodePort, by([A1, B1]).sees_n1())
            .row("6.3", "from a pod", Pod, NodePort, by([A1, B1]))
            .row("6.3", "from the node", Node, NodePort, by([A1, B1]))
            .row("6.3", "another address, from outside", Outside, NodePortSecond, Untouched)
            .row("6.3", "from a pod", Pod, NodePortSecond, Untouched)
            .row("6.3", "the address of the pod network", Pod, NodePortTunnel, Untouched)
            .row("6.3, 6.6", "the loopback address", Node, NodePortLoopback, Untouched),
        given("a NodePort on which a process of the node listens", [service().on([A1, A2]).node_port()])
            .with_a_listener()
            .row("2.2", "it is shadowed for clients outside", Outside, NodePort, by([A1, A2]))
            .row("2.2", "for pods", Pod, NodePort, by([A1, A2]))
            .row("2.2", "for the node", Node, NodePort, by([A1, A2])),
    ]
}
