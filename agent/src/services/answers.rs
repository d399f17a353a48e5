//! What the thread says of itself when it is asked.

use weft_proxy::{dataplane::MapFill, plan::PacketSettings};

use super::{Report, Worker, handle::Input, measure, view};
use crate::{
    status::{MapStatus, ProxyStatus, RejectedObject},
    trace::{Mode, Rules, Snapshot},
};

impl Worker {
    pub(super) fn answer(&self, question: Input) {
        match question {
            Input::Report(reply) => {
                let _ = reply.send(self.report());
            }
            Input::Measure(reply) => {
                let _ = reply.send(measure::measure(&self.planner, &self.planes));
            }
            Input::List { service, reply } => {
                let _ = reply.send(view::services(&self.planner, &self.planes, service.as_deref()));
            }
            Input::Snapshot(reply) => {
                let _ = reply.send(self.snapshot());
            }
            Input::Source(_) | Input::NodeAddresses(_) | Input::NodePortAddresses(_) | Input::RulesRemoved => {}
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mode = match self.planes.name() {
            "ebpf" => Mode::Ebpf,
            "iptables" => Mode::Iptables,
            _ => Mode::Nftables,
        };
        let local_traffic = self.node.local_traffic().unwrap_or_else(|| self.packets.local_traffic.clone());
        let packets = PacketSettings { local_traffic, ..self.packets.clone() };
        let rules = Rules { mode, second_line: self.second_line, packets };
        Snapshot { desired: self.planner.desired().clone(), rules, error: self.planes.error() }
    }

    fn report(&self) -> Report {
        let counts = self.planner.counts();
        let proxy = ProxyStatus {
            mode: self.planes.name().to_owned(),
            synced: self.last_sync.is_some() && self.planes.error().is_none(),
            services: counts.services,
            service_ports: counts.service_ports,
            endpoints: counts.endpoints,
            last_sync: self.last_sync.map(|time| format!("{time:.3}")),
            last_error: self.planes.error(),
            repairs: self.repairs,
            maps: self.planes.fill().into_iter().map(map_status).collect(),
            health_checks: self.health_checks.status(),
            conntrack: self.conntrack.clone(),
            kube_proxy: self.takeover.left(),
        };
        let rejected = self.planner.rejected().map(|error| RejectedObject {
            object: error.object.to_string(),
            reason: format!("{}: {}", error.field, error.problem),
        });
        let left_out = self.planner.warnings().map(|warning| RejectedObject {
            object: warning.object.to_string(),
            reason: format!("{}: {}", warning.field, warning.problem),
        });
        let rejected = self.unreadable.iter().cloned().chain(rejected).chain(left_out).collect();
        let source_warnings = self.source_trouble.values().cloned().collect();
        Report { proxy, source_synced: self.unlisted.is_empty(), rejected, source_warnings }
    }
}

fn map_status(fill: MapFill) -> MapStatus {
    let MapFill { name, used, capacity: max, flag } = fill;
    MapStatus { name: name.to_owned(), used, max, flag: flag.map(str::to_owned) }
}
