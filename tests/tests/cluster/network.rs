//! The pod network: pods on one node and on different nodes, and the way out.

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, ClusterBuilder, OUTSIDE_V4, Pod, Protocol, Request, eventually, secs};

/// IPv4 and UDP headers, in bytes.
const HEADERS_V4: u32 = 28;
/// IPv6 and UDP headers, in bytes.
const HEADERS_V6: u32 = 48;

/// Each with leases in a directory, and with leases, as all else, from an API server.
macro_rules! tests {
    ($($body:ident)*) => {
        mod leases_in_a_directory {
            $(#[test] fn $body() -> anyhow::Result<()> { super::$body(weft_tests::Cluster::builder()) })*
        }
        mod leases_from_an_api_server {
            $(#[test] fn $body() -> anyhow::Result<()> { super::$body(weft_tests::Cluster::builder().kube_leases()) })*
        }
    };
}

tests! {
    pods_reach_pods_with_their_own_address_on_one_node_and_across
    packets_of_the_full_mtu_pass_in_both_directions
    pods_of_both_families_reach_each_other
    pods_reach_the_outside_masqueraded_and_nodes_reach_pods
    a_node_that_joins_later_is_reached
}

fn pods_reach_pods_with_their_own_address_on_one_node_and_across(builder: ClusterBuilder) -> Result<()> {
    let cluster = builder.nodes(3).build()?;
    let client = cluster.node(1).pod("client")?;
    let own = client.socket_v4(0)?.ip().to_string();
    for number in 1..=3 {
        let web = cluster.node(number).pod(&format!("web-{number}"))?;
        let _server = web.serve()?;
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::UdpUnconnected] {
            let request = Request::new(protocol, web.socket_v4(8080)?).count(5);
            let answers = client.request(&request)?.all_good()?;
            ensure!(answers.by_name[web.name()] == 5 && answers.sources[&own] == 5, "{protocol:?}: {answers:?}");
        }
        web.remove()?;
    }
    client.remove()?;
    cluster.shutdown()
}

fn packets_of_the_full_mtu_pass_in_both_directions(builder: ClusterBuilder) -> Result<()> {
    let cluster = builder.nodes(2).build()?;
    let (left, right) = (cluster.node(1).pod("left")?, cluster.node(2).pod("right")?);
    let _servers = (left.serve()?, right.serve()?);
    let overlay = cluster.node(1).agent().status()?.overlay.context("no overlay")?;
    ensure!(overlay.mtu == 1450, "1500 - 50 bytes of VXLAN, but the MTU is {}", overlay.mtu);
    let datagram = usize::try_from(overlay.mtu - HEADERS_V4)?;
    for (from, to) in [(&left, &right), (&right, &left)] {
        full_size(from, to, datagram)?;
        let large = Request::tcp(to.socket_v4(8080)?).bytes(4 << 20).timeout(secs(10));
        from.request(&large)?.all_good()?;
    }
    cluster.shutdown()
}

/// A datagram that fills a packet; Linux sends it with DF (ip(7), IP_MTU_DISCOVER), so a smaller MTU on the way loses it.
fn full_size(from: &Pod, to: &Pod, datagram: usize) -> Result<()> {
    let request = Request::udp(to.socket_v4(8080)?).bytes(datagram);
    from.request(&request)?.all_good().with_context(|| format!("{} to {}: {datagram} bytes", **from, **to))?;
    Ok(())
}

fn pods_of_both_families_reach_each_other(builder: ClusterBuilder) -> Result<()> {
    let cluster = builder.nodes(2).dual_stack().build()?;
    let (left, right) = (cluster.node(1).pod("left")?, cluster.node(2).pod("right")?);
    let neighbour = cluster.node(1).pod("neighbour")?;
    let _servers = (right.serve()?, neighbour.serve()?);
    let mtu = cluster.node(1).agent().status()?.overlay.context("no overlay")?.mtu;
    for web in [&right, &neighbour] {
        for (target, own, headers) in [
            (web.socket_v4(8080)?, left.socket_v4(0)?, HEADERS_V4),
            (web.socket_v6(8080)?, left.socket_v6(0)?, HEADERS_V6),
        ] {
            let answers = left.request(&Request::tcp(target).count(3))?.all_good()?;
            ensure!(answers.sources[&own.ip().to_string()] == 3, "{target}: {answers:?}");
            left.request(&Request::udp(target).bytes(usize::try_from(mtu - headers)?))?.all_good()?;
        }
    }
    cluster.shutdown()
}

fn pods_reach_the_outside_masqueraded_and_nodes_reach_pods(builder: ClusterBuilder) -> Result<()> {
    let cluster = builder.nodes(2).build()?;
    let pod = cluster.node(1).pod("web-1")?;
    let _servers = (pod.serve()?, cluster.outside().serve_as("outside", 8081)?);
    let answers = pod.request(&Request::tcp((OUTSIDE_V4, 8081).into()).count(3))?.all_good()?;
    let node = cluster.node(1).v4().to_string();
    ensure!(answers.sources.contains_key(&node), "the host outside saw {:?}, not {node}", answers.sources);
    for node in cluster.nodes() {
        node.request(&Request::tcp(pod.socket_v4(8080)?).count(3))?.all_good()?;
    }
    cluster.shutdown()
}

fn a_node_that_joins_later_is_reached(builder: ClusterBuilder) -> Result<()> {
    let cluster = builder.nodes(3).without_agents().build()?;
    let (first, last) = (cluster.node(1), cluster.node(3));
    first.agent().start()?;
    first.agent().wait_ready(secs(10))?;
    let client = first.pod("client")?;
    last.agent().start()?;
    last.agent().wait_ready(secs(10))?;
    let web = last.pod("web")?;
    let _server = web.serve()?;
    let request = Request::tcp(web.socket_v4(8080)?).timeout(std::time::Duration::from_millis(500));
    eventually(secs(5), || client.request(&request)?.all_good())?;
    cluster.shutdown()
}

/// What a process did up to now.
#[derive(Clone, Copy, Debug)]
struct Activity {
    /// Page faults of child processes that ended: a program that is started has hundreds.
    children_faults: u64,
    /// How often the thread of the pod network waited for something.
    waits: u64,
}

impl Activity {
    fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc_pid_stat(5): cminflt and cmajflt are the 11th and the 13th field; the second is a name in parentheses.
        let fields: Vec<&str> = stat.rsplit_once(") ").context("no name")?.1.split(' ').collect();
        let children_faults = fields[8].parse::<u64>()? + fields[10].parse::<u64>()?;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim() == "weft-overlay" {
                let status = std::fs::read_to_string(task.join("status"))?;
                let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                return Ok(Self { children_faults, waits: line.context("no switches")?.trim().parse()? });
            }
        }
        anyhow::bail!("no thread weft-overlay")
    }
}

#[test]
fn defect_e4_an_idle_node_starts_no_program_and_hardly_wakes_up() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).dual_stack().agent_flag("--components", "overlay,cni").build()?;
    let pid = cluster.node(1).agent().id()?;
    // flannel starts 40 programs every five seconds. What the start itself caused has to end first, so: some five seconds.
    eventually(secs(60), || {
        let before = Activity::of(pid)?;
        std::thread::sleep(secs(5));
        let after = Activity::of(pid)?;
        ensure!(after.children_faults == before.children_faults, "programs were started: {before:?} {after:?}");
        // A glance at what the kernel does not tell, and what the neighbours' kernels do.
        ensure!(after.waits - before.waits <= 6, "{} times awake: {before:?} {after:?}", after.waits - before.waits);
        Ok::<_, anyhow::Error>(())
    })?;
    cluster.shutdown()
}
