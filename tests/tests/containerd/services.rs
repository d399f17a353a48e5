//! Services for pods that containerd made.

use anyhow::{Result, ensure};

use crate::{
    cri::PodSpec,
    fixture::{VIP, with_containerd},
};

#[test]
fn a_cluster_ip_is_chosen_at_the_socket_of_a_container() -> Result<()> {
    with_containerd(|fixture| {
        let (near, _) = fixture.serving_pod(&PodSpec::named("near"))?;
        let (client, container) = fixture.serving_pod(&PodSpec::named("client"))?;
        let far = fixture.cluster.node(2).pod("far")?;
        let _server = far.serve()?;
        fixture.serve_web(&far, &near)?;
        let answers = fixture.balanced(&container)?;
        ensure!(answers.sources[&client.address] == 40 && answers.peers[&VIP.to_string()] == 40, "{answers:?}");
        // Translated at the socket: no packet to the ClusterIP, so conntrack never saw one. The packet path would have
        // answered too, had runc put the container outside of the agent's cgroup.
        let tracked = fixture.node().run("conntrack", &["-L", "--orig-dst", &VIP.ip().to_string()])?;
        ensure!(tracked.trim().is_empty(), "packets to the ClusterIP: {tracked}");
        for pod in [near, client] {
            fixture.remove(&pod)?;
        }
        fixture.nothing_left()
    })
}
