//! What is looked at when somebody asks: the state of the parts, and counters the kernel keeps.

use std::sync::{Mutex, PoisonError, atomic::AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use weft_overlay::{OverlayStatus, PeerState};

use super::{Counters, Labels, by_family, process};
use crate::services::{Measured, Report};

type Gauges = Family<Labels, Gauge>;

/// A look at all parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scraped {
    /// Of the Services thread.
    pub(crate) measured: Option<Measured>,
    /// Its report.
    pub(crate) report: Option<Report>,
    /// Of the pod network.
    pub(crate) overlay: Option<OverlayStatus>,
}

/// Series that are written anew at each look.
#[derive(Debug)]
pub(super) struct Families {
    /// One look at a time: series are taken away and put back.
    looking: Mutex<()>,
    build_info: Gauges,
    no_local: Gauges,
    pending: Gauges,
    endpoint_pending: Gauges,
    iptables_failures: Counters,
    nftables_failures: Counters,
    failures: Counters,
    connections: Counters,
    map_used: Gauges,
    map_capacity: Gauges,
    peers: Gauges,
    peers_up: Gauges,
    ready: Gauges,
    repairs: Counters,
    rejected: Gauges,
    services: Gauges,
    service_ports: Gauges,
    endpoints: Gauges,
    memory: Gauges,
    virtual_memory: Gauges,
    cpu: Family<Labels, Counter<f64, AtomicU64>>,
    started: Family<Labels, Gauge<f64, AtomicU64>>,
    open_files: Gauges,
    max_files: Gauges,
}

macro_rules! families {
    ($registry:ident, $($prefix:literal { $($field:ident $name:literal $help:literal)* })*) => {{
        $($(let $field: Family<_, _> = Family::default();)*)*
        $(
            let registry = $registry.sub_registry_with_prefix($prefix);
            $(registry.register($name, $help, $field.clone());)*
        )*
        Families { looking: Mutex::new(()), $($($field,)*)* }
    }};
}

impl Families {
    /// Registers all; counters get `_total` at the end of their names when they are written.
    pub(super) fn register(registry: &mut Registry) -> Self {
        families! { registry,
            "kubeproxy" {
                no_local "sync_proxy_rules_no_local_endpoints_total"
                    "Services with a Local policy and without an endpoint on this node"
                pending "sync_proxy_rules_service_changes_pending" "Changes of Services to be written"
                endpoint_pending "sync_proxy_rules_endpoint_changes_pending" "Changes of EndpointSlices to be written"
                iptables_failures "sync_proxy_rules_iptables_restore_failures" "Syncs that failed in iptables mode"
                nftables_failures "sync_proxy_rules_nftables_sync_failures" "Syncs that nftables failed at"
            }
            "weft" {
                build_info "build_info" "Always 1, with the version"
                failures "data_plane_failures" "Times a data plane could not be brought up to date"
                connections "service_connections"
                    "Connections this node gave to the endpoints of a Service port; namespace and name are empty for the sum of all after the first 500"
                map_used "map_elements_used" "Elements of a data plane's map that are taken"
                map_capacity "map_elements_max" "Elements a data plane's map has"
                peers "peers" "Other nodes of the pod network"
                peers_up "peers_up" "Other nodes whose entries are in the kernel"
                ready "component_ready" "Whether a part does its work"
                repairs "repairs" "Kernel objects that somebody else changed or removed and the agent put right"
                rejected "rejected_objects" "Objects that cannot be used; their last good state stays in force"
                services "services" "Services with a planned port"
                service_ports "service_ports" "Planned Service ports, of each family"
                endpoints "endpoints" "Endpoints of all Service ports"
            }
            "process" {
                memory "resident_memory_bytes" "Memory in RAM"
                virtual_memory "virtual_memory_bytes" "Address space"
                cpu "cpu_seconds" "Time on CPUs"
                started "start_time_seconds" "When the agent started"
                open_files "open_fds" "Open files"
                max_files "max_fds" "Files that may be open"
            }
        }
    }

