//! A few nodes on one machine: a network namespace each, joined by a bridge in a namespace of its own.
//!
//! Namespaces have no name: they go with the values here, also after a panic.

use std::{
    net::IpAddr,
    path::PathBuf,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use weft_netlink::{AddressOptions, Netlink, Netns, Route, VethSpec};
use weft_overlay::{
    ChecksumOffload, ConntrackBypass, DirLeases, InterfaceChoice, LeaseHolder, NetConf, OverlayConfig, OverlayHandle,
    OverlayStatus, StartError, SubnetSource,
};

pub(crate) const NETWORK: &str = r#"{"Network":"10.244.0.0/16"}"#;
pub(crate) const DUAL_STACK: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48"}"#;

/// Nodes, numbered from 1: `172.30.0.N` and `fd99::N` on their `eth0`.
pub(crate) struct Cluster {
    pub(crate) directory: TempDir,
    underlay: Netns,
    routed: bool,
}

pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) netns: Netns,
    pub(crate) subnet_file: PathBuf,
    leases: PathBuf,
    running: Option<(OverlayHandle, CancellationToken)>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let underlay = Netns::create().unwrap();
        // Snooping without a querier on the link loses neighbour solicitations. Without an address of its own a bridge takes that
        // of a port, and another one when the port goes: nodes would send to a router that is not there any more.
        run(&underlay, "ip link add br0 address 02:00:00:00:fe:00 type bridge mcast_snooping 0");
        run(&underlay, "ip link set br0 up");
        Self { directory: tempfile::tempdir().unwrap(), underlay, routed: false }
    }

    /// With a router, `.254` and `::fe`, to a second network: nodes from 10 to 19 are `172.30.1.N` and `fd99:0:0:1::N`.
    pub(crate) fn routed() -> Self {
        let cluster = Self { routed: true, ..Self::new() };
        for command in [
            "ip link add br1 address 02:00:00:00:fe:01 type bridge mcast_snooping 0",
            "ip link set br1 up",
            "ip address add 172.30.0.254/24 dev br0",
            "ip address add 172.30.1.254/24 dev br1",
            "ip address add fd99::fe/64 dev br0 nodad",
            "ip address add fd99:0:0:1::fe/64 dev br1 nodad",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ] {
            run(&cluster.underlay, command);
        }
        cluster
    }

    /// Where the bridge and the machines' `portN` are.
    pub(crate) fn underlay(&self) -> &Netns {
        &self.underlay
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.directory.path().join("leases")
    }

    pub(crate) fn lease_files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.leases().join("subnets"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A machine on the underlay, without an overlay yet.
    pub(crate) fn machine(&self, number: u8) -> Node {
        let netns = Netns::create().unwrap();
        let port = format!("port{number}");
        // That of a machine that is gone: the kernel takes its time to clear a namespace away.
        shell(&self.underlay, &format!("ip link delete {port}"));
        self.underlay
            .run(|| {
                let spec = VethSpec {
                    name: &port,
                    peer_name: "eth0",
                    peer_netns: Some(std::os::fd::AsFd::as_fd(&netns)),
                    mtu: Some(1500),
                    mac: None,
                    peer_mac: None,
                };
                Netlink::open().unwrap().create_veth(&spec).unwrap();
            })
            .unwrap();
        let far = u8::from(self.routed && (10..20).contains(&number));
        run(&self.underlay, &format!("ip link set {port} master br{far} up"));
        for command in [
            "ip link set lo up",
            "ip link set eth0 up",
            &format!("ip address add 172.30.{far}.{number}/24 dev eth0"),
            &format!("ip address add fd99:0:0:{far}::{number}/64 dev eth0 nodad"),
            &format!("ip route add default via 172.30.{far}.254"),
            &format!("ip route add default via fd99:0:0:{far}::fe"),
        ] {
            run(&netns, command);
        }
        let subnet_file = self.directory.path().join(format!("node{number}/subnet.env"));
        Node { number, netns, subnet_file, leases: self.leases(), running: None }
    }

    /// A machine whose overlay is up.
    pub(crate) fn node(&self, number: u8, net_conf: &str) -> Node {
        let mut node = self.machine(number);
        node.start(net_conf);
        node.until_ready();
        node
    }
}

impl Node {
    pub(crate) fn config(&self, net_conf: &str) -> OverlayConfig {
        OverlayConfig {
            node_name: format!("n{}", self.number),
            net_conf: NetConf::parse(net_conf, SubnetSource::Allocated).unwrap(),
            interface: InterfaceChoice::default(),
            ip_masq: true,
            forward_rules: true,
            conntrack_bypass: ConntrackBypass::Auto,
            checksum_offload: ChecksumOffload::Auto,
            subnet_file: self.subnet_file.clone(),
            check_interval: OverlayConfig::CHECK_INTERVAL,
        }
    }

