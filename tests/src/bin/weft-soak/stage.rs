//! The cluster of a soak: the node `n1` that is soaked, with a pod and all backends, a host outside, and `n2` without
//! an agent, for the comparison at the end.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::Sender,
    thread,
};

use anyhow::{Context, Result, ensure};
use weft_netlink::Netns;
use weft_tests::{Cluster, Place, Pod, eventually, secs};

use crate::{
    addresses::{BACKENDS_V4, BACKENDS_V6, Client, VIPS_V4, VIPS_V6},
    client,
    history::Observation,
};

/// Where the backends' namespace hangs on the node.
const LINK_V4: &str = "10.244.255.1";
const LINK_V6: &str = "2001:db8:200:1::1";

/// Everything but the objects.
pub(crate) struct Stage {
    // In the order they have to go.
    clients: Vec<(Child, ChildStdin)>,
    _backend: Process,
    pod: Pod,
    backends: Place,
    pub(crate) cluster: Cluster,
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Flags of every agent in this mode.
fn builder(mode: &str) -> weft_tests::ClusterBuilder {
    Cluster::builder()
        .nodes(2)
        .dual_stack()
        .without_agents()
        .agent_flag("--proxy-mode", mode)
        // So that sockets' connections, which need no translation, do not get one on their way to the backends.
        .agent_flag("--ip-masq", "false")
        .agent_flag("--cluster-cidr", "10.244.0.0/16,2001:db8:42::/56")
        .agent_flag("--nodeport-addresses", "192.0.2.0/24,2001:db8::/64")
        // Little room, so that an element that is lost is missed soon.
        .agent_flag("--ebpf-max-frontends", "16384")
        .agent_flag("--ebpf-max-backends", "32768")
        .agent_flag("--ebpf-max-sets", "8192")
        .agent_flag("--ebpf-max-endpoints", "32768")
}

/// The cluster alone.
pub(crate) fn cluster(mode: &str) -> Result<Cluster> {
    builder(mode).build()
}

impl Stage {
    /// Makes pod and backends on `n1`, whose agent has to be up.
    pub(crate) fn set(cluster: Cluster) -> Result<Self> {
        let node = cluster.node(1);
        let backends = node.bare_pod("backends", LINK_V4.parse()?, 1500)?;
        shell(
            &backends,
            &format!(
                // IPv6 binds to an address on a device only, unless told.
                "sysctl -qw net.ipv6.ip_nonlocal_bind=1
                 ip -6 address add {LINK_V6}/128 dev eth0 nodad
                 ip -6 route add fe80::1 dev eth0; ip -6 route add default via fe80::1 dev eth0
                 ip route add local {BACKENDS_V4} dev lo; ip -6 route add local {BACKENDS_V6} dev lo"
            ),
        )?;
        shell(
            node,
            &format!(
                // What the node refuses it says each time, and not once a second.
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
                 sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
                 ip -6 address add fe80::1/64 dev backends nodad
                 ip -6 route add {LINK_V6} dev backends
                 ip route add {BACKENDS_V4} via {LINK_V4} dev backends
                 ip -6 route add {BACKENDS_V6} via {LINK_V6} dev backends"
            ),
        )?;
        let (v4, v6) = (node.v4(), node.v6());
        // No redirects: they would lead a client elsewhere for good when a Service is away for a moment.
        for place in [cluster.outside(), node] {
            shell(
                place,
                "for c in all eth0; do for p in ipv4.conf.$c.send_redirects ipv4.conf.$c.accept_redirects \
                 ipv6.conf.$c.accept_redirects; do sysctl -qw net.$p=0; done; done",
            )?;
        }
        shell(cluster.outside(), &format!("ip route add {VIPS_V4} via {v4}; ip -6 route add {VIPS_V6} via {v6}"))?;
        // What no Service has is unreachable at once, and not after eight seconds; by a rule, since routes that are
        // unreachable say so once a second only.
        let wire = Netns::open(Path::new("/run/netns").join(cluster.run().netns("wire")))?;
        let script = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip route add 10.244.0.0/16 via 192.0.2.1; ip -6 route add 2001:db8:42::/56 via 2001:db8::1
             sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
             ip route add default dev wire; ip -6 route add default dev wire
             nft 'add table inet soak; add chain inet soak forward { type filter hook forward priority 0; }'
             nft add rule inet soak forward ether daddr $(ip -j link show wire | jq -r .[0].address) reject with icmpx type no-route";
        ensure!(wire.run(|| Command::new("sh").args(["-ec", script]).status())??.success(), "{script}");
        let mut server = ours(&backends, &["backend".to_owned()])?;
        let mut ready = String::new();
        BufReader::new(server.stdout.take().context("stdout")?).read_line(&mut ready)?;
        let backend = Process(server);
        ensure!(ready.trim() == "ready", "the backends do not come up");
        let pod = node.pod("client")?;
        for place in [node, &*pod] {
            eventually(secs(30), || {
                shell(place, "exec bash -c ': < /dev/tcp/10.200.0.2/8080 && : < /dev/tcp/2001:db8:200::2/8080'")
            })?;
        }
        Ok(Self { clients: Vec::new(), _backend: backend, pod, backends, cluster })
    }

    /// Starts the clients; what they see goes to `seen`.
    pub(crate) fn start_clients(
        &mut self,
        services: u32,
        seed: u64,
        rate: u32,
        seen: &Sender<Observation>,
    ) -> Result<()> {
        let node = self.cluster.node(1);
        for at in Client::ALL {
            let place: &Place = match at {
                Client::Pod => &self.pod,
                Client::Node => node,
                Client::Outside => self.cluster.outside(),
            };
            let arguments = [
                "client".to_owned(),
                format!("--at={}", at.name()),
                format!("--services={services}"),
                format!("--seed={seed}"),
                format!("--rate={rate}"),
                format!("--node-v4={}", node.v4()),
                format!("--node-v6={}", node.v6()),
            ];
            let mut child = ours(place, &arguments)?;
            let stdout = child.stdout.take().context("stdout of a client")?;
            let stdin = child.stdin.take().context("stdin of a client")?;
            let seen = seen.clone();
            thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok).skip(1);
                for observation in lines.filter_map(|line| client::parse(at, &line).ok()) {
                    if seen.send(observation).is_err() {
                        return;
                    }
                }
            });
            self.clients.push((child, stdin));
        }
        Ok(())
    }

    /// Tells the clients which Services are about to change.
    pub(crate) fn announce(&mut self, services: &[u32]) -> Result<()> {
        let line = services.iter().map(u32::to_string).collect::<Vec<_>>().join(" ") + "\n";
        for (_, stdin) in &mut self.clients {
            stdin.write_all(line.as_bytes()).context("a client has ended")?;
        }
        Ok(())
    }

    /// Ends the clients, and waits for their last attempts.
    pub(crate) fn stop_clients(&mut self) -> Result<()> {
        for (mut child, stdin) in std::mem::take(&mut self.clients) {
            drop(stdin);
            child.wait().context("wait for a client")?;
        }
        Ok(())
    }

    /// Removes everything.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop_clients()?;
        drop(self.backends);
        self.pod.remove()?;
        self.cluster.shutdown()
    }
}

/// A command of this program, at a place.
fn ours(place: &Place, arguments: &[String]) -> Result<Child> {
    let program = env::current_exe().context("find the running program")?;
    let mut command: Command = place.command(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().with_context(|| format!("start {command:?}"))
}

fn shell(place: &Place, script: &str) -> Result<String> {
    place.run("sh", &["-ec", script])
}