    /// Writes what was seen into the series.
    pub(super) fn set(&self, scraped: &Scraped) {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.build_info.get_or_create(&version).set(1);
        for counters in [&self.repairs, &self.failures, &self.connections] {
            counters.clear();
        }
        for gauges in [&self.peers, &self.peers_up, &self.ready, &self.map_used, &self.map_capacity] {
            gauges.clear();
        }
        if let Some(measured) = &scraped.measured {
            self.set_measured(measured);
        }
        if let Some(report) = &scraped.report {
            self.set_report(report);
        }
        if let Some(overlay) = &scraped.overlay {
            self.set_overlay(overlay);
        }
        self.set_process();
    }

    fn set_measured(&self, measured: &Measured) {
        for (family, counts) in &measured.no_local {
            for (policy, count) in [("internal", counts.internal), ("external", counts.external)] {
                let labels = [vec![("traffic_policy", policy.to_owned())], by_family(*family)].concat();
                self.no_local.get_or_create(&labels).set(as_i64(count));
            }
        }
        for (plane, failures) in &measured.failures {
            total(&self.failures, vec![("data_plane", (*plane).to_owned())], *failures);
            let kube_proxys = match *plane {
                "iptables" => &self.iptables_failures,
                "nftables" => &self.nftables_failures,
                _ => continue,
            };
            kube_proxys.clear();
            total(kube_proxys, by_family(weft_proxy::model::IpFamily::V4), *failures);
        }
        for (key, connections) in &measured.connections {
            let name = &key.port;
            let labels = [
                ("namespace", name.service.namespace.to_string()),
                ("name", name.service.name.to_string()),
                ("port", name.port.to_string()),
                ("protocol", name.protocol.to_string()),
            ];
            let labels = [labels.to_vec(), by_family(key.family)].concat();
            total(&self.connections, labels, *connections);
        }
        if let Some(connections) = measured.connections_of_others {
            let labels = ["namespace", "name", "port", "protocol", "ip_family"].map(|label| (label, String::new()));
            total(&self.connections, labels.to_vec(), connections);
        }
    }

    fn set_report(&self, report: &Report) {
        let proxy = &report.proxy;
        self.component("proxy", proxy.synced);
        total(&self.repairs, object("Services"), proxy.repairs);
        self.rejected.get_or_create(&Vec::new()).set(as_i64(report.rejected.len()));
        self.services.get_or_create(&Vec::new()).set(as_i64(proxy.services));
        self.service_ports.get_or_create(&Vec::new()).set(as_i64(proxy.service_ports));
        self.endpoints.get_or_create(&Vec::new()).set(as_i64(proxy.endpoints));
        // What changes is written before the thread answers.
        self.pending.get_or_create(&Vec::new()).set(0);
        self.endpoint_pending.get_or_create(&Vec::new()).set(0);
        for map in &proxy.maps {
            let labels = vec![("map", map.name.clone())];
            self.map_used.get_or_create(&labels).set(map.used.into());
            self.map_capacity.get_or_create(&labels).set(map.max.into());
        }
    }

    fn set_overlay(&self, overlay: &OverlayStatus) {
        self.component("overlay", overlay.ready);
        let up = overlay.peers.iter().filter(|peer| peer.state == PeerState::Up).count();
        self.peers.get_or_create(&Vec::new()).set(as_i64(overlay.peers.len()));
        self.peers_up.get_or_create(&Vec::new()).set(as_i64(up));
        for (kind, repairs) in &overlay.repairs_by_kind {
            total(&self.repairs, object(&kind_name(kind)), *repairs);
        }
    }

    fn component(&self, name: &str, ready: bool) {
        self.ready.get_or_create(&vec![("component", name.to_owned())]).set(ready.into());
    }

    fn set_process(&self) {
        let Some(process) = process::look() else { return };
        let none = Vec::new();
        self.memory.get_or_create(&none).set(process.resident_bytes);
        self.virtual_memory.get_or_create(&none).set(process.virtual_bytes);
        self.open_files.get_or_create(&none).set(process.open_files);
        self.max_files.get_or_create(&none).set(process.max_files);
        self.started.get_or_create(&none).set(process.started);
        self.cpu.clear();
        self.cpu.get_or_create(&none).inc_by(process.cpu_seconds);
    }
}

/// The name `weft status` has for it too.
fn kind_name(kind: &weft_overlay::ObjectKind) -> String {
    serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn object(kind: &str) -> Labels {
    vec![("object", kind.to_owned())]
}

/// A counter that somebody else counts.
fn total(counters: &Counters, labels: Labels, value: u64) {
    counters.get_or_create(&labels).inc_by(value);
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