    pub(crate) fn start(&mut self, net_conf: &str) {
        self.try_start(self.config(net_conf)).unwrap();
    }

    pub(crate) fn try_start(&mut self, config: OverlayConfig) -> Result<(), StartError> {
        let shutdown = CancellationToken::new();
        let leases = Arc::new(DirLeases::new(&self.leases));
        let token = shutdown.clone();
        let handle = self.netns.run(|| weft_overlay::start(config, leases, token)).unwrap()?;
        self.running = Some((handle, shutdown));
        Ok(())
    }

    /// As a killed agent: nothing is torn down.
    pub(crate) fn stop(&mut self) {
        if let Some((handle, shutdown)) = self.running.take() {
            shutdown.cancel();
            handle.join();
        }
    }

    pub(crate) fn status(&self) -> OverlayStatus {
        self.running.as_ref().unwrap().0.status().borrow().clone()
    }

    pub(crate) fn until_ready(&self) {
        until(Duration::from_secs(5), || match self.status() {
            status if status.ready => Ok(()),
            status => Err(format!("{status:?}")),
        });
    }

    /// Waits until the kernel has routes to that many peers.
    pub(crate) fn until_peers(&self, number: usize) {
        until(Duration::from_secs(5), || {
            let routes = self.run("ip route show dev flannel.1");
            if routes.lines().count() == number { Ok(()) } else { Err(routes) }
        });
    }

    pub(crate) fn run(&self, command: &str) -> String {
        run(&self.netns, command)
    }

    /// The number of its subnet, `10.244.N.0/24` and `fd44:0:0:N::/64`.
    pub(crate) fn subnet(&self) -> u8 {
        let status = self.status();
        match (status.ipv4.subnet, status.ipv6.and_then(|v6| v6.subnet)) {
            (Some(v4), _) => v4.split('.').nth(2).unwrap().parse().unwrap(),
            (_, v6) => v6.unwrap().split(':').nth(3).unwrap().parse().unwrap(),
        }
    }

    pub(crate) fn release(&self) {
        let leases = self.leases();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime
            .block_on(weft_overlay::LeaseManager::release(&leases, &LeaseHolder::named(format!("n{}", self.number))))
            .unwrap();
    }

    pub(crate) fn leases(&self) -> DirLeases {
        DirLeases::new(&self.leases)
    }

    /// A pod: a namespace behind a veth named after the address's end, with a /32 that is routed, as weft-cni makes them.
    pub(crate) fn pod(&self, address: IpAddr) -> Netns {
        let pod = Netns::create().unwrap();
        let name = format!(
            "pod{}",
            match address {
                IpAddr::V4(address) => u16::from(address.octets()[3]),
                IpAddr::V6(address) => address.segments()[7],
            }
        );
        let host = if address.is_ipv4() { "169.254.1.1" } else { "fe80::1" };
        self.netns
            .run(|| {
                let spec = VethSpec {
                    name: &name,
                    peer_name: "eth0",
                    peer_netns: Some(std::os::fd::AsFd::as_fd(&pod)),
                    mtu: self.running.as_ref().and_then(|_| self.status().mtu).or(Some(1430)),
                    mac: None,
                    peer_mac: None,
                };
                let netlink = Netlink::open().unwrap();
                netlink.create_veth(&spec).unwrap();
                let link = netlink.link_by_name(&name).unwrap().unwrap().index;
                let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
                netlink.replace_address(link, host.parse().unwrap(), options).unwrap();
                netlink.set_up(link).unwrap();
                let mut route = Route::new(address.into());
                route.link = Some(link);
                route.scope = weft_netlink::RouteScope::Link;
                netlink.replace_route(&route).unwrap();
            })
            .unwrap();
        for command in [
            "ip link set lo up".to_owned(),
            "ip link set eth0 up".to_owned(),
            format!("ip address add {address} dev eth0{}", if address.is_ipv6() { " nodad" } else { "" }),
            format!("ip route add {host} dev eth0"),
            format!("ip route add default via {host} dev eth0"),
        ] {
            run(&pod, &command);
        }
        pod
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}

/// Runs a script in a namespace; its output, whatever its exit code.
pub(crate) fn shell(netns: &Netns, script: &str) -> String {
    let output = netns.run(|| Command::new("sh").args(["-c", script]).output()).unwrap().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Runs a command in a namespace; its output.
pub(crate) fn run(netns: &Netns, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = netns.run(|| Command::new(words[0]).args(&words[1..]).output()).unwrap().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `check` succeeds; on a time-out panics with its last error.
#[track_caller]
pub(crate) fn until<T>(deadline: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > deadline => panic!("not within {deadline:?}: {last}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}
