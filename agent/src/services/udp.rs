//! UDP flows and sockets that still lead to an endpoint that is gone. TCP ones are left alone: their connections end by
//! themselves (kube-proxy.md 4.13, 10.7).

use std::{path::PathBuf, time::Instant};

use tracing::{debug, warn};
use weft_netlink::Conntrack;
use weft_proxy::{conntrack, model::IpFamily, plan::Planner, udp_sockets};

use crate::metrics::Metrics;

/// Follows the planner's UDP changes, after the data planes carry them.
pub(crate) struct UdpCleanUp {
    cgroup_root: Option<PathBuf>,
    /// `None`: this kernel has no conntrack, so there is nothing in it.
    conntrack: Option<Conntrack>,
}

impl UdpCleanUp {
    /// `cgroup_root`: the processes in it are clients whose sockets may have to be closed.
    pub(crate) fn new(cgroup_root: Option<PathBuf>) -> Self {
        let conntrack =
            Conntrack::open().map_err(|error| warn!(%error, "stale UDP connections cannot be deleted")).ok();
        Self { cgroup_root, conntrack }
    }

    /// Deletes stale conntrack entries (section 10), and closes sockets that were connected to a gone endpoint.
    pub(crate) fn run(&mut self, planner: &mut Planner, metrics: &Metrics) {
        if !planner.take_udp_changes().is_empty() {
            for family in [IpFamily::V4, IpFamily::V6] {
                self.delete_stale(planner, family, metrics);
            }
        }
        let gone = planner.take_gone_udp_endpoints();
        if let (false, Some(root)) = (gone.is_empty(), &self.cgroup_root) {
            match udp_sockets::namespaces(root) {
                Ok(namespaces) => {
                    let closed = udp_sockets::close(&namespaces.found, &gone);
                    debug!(sockets = closed.sockets, ?gone, "closed sockets of gone endpoints");
                    for error in closed.failed {
                        warn!(%error, "a UDP socket still sends to an endpoint that is gone");
                    }
                }
                Err(error) => warn!(%error, root = %root.display(), "cannot find the clients of gone UDP endpoints"),
            }
        }
    }

    fn delete_stale(&mut self, planner: &Planner, family: IpFamily, metrics: &Metrics) {
        let Some(conntrack) = &mut self.conntrack else { return };
        let started = Instant::now();
        match conntrack::clean_up(conntrack, family, planner.udp_flows(family)) {
            Ok(cleaned) => {
                metrics.conntrack_cleaned(family, started.elapsed(), cleaned.deleted as u64);
                debug!(%family, deleted = cleaned.deleted, "deleted stale UDP connections");
                for error in cleaned.failed {
                    warn!(%error, "a stale UDP connection stays until it times out");
                }
            }
            Err(error) => warn!(%family, %error, "stale UDP connections stay until they time out"),
        }
    }
}
