//! The part of a pass that rtnetlink does not show: parameters, packet rules, checksum offload, `subnet.env`.

use std::time::Instant;

use tracing::{info, warn};

use super::{Cause, Reconciler, Task};
use crate::{
    bridge_answers,
    family::Family,
    forwarding, offload,
    packet_filter::{FilterRules, PodNetworks},
    plan::ObjectKind,
    subnet_env::{SubnetEnv, SubnetEnvFamily},
};

impl Reconciler {
    /// Puts right what is due of it; `kernel`: the other part is well.
    pub(super) fn rest(&mut self, cause: Cause, now: Instant, kernel: bool) {
        let forwarding = self.attempt(Task::Forwarding, ObjectKind::Sysctl, cause, now, |node| {
            forwarding::ensure(&node.desired, &node.underlay, &mut node.sysctls).map_err(|error| error.to_string())
        });
        let rules = self.attempt(Task::PacketFilter, ObjectKind::PacketFilter, cause, now, |node| {
            // Where changes are told, nothing is looked at without need: each look starts programs (flannel-defects.md E.4).
            let verify = (cause == Cause::Check && !node.packet_filter.watched) || node.packet_filter.must_look(now);
            let rules = node.filter_rules();
            node.packet_filter.ensure(&rules, verify, now).map(u64::from).map_err(|error| error.to_string())
        });
        let offload = self.attempt(Task::Offload, ObjectKind::Device, cause, now, |node| {
            offload::ensure(node.settings.checksum_offload, &node.devices).map_err(|error| error.to_string())
        });
        self.answer_for_pods(cause, now);
        // Pods are started as soon as the file is there.
        if kernel && forwarding && rules && offload {
            self.complete = self
                .attempt(Task::SubnetFile, ObjectKind::SubnetFile, cause, now, |node| node.write_subnet_env())
                || self.complete;
        }
    }

    /// Runs one of the tasks outside netlink; true if all is well. `work` returns how much it had to change.
    fn attempt(
        &mut self,
        task: Task,
        kind: ObjectKind,
        cause: Cause,
        now: Instant,
        work: impl FnOnce(&mut Self) -> Result<u64, String>,
    ) -> bool {
        if self.retries.is_waiting(&task, now) {
            return false;
        }
        match work(self) {
            Ok(changes) => {
                let repair = cause != Cause::NewDesired && self.complete && !self.retries.has_failed(&task);
                if changes > 0 && repair {
                    info!(?kind, after = self.since_notice().map(tracing::field::debug), "repaired");
                    *self.repairs.entry(kind).or_default() += changes;
                }
                self.retries.forget(&task);
                true
            }
            Err(error) => {
                warn!(?task, error, "failed, will be tried again");
                self.retries.failed(task, now, error);
                false
            }
        }
    }

    /// Not counted: pods come and go.
    fn answer_for_pods(&mut self, cause: Cause, now: Instant) {
        let Some(subnet) = self.desired.families.get(&Family::V6).map(|state| state.subnet) else { return };
        if self.pods_changed || cause == Cause::Check || self.retries.has_failed(&Task::BridgeAnswers) {
            let done = self.attempt(Task::BridgeAnswers, ObjectKind::Neighbour, cause, now, |node| {
                let answers = bridge_answers::ensure(&node.netlink, subnet);
                answers.map(|()| 0).map_err(|error| error.to_string())
            });
            self.pods_changed &= !done;
        }
    }

    fn filter_rules(&self) -> FilterRules {
        let families = self.desired.families.values();
        FilterRules {
            networks: families.map(|state| PodNetworks { network: state.network, subnet: state.subnet }).collect(),
            masquerade: self.settings.ip_masq,
            forward: self.settings.forward_rules,
            bypass: self.settings.conntrack_bypass,
            nftables: self.settings.net_conf.nftables,
        }
    }

    fn write_subnet_env(&self) -> Result<u64, String> {
        let family = |family| {
            self.desired
                .families
                .get(&family)
                .map(|state| SubnetEnvFamily { network: state.network, subnet: state.subnet })
        };
        let mtu = self.pod_mtu().ok_or("no family is up")?;
        let env = SubnetEnv { ipv4: family(Family::V4), ipv6: family(Family::V6), mtu, ip_masq: self.settings.ip_masq };
        env.write(&self.settings.subnet_file).map(u64::from).map_err(|error| error.to_string())
    }

    /// The file has one MTU for both families, so it is the smaller.
    pub(super) fn pod_mtu(&self) -> Option<u32> {
        self.desired.families.values().map(|family| family.pod_mtu).min()
    }
}
