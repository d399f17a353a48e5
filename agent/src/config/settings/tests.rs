use std::fs;

use super::super::tests::{Files, text};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// A configuration file with these lines after the head, as a flag.
fn file(files: &Files, lines: &str) -> String {
    fs::write(files.path("config.conf"), format!("{HEAD}{lines}")).unwrap();
    format!("--config={}", files.path("config.conf"))
}

/// What kubeadm 1.32 writes.
const KUBEADM: &str = r#"bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: ""
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

#[test]
fn what_kubeadm_writes_is_taken_without_a_word() {
    let files = Files::new();
    let config = files.load(&[&file(&files, KUBEADM)]).unwrap();
    assert_eq!(config.notices, [] as [&str; 0]);
    assert_eq!(config.servers.healthz, "0.0.0.0:10256".parse().ok());
    assert_eq!(config.servers.metrics, "127.0.0.1:10249".parse().unwrap());
    assert_eq!(config.servers.late_after.as_secs(), 60);
    assert_eq!(config.settings.get("clusterCIDR").origin.to_string(), format!("file {}:11", files.path("config.conf")));
    assert_eq!(config.settings.get("iptables.syncPeriod").origin.to_string(), "default");
}

#[test]
fn rule_14_15_unknown_fields_and_those_without_effect_are_said_with_their_lines() {
    let files = Files::new();
    let lines = "mode: ebpf\niptables:\n  masqeradeBit: 14\nipvs:\n  scheduler: wrr\nmode: iptables\n";
    let config = files.load(&[&file(&files, lines), "--proxy-mode=nftables", "--iptables-resync=9"]).unwrap();
    let path = files.path("config.conf");
    let notices = config.notices.join("\n");
    for expected in [
        format!("{path}:5: iptables.masqeradeBit: unknown field of KubeProxyConfiguration, ignored"),
        format!("{path}:7: ipvs.scheduler: has no effect: Weft has no ipvs mode"),
        "the last one counts".to_owned(),
        format!("flag --proxy-mode wins over {path}:8: mode"),
        "flag --iptables-resync: has no effect".to_owned(),
    ] {
        assert!(notices.contains(&expected), "{expected:?} is not in\n{notices}");
    }
    assert_eq!(config.notices.len(), 5, "{notices}");
}

#[test]
fn impossible_values_are_told_all_together_with_line_value_and_what_is_allowed() {
    let files = Files::new();
    let lines = "bindAddress: here\noomScoreAdj: -2000\niptables:\n  masqueradeBit: 32\n  syncPeriod: 1s\n  minSyncPeriod: 2s\nconntrack: {min: -1, udpTimeout: -1s}\nmetricsBindAddress: localhost:1\nhealthzBindAddress: 1.2.3.4:0\nlogging: {format: xml}\nenableProfiling: 1\nnodePortAddresses: 10.0.0.0/8\ndetectLocalMode: Guess\n";
    let mistakes = text(files.load(&[&file(&files, lines), "--enable-dsr"]));
    let path = files.path("config.conf");
    for expected in [
        format!("{path}:3: bindAddress: \"here\": not a valid textual representation of an IP address"),
        format!("{path}:4: oomScoreAdj: \"-2000\": must be within the range [-1000, 1000]"),
        format!("{path}:6: iptables.masqueradeBit: \"32\": must be within the range [0, 31]"),
        format!(
            "{path}:7: iptables.syncPeriod: \"1s\": must be greater than or equal to iptables.minSyncPeriod, which is 2s"
        ),
        format!("{path}:9: conntrack.min: \"-1\": must be greater than or equal to 0"),
        format!("{path}:9: conntrack.udpTimeout: \"-1s\": must be a duration such as 24h0m0s or 90s, not negative"),
        format!("{path}:10: metricsBindAddress: \"localhost:1\": must be a valid IP"),
        format!("{path}:11: healthzBindAddress: \"1.2.3.4:0\": must be a valid port"),
        format!("{path}:12: logging.format: \"xml\": Unsupported log format: must be text or json"),
        format!("{path}:13: enableProfiling: \"1\": must be true or false"),
        format!("{path}:14: nodePortAddresses: \"10.0.0.0/8\": must be a list of strings"),
        format!(
            "{path}:15: detectLocalMode: \"Guess\": must be ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix or blank"
        ),
        "--enable-dsr: \"true\": Weft runs on Linux; leave it out".to_owned(),
    ] {
        assert!(mistakes.contains(&expected), "{expected:?} is not in {mistakes:#?}");
    }
    assert_eq!(mistakes.len(), 13, "{mistakes:#?}");
}

#[test]
fn section_16_health_and_metrics_addresses() {
    let files = Files::new();
    let addresses = |flags: &[&str]| {
        let servers = files.load(flags).unwrap().servers;
        (servers.healthz.map_or("off".to_owned(), |at| at.to_string()), servers.metrics.to_string())
    };
    for (flags, healthz, metrics) in [
        (&[] as &[&str], "0.0.0.0:10256", "127.0.0.1:10249"),
        (&["--bind-address=::"], "[::]:10256", "[::1]:10249"),
        (&["--healthz-bind-address=", "--metrics-bind-address="], "0.0.0.0:10256", "127.0.0.1:10249"),
        (&["--healthz-port=0"], "off", "127.0.0.1:10249"),
        (&["--healthz-port=8081", "--metrics-port=9"], "0.0.0.0:8081", "127.0.0.1:9"),
        (&["--healthz-ip=127.0.0.1"], "127.0.0.1:10256", "127.0.0.1:10249"),
        (&["--healthz-bind-address=10.0.0.1", "--metrics-bind-address=[fd00::1]:7"], "10.0.0.1:10256", "[fd00::1]:7"),
        (&["--healthz-bind-address=10.0.0.1", "--healthz-port=7"], "10.0.0.1:7", "127.0.0.1:10249"),
    ] {
        assert_eq!(addresses(flags), (healthz.to_owned(), metrics.to_owned()), "{flags:?}");
    }
    let mistakes = text(files.load(&["--metrics-port=0", "--healthz-bind-address=x:1"]));
    assert_eq!(
        mistakes,
        ["--healthz-bind-address: \"x:1\": must be a valid IP", "--metrics-port: \"0\": must be a valid port"]
    );
}

#[test]
fn the_effective_configuration_is_a_kube_proxy_configuration() {
    let files = Files::new();
    let config = files.load(&["--masquerade-all", "--v=5", "--conntrack-min=7"]).unwrap();
    let document = config.settings.document();
    assert_eq!(document["kind"], "KubeProxyConfiguration");
    assert_eq!(document["hostnameOverride"], "n1");
    assert_eq!(document["iptables"]["masqueradeAll"], true);
    assert_eq!(document["conntrack"]["min"], 7);
    assert_eq!(document["logging"]["verbosity"], 5);
    assert_eq!(config.log.filter().split(',').nth(1), Some("weft=debug"));
    assert_eq!(config.settings.get("conntrack.min").origin.to_string(), "flag --conntrack-min");
}
