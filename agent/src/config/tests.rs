use std::{collections::BTreeSet, fs, net::IpAddr, time::Duration};

use weft_proxy::{conntrack::ConntrackParameters, model::NodeIps};

use super::{Config, Mistake, ProxyMode, SourceKind};
use crate::cli::{self, Command};

/// A directory with everything a good configuration needs.
pub(super) struct Files(tempfile::TempDir);

impl Files {
    pub(super) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::create_dir(files.path("manifests")).unwrap();
        fs::write(files.path("net-conf.json"), r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap();
        files
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub(super) fn load(&self, extra: &[&str]) -> Result<Config, Vec<Mistake>> {
        self.load_without("", extra)
    }

    /// Leaves out one of the usual flags.
    pub(super) fn load_without(&self, flag: &str, extra: &[&str]) -> Result<Config, Vec<Mistake>> {
        let source = format!("--source=dir:{}", self.path("manifests"));
        let leases = format!("--subnet-manager=dir:{}", self.path("leases"));
        let net_conf = format!("--net-conf={}", self.path("net-conf.json"));
        let mut args = vec!["weft", "agent", "--hostname-override=N1", &source, &leases, &net_conf];
        args.retain(|given| given.split('=').next() != Some(flag));
        args.retain(|given| !extra.iter().any(|new| new.split('=').next() == given.split('=').next()));
        args.extend(extra);
        let words = args.into_iter().map(Into::into);
        let Command::Agent(args) = cli::parse_from(words).unwrap().command else { unreachable!() };
        Config::load(&args.agent)
    }
}

pub(super) fn text(mistakes: Result<Config, Vec<Mistake>>) -> Vec<String> {
    mistakes.unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn good_flags_make_a_config() {
    let files = Files::new();
    let config = files.load(&[]).unwrap();
    assert_eq!(config.node_name, "n1");
    assert_eq!(config.source, SourceKind::Dir(files.path("manifests").into()));
    assert_eq!(config.proxy.mode, ProxyMode::Best);
    assert!(config.overlay.is_some());
}

#[test]
fn all_mistakes_are_reported_together() {
    let files = Files::new();
    fs::write(files.path("bad-net.json"), r#"{"Network":"10.244.0.0/33"}"#).unwrap();
    let net_conf = format!("--net-conf={}", files.path("bad-net.json"));
    let mistakes = text(files.load(&[
        "--components=overlay,dns",
        "--source=dir:/nowhere",
        "--proxy-mode=ipvs",
        "--nodeport-addresses=10.0.0.0/99",
        "--cgroup-root=/etc",
        "--hostname-override= ",
        "--conntrack-min=-4",
        "--ebpf-max-sets=many",
        "--iptables-masquerade-bit=32",
        &net_conf,
    ]));
    let expected = [
        "--components",
        "--source",
        "--hostname-override",
        "--proxy-mode",
        "--nodeport-addresses",
        "--cgroup-root",
        "--iptables-masquerade-bit",
        "--conntrack-min",
        "--ebpf-max-sets",
        &files.path("bad-net.json"),
    ];
    for (mistake, origin) in mistakes.iter().zip(expected) {
        assert!(mistake.starts_with(&format!("{origin}: ")), "{mistake}");
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
}

#[test]
fn the_net_conf_is_named_with_field_and_value() {
    let files = Files::new();
    fs::write(files.path("bad-net.json"), r#"{"Network":"10.244.0.0/33"}"#).unwrap();
    let flag = format!("--net-conf={}", files.path("bad-net.json"));
    let mistakes = text(files.load(&[&flag, "--public-ip=fd00::1"]));
    assert!(
        mistakes.iter().any(|mistake| mistake.contains("Network") && mistake.contains("10.244.0.0/33")),
        "{mistakes:?}"
    );
    assert!(
        mistakes.iter().any(|mistake| mistake == r#"--public-ip: "fd00::1": must be an IPv4 address"#),
        "{mistakes:?}"
    );
    let missing = text(files.load(&["--net-conf=/nowhere/net-conf.json"]));
    assert!(missing[0].starts_with(r#"--net-conf: "/nowhere/net-conf.json": cannot be read"#), "{missing:?}");
}

#[test]
fn the_kube_proxy_file_is_heeded_and_flags_win() {
    let files = Files::new();
    let kubeadm = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: \"\"\nclusterCIDR: 10.244.0.0/16\nhostnameOverride: FromFile\nnodePortAddresses: [192.0.2.0/24]\nclientConnection: {kubeconfig: \"\"}\n";
    fs::write(files.path("config.conf"), kubeadm).unwrap();
    let flag = format!("--kube-proxy-config={}", files.path("config.conf"));
    let config = files.load(&[&flag]).unwrap();
    assert_eq!(config.node_name, "n1");
    let node: BTreeSet<IpAddr> = ["192.0.2.7", "198.51.100.1", "fd00::1"].map(|ip| ip.parse().unwrap()).into();
    let selected = config.proxy.node_port_addresses.select(&node, NodeIps::default());
    let selected: Vec<_> = selected.iter().map(ToString::to_string).collect();
    assert_eq!(selected, ["192.0.2.7", "fd00::1"]);
}

#[test]
fn mistakes_in_the_kube_proxy_file_name_file_field_and_value() {
    let files = Files::new();
    fs::write(files.path("config.conf"), "apiVersion: v1\nkind: KubeProxyConfiguration\nmode: 7\n").unwrap();
    let path = files.path("config.conf");
    let mistakes = text(files.load(&[&format!("--config={path}")]));
    assert_eq!(
        mistakes,
        [
            format!("{path}:1: apiVersion: \"v1\": must be kubeproxy.config.k8s.io/v1alpha1"),
            format!("{path}:3: mode: \"7\": must be a string"),
        ]
    );
}

#[test]
fn what_follows_the_node_is_known_from_flag_or_file() {
    let files = Files::new();
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\ndetectLocalMode: NodeCIDR\nnodePortAddresses: [primary]\n";
    fs::write(files.path("config.conf"), text).unwrap();
    let flag = format!("--kube-proxy-config={}", files.path("config.conf"));
    let proxy = files.load(&[&flag]).unwrap().proxy;
    assert!(proxy.local_traffic_of_node && proxy.node_port_addresses.follows_node());
    let proxy =
        files.load(&[&flag, "--detect-local-mode=ClusterCIDR", "--nodeport-addresses=10.0.0.0/8"]).unwrap().proxy;
    assert!(!proxy.local_traffic_of_node && !proxy.node_port_addresses.follows_node());
}

#[test]
fn rule_10_10_conntrack_is_kube_proxys_section_and_flags_win() {
    let files = Files::new();
    assert_eq!(files.load(&[]).unwrap().proxy.conntrack, ConntrackParameters::default());
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let section =
        "conntrack: {maxPerCore: 0, min: null, tcpCloseWaitTimeout: 1m, tcpBeLiberal: true, udpTimeout: 0s}\n";
    fs::write(files.path("config.conf"), format!("{head}{section}")).unwrap();
    let flag = format!("--kube-proxy-config={}", files.path("config.conf"));
    let expected = ConntrackParameters {
        max_per_core: 0,
        tcp_close_wait_timeout: Duration::from_secs(60),
        tcp_be_liberal: true,
        udp_stream_timeout: Duration::from_secs(30),
        ..ConntrackParameters::default()
    };
    let proxy = files.load(&[&flag, "--conntrack-udp-timeout-stream=30s"]).unwrap().proxy;
    assert_eq!(proxy.conntrack, expected);
    let mistakes = text(files.load(&["--conntrack-udp-timeout=-5s"]));
    assert_eq!(
        mistakes,
        [r#"--conntrack-udp-timeout: "-5s": must be a duration such as 24h0m0s or 90s, not negative"#]
    );
}
