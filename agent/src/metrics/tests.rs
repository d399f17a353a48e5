use std::{env, fmt::Write, fs, path::Path, sync::Arc, time::Duration};

use weft_overlay::{OverlayStatus, PeerState, PeerStatus};
use weft_proxy::{
    model::{IpFamily, ObjectKind, Protocol, ServiceName, ServicePortName},
    plan::{NoLocalEndpoints, PlanKey},
};

use super::{Metrics, Scraped, text};
use crate::{
    services::{Measured, Report},
    status::{MapStatus, ProxyStatus},
};

/// Every series there can be, once.
fn everything() -> (Metrics, Scraped) {
    let metrics = Metrics::new();
    metrics.queued();
    metrics.synced(Duration::from_millis(3), true, true);
    metrics.synced(Duration::from_millis(1), false, true);
    metrics.changed(ObjectKind::Service, 2);
    metrics.changed(ObjectKind::EndpointSlice, 3);
    metrics.programmed(IpFamily::V4, Duration::from_millis(900));
    metrics.healthz_answered(true);
    metrics.livez_answered(false);
    metrics.conntrack_cleaned(IpFamily::V4, Duration::from_millis(1), 4);
    metrics.api_answered("192.0.2.1:6443", "GET", Some(200), Duration::from_millis(4));
    metrics.api_answered("192.0.2.1:6443", "GET", None, Duration::from_millis(4));
    metrics.pod_added(Duration::from_millis(20), true);
    let service = ServiceName { namespace: Arc::from("default"), name: Arc::from("web") };
    let port = ServicePortName { service, port: Arc::from("http"), protocol: Protocol::Tcp };
    let measured = Measured {
        no_local: vec![(IpFamily::V4, NoLocalEndpoints { internal: 1, external: 2 })],
        failures: vec![("nftables", 5), ("iptables", 6)],
        connections: vec![(PlanKey { family: IpFamily::V4, port }, 7)],
        connections_of_others: Some(8),
    };
    let map = MapStatus { name: "FRONTENDS_V4".to_owned(), used: 9, max: 10, flag: None };
    let proxy = ProxyStatus { mode: "ebpf".to_owned(), synced: true, maps: vec![map], ..ProxyStatus::default() };
    let peer = PeerStatus {
        subnet: "10.244.2.0/24".to_owned(),
        subnet_v6: None,
        public_ip: None,
        vtep_mac: None,
        state: PeerState::Up,
        error: None,
    };
    let overlay = OverlayStatus { ready: true, peers: vec![peer], ..OverlayStatus::default() };
    let report = Report { proxy, ..Report::default() };
    (metrics, Scraped { measured: Some(measured), report: Some(report), overlay: Some(overlay) })
}

#[test]
fn kube_proxys_names_and_labels() {
    let (metrics, scraped) = everything();
    metrics.encode(&scraped);
    // A second look does not add to the first.
    let text = text::from_open_metrics(&metrics.encode(&scraped));
    for line in [
        "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 2",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
        "kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket{le=\"0.001\",ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"16.384\",ip_family=\"IPv4\"} 2",
        "kubeproxy_sync_proxy_rules_service_changes_total 2",
        "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.5\",ip_family=\"IPv4\"} 0",
        "kubeproxy_network_programming_duration_seconds_bucket{le=\"1.0\",ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 3",
        "kubeproxy_sync_proxy_rules_service_changes_pending 0",
        "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
        "kubeproxy_proxy_livez_total{code=\"503\"} 1",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\",ip_family=\"IPv4\"} 2",
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 5",
        "kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 6",
        "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 4",
        "weft_service_connections_total{namespace=\"default\",name=\"web\",port=\"http\",protocol=\"TCP\",ip_family=\"IPv4\"} 7",
        "weft_service_connections_total{namespace=\"\",name=\"\",port=\"\",protocol=\"\",ip_family=\"\"} 8",
        "weft_map_elements_used{map=\"FRONTENDS_V4\"} 9",
        "rest_client_requests_total{code=\"200\",host=\"192.0.2.1:6443\",method=\"GET\"} 1",
        "rest_client_requests_total{code=\"<error>\",host=\"192.0.2.1:6443\",method=\"GET\"} 1",
        "rest_client_request_duration_seconds_bucket{le=\"0.005\",host=\"192.0.2.1:6443\",verb=\"GET\"} 2",
        "weft_peers_up 1",
        "weft_cni_add_duration_seconds_count{result=\"success\"} 1",
        "# TYPE kubeproxy_proxy_healthz_total counter",
    ] {
        assert!(text.lines().any(|there| there == line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("EOF"));
    assert!(text.contains("process_resident_memory_bytes "));
}

const HEAD: &str = "# Metrics

Written from the code by `WEFT_UPDATE_DOCS=1 cargo test -p weft metrics`; a test fails when it is out of date.

`weft agent` serves them at `--metrics-bind-address`, 127.0.0.1:10249 unless told, as kube-proxy does:

```sh
curl -s http://127.0.0.1:10249/metrics
```

Those that start with `kubeproxy_` are kube-proxy's, with its names, types, labels and buckets; both address families are
written in one step, so that their times are the same. `network_programming_duration_seconds` begins where kube-proxy's does,
at the time in the EndpointSlice's annotation `endpoints.kubernetes.io/last-change-trigger-time`, and ends when the kernel has
the change. `rest_client_*` are those of requests to the API server that dashboards show. Not there are those of iptables rules
and packets, and of Go; nor `kubernetes_build_info`, since alerts compare it with Kubernetes' own version. For dashboards and
alerts that ask for `job=\"kube-proxy\"` there is `manifests/monitoring/as-kube-proxy.yaml`.

The same server answers `/metrics/slis` with `kubernetes_healthcheck` and `kubernetes_healthchecks_total`: how the checks of
each part (`name`) went that `/healthz`, `/livez` and `/readyz` (`type`) were asked for. `/statusz` says since when the agent
runs, `/flagz` with which flags, `/configz` with which configuration, `/proxyMode` in which mode.

A sample of each:

| metric | type | labels | meaning |
|---|---|---|---|
";

#[test]
fn docs_metrics_md_is_what_the_code_says() {
    let (metrics, scraped) = everything();
    let text = text::from_open_metrics(&metrics.encode(&scraped));
    let mut document = HEAD.to_owned();
    let mut rows = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        let sample = text.lines().find(|line| line.starts_with(name)).unwrap();
        let labels = sample.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
        let labels: Vec<_> = labels.filter(|name| *name != "le").map(|name| format!("`{name}`")).collect();
        rows.push(format!("| `{name}` | {kind} | {} | {help} |", labels.join(", ")));
    }
    rows.sort();
    for row in rows {
        let _ = writeln!(document, "{row}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if env::var_os("WEFT_UPDATE_DOCS").is_some() {
        fs::write(&path, document).unwrap();
        return;
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == document, "docs/metrics.md is out of date: run WEFT_UPDATE_DOCS=1 cargo test -p weft metrics");
}
