//! Every flag of kube-proxy and of flanneld is understood (kube-proxy.md 16, flannel.md 2): who brings a command line of theirs
//! is told what has no effect here, and nothing else.

use std::collections::BTreeMap;

use super::tests::Files;

/// kube-proxy's flags, of 1.36 on Linux, with a value that is not the default. `mode` ipvs is refused, its flags are not.
const KUBE_PROXY: &[&str] = &[
    "--bind-address=127.0.0.1",
    "--bind-address-hard-fail",
    "--boot-id-file=/proc/sys/kernel/random/boot_id",
    "--cluster-cidr=10.244.0.0/16",
    "--config-sync-period=5m",
    "--conntrack-max-per-core=1",
    "--conntrack-min=2",
    "--conntrack-tcp-be-liberal",
    "--conntrack-tcp-timeout-close-wait=30m",
    "--conntrack-tcp-timeout-established=12h",
    "--conntrack-udp-timeout=20s",
    "--conntrack-udp-timeout-stream=40s",
    "--detect-local-mode=ClusterCIDR",
    "--feature-gates=A=true",
    "--healthz-bind-address=127.0.0.1:10256",
    "--healthz-port=10257",
    "--hostname-override=n2",
    "--init-only",
    "--iptables-localhost-nodeports=false",
    "--iptables-masquerade-bit=15",
    "--iptables-min-sync-period=2s",
    "--iptables-sync-period=40s",
    "--ipvs-exclude-cidrs=10.0.0.0/8",
    "--ipvs-min-sync-period=1s",
    "--ipvs-scheduler=rr",
    "--ipvs-strict-arp",
    "--ipvs-sync-period=31s",
    "--ipvs-tcp-timeout=1s",
    "--ipvs-tcpfin-timeout=1s",
    "--ipvs-udp-timeout=1s",
    "--kube-api-burst=11",
    "--kube-api-content-type=application/json",
    "--kube-api-qps=6",
    "--kubeconfig=",
    "--log-flush-frequency=6s",
    "--log-json-info-buffer-size=1",
    "--log-json-split-stream",
    "--log-text-info-buffer-size=1",
    "--log-text-split-stream",
    "--logging-format=json",
    "--machine-id-file=/etc/machine-id",
    "--masquerade-all",
    "--master=http://127.0.0.1:8080",
    "--metrics-bind-address=127.0.0.1:10249",
    "--metrics-port=10250",
    "--nodeport-addresses=192.0.2.0/24",
    "--oom-score-adj=-998",
    "--pod-bridge-interface=cni0",
    "--pod-interface-name-prefix=veth",
    "--profiling",
    "--proxy-mode=iptables",
    "--show-hidden-metrics-for-version=1.35",
    "--v=1",
    "--vmodule=a=1",
];

/// flanneld's flags, with a value that is not the default.
const FLANNELD: &[&str] = &[
    "--etcd-endpoints=http://127.0.0.1:2379",
    "--etcd-prefix=/weft",
    "--etcd-keyfile=/k",
    "--etcd-certfile=/c",
    "--etcd-cafile=/a",
    "--etcd-username=u",
    "--etcd-password=p",
    "--kube-subnet-mgr=false",
    "--kube-api-url=http://127.0.0.1:8080",
    "--kubeconfig-file=",
    "--kube-annotation-prefix=example.com/x",
    "--set-node-network-unavailable=false",
    "--iface=eth0",
    "--iface-regex=^eth",
    "--iface-can-reach=192.0.2.1",
    "--public-ip=192.0.2.1",
    "--public-ipv6=2001:db8::1",
    "--subnet-lease-renew-margin=30",
    "--ip-masq",
    "--ip-masq-fully-random-disable",
    "--iptables-resync=6",
    "--iptables-forward-rules=false",
    "--ip-blackhole-route",
    "--healthz-ip=127.0.0.1",
    "--healthz-port=8081",
    "--v=1",
    "--vmodule=a=1",
    "--log_backtrace_at=a.go:1",
    "--alsologtostderr",
    "--logtostderr",
];

/// Flags that name files or are told apart elsewhere, and need some preparation.
const WITH_FILES: [&str; 6] = ["config", "cleanup", "net-config-path", "subnet-file", "version", "write-config-to"];

/// What is said of each flag, given alone.
fn notices(flags: &[&'static str]) -> BTreeMap<&'static str, Vec<String>> {
    let files = Files::new();
    let load = |flag: &'static str| {
        let config = files.load(&[flag]).unwrap_or_else(|mistakes| panic!("{flag}: {mistakes:?}"));
        (flag, config.notices)
    };
    flags.iter().map(|flag| load(flag)).collect()
}

#[test]
fn section_16_every_flag_of_kube_proxy_is_understood() {
    for (flag, said) in notices(KUBE_PROXY) {
        let ipvs = flag.starts_with("--ipvs-");
        assert!(!ipvs || said.iter().any(|notice| notice.contains("no effect")), "{flag}: {said:?}");
        assert!(said.iter().all(|notice| notice.contains(flag.split('=').next().unwrap())), "{flag}: {said:?}");
    }
}

#[test]
fn flannel_section_2_every_flag_of_flanneld_is_understood() {
    for (flag, said) in notices(FLANNELD) {
        let nothing = ["--ip-masq-fully-random-disable", "--ip-blackhole-route"].contains(&flag);
        assert!(!nothing || said.iter().any(|notice| notice.contains("no effect")), "{flag}: {said:?}");
    }
}

#[test]
fn the_others_are_flags_too() {
    let command = crate::cli::command();
    let agent = command.find_subcommand("agent").unwrap();
    for flag in WITH_FILES {
        let names = |arg: &clap::Arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(flag) || aliases.contains(&flag)
        };
        // clap adds the version when it parses.
        assert!(flag == "version" || agent.get_arguments().any(names), "--{flag}");
    }
}
