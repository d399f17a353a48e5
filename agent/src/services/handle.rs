//! The way to speak to the Services thread.

use std::{collections::BTreeSet, net::IpAddr, sync::mpsc::Sender};

use tokio::sync::oneshot;

use super::measure::Measured;
use crate::{
    config::NodePortAddresses,
    source::SourceEvent,
    status::{ProxyStatus, RejectedObject, ServiceStatus},
    trace::Snapshot,
};

/// What the thread is told, or asked.
pub(super) enum Input {
    Source(SourceEvent),
    NodeAddresses(BTreeSet<IpAddr>),
    NodePortAddresses(NodePortAddresses),
    RulesRemoved,
    Report(oneshot::Sender<Report>),
    Measure(oneshot::Sender<Measured>),
    List { service: Option<String>, reply: oneshot::Sender<Vec<ServiceStatus>> },
    Snapshot(oneshot::Sender<Snapshot>),
}

/// Speaks to the Services thread, which ends with the last handle.
#[derive(Clone)]
pub(crate) struct Handle(pub(super) Sender<Input>);

/// What the thread says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// For `weft status`.
    pub(crate) proxy: ProxyStatus,
    /// Whether every kind was listed completely.
    pub(crate) source_synced: bool,
    /// Objects that were skipped.
    pub(crate) rejected: Vec<RejectedObject>,
    /// What keeps the source from being up to date.
    pub(crate) source_warnings: Vec<String>,
}

impl Handle {
    /// Passes on what a source says; `false` when the thread has ended.
    pub(crate) fn source_event(&self, event: SourceEvent) -> bool {
        self.0.send(Input::Source(event)).is_ok()
    }

    /// Sets the addresses of the node's interfaces; `false` when the thread has ended.
    pub(crate) fn node_addresses(&self, addresses: BTreeSet<IpAddr>) -> bool {
        self.0.send(Input::NodeAddresses(addresses)).is_ok()
    }

    /// Accepts NodePorts at other addresses; `false` when the thread has ended.
    pub(crate) fn node_port_addresses(&self, allowed: NodePortAddresses) -> bool {
        self.0.send(Input::NodePortAddresses(allowed)).is_ok()
    }

    /// Packet rules were removed, by whomever: whether ours are there is to be looked at now; `false` when the thread has ended.
    pub(crate) fn rules_removed(&self) -> bool {
        self.0.send(Input::RulesRemoved).is_ok()
    }

    /// All Services, or one by `namespace/name`; `None` when the thread has ended.
    pub(crate) async fn list(&self, service: Option<String>) -> Option<Vec<ServiceStatus>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Input::List { service, reply }).ok()?;
        answer.await.ok()
    }

    /// What is planned now, for a trace; `None` when the thread has ended.
    pub(crate) async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Input::Snapshot(reply)).ok()?;
        answer.await.ok()
    }

    /// Numbers for metrics; `None` when the thread has ended.
    pub(crate) async fn measure(&self) -> Option<Measured> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Input::Measure(reply)).ok()?;
        answer.await.ok()
    }

    /// How things stand; `None` when the thread has ended.
    pub(crate) async fn report(&self) -> Option<Report> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Input::Report(reply)).ok()?;
        answer.await.ok()
    }
}
