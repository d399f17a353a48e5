//! The entry: checks everything that can be checked, then starts the worker.

use std::{
    fs, io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use weft_netlink::{Event, Group, Monitor, Netlink, Stopper};

use crate::{
    interface::{self, InterfaceChoice, InterfaceError},
    lease::LeaseManager,
    netconf::{Backend, NetConf},
    offload::ChecksumOffload,
    packet_filter::ConntrackBypass,
    reconcile::{self, Settings},
    status::OverlayStatus,
};

/// Batches of events that may wait. When it is full the kernel's own buffer fills, and then says that it overran.
const EVENT_BATCHES: usize = 64;

/// Bit of CAP_NET_ADMIN in a capability set (linux/capability.h).
const CAP_NET_ADMIN: u64 = 1 << 12;

/// Configuration of a node's overlay.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    /// Name of this node; its lease is found again by it.
    pub node_name: String,
    /// The cluster's network.
    pub net_conf: NetConf,
    /// `--iface`, `--public-ip`, `--public-ipv6`.
    pub interface: InterfaceChoice,
    /// `--ip-masq`: masquerade pod traffic that leaves the cluster.
    pub ip_masq: bool,
    /// `--iptables-forward-rules`: let pods' packets be forwarded where iptables would drop them.
    pub forward_rules: bool,
    /// `--conntrack-bypass`.
    pub conntrack_bypass: ConntrackBypass,
    /// `--vtep-checksum-offload`.
    pub checksum_offload: ChecksumOffload,
    /// Where `subnet.env` goes.
    pub subnet_file: PathBuf,
    /// How often everything is looked at although nothing was reported: [`OverlayConfig::CHECK_INTERVAL`].
    pub check_interval: Duration,
}

impl OverlayConfig {
    /// The usual [`OverlayConfig::check_interval`]. Kernel events make repairs much sooner.
    pub const CHECK_INTERVAL: Duration = Duration::from_secs(30);
}

/// The overlay cannot be started. Nothing was changed on the node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process may not change the network.
    #[error("missing capability CAP_NET_ADMIN: the overlay makes devices and routes")]
    MissingCapability,
    /// No interface fits.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// `host-gw` behind a NAT: other nodes would send pods' packets to an address this node does not have.
    #[error(
        "backend host-gw cannot work behind a NAT: other nodes would route to {public_address}, but {interface} has {address}"
    )]
    BehindNat {
        /// `--public-ip` or `--public-ipv6`.
        public_address: IpAddr,
        /// The external interface.
        interface: String,
        /// Its address.
        address: IpAddr,
    },
    /// The kernel's network state cannot be read.
    #[error(transparent)]
    Netlink(#[from] weft_netlink::Error),
    /// A thread could not be started.
    #[error("start {name}: {source}")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A running overlay. Dropping it does not stop it; the shutdown token does.
#[derive(Debug)]
pub struct OverlayHandle {
    status: watch::Receiver<OverlayStatus>,
    worker: JoinHandle<()>,
}

impl OverlayHandle {
    /// The state, newest first; `changed()` fails once the overlay has stopped.
    pub fn status(&self) -> watch::Receiver<OverlayStatus> {
        self.status.clone()
    }

    /// Blocks until the overlay has stopped, and hands on its panic if that was why.
    pub fn join(self) {
        if let Err(panic) = self.worker.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Starts the overlay of the network namespace the *calling thread* is in, and keeps it as it should be until `shutdown`.
///
/// All kernel work happens on a thread started here, which stays in that namespace; the caller's thread may leave it. Device,
/// routes and rules stay in place after shutdown: traffic does not depend on the agent. [`crate::cleanup`] removes them.
/// Getting a lease may take for ever (no free subnet, server away); [`OverlayStatus::error`] says so meanwhile.
///
/// # Errors
/// [`StartError`]; the node is untouched then.
pub fn start(
    config: OverlayConfig,
    leases: Arc<dyn LeaseManager>,
    shutdown: CancellationToken,
) -> Result<OverlayHandle, StartError> {
    if !has_net_admin() {
        return Err(StartError::MissingCapability);
    }
    let netlink = Netlink::open()?;
    let inventory = interface::inventory(&netlink, &config.interface)?;
    let families: Vec<_> = config.net_conf.families().collect();
    let underlay = interface::choose(&config.interface, families.into_iter(), &inventory)?;
    if config.net_conf.backend == Backend::HostGw
        && let Some(natted) = underlay.values().find(|underlay| underlay.address != underlay.public_address)
    {
        return Err(StartError::BehindNat {
            public_address: natted.public_address,
            interface: natted.name.clone(),
            address: natted.address,
        });
    }
    // Before anything is read, so that no change falls between.
    let monitor = Monitor::open(&Group::ALL)?;
    let stopper = monitor.stopper();
    let (sender, events) = mpsc::channel(EVENT_BATCHES);
    spawn("weft-netlink", move || forward_events(&monitor, &sender))?;

    let (status_sender, status) = watch::channel(OverlayStatus::default());
    let start = reconcile::Start {
        settings: Settings {
            node_name: config.node_name,
            net_conf: config.net_conf,
            interface: config.interface,
            ip_masq: config.ip_masq,
            forward_rules: config.forward_rules,
            conntrack_bypass: config.conntrack_bypass,
            checksum_offload: config.checksum_offload,
            subnet_file: config.subnet_file,
        },
        netlink,
        underlay,
        events,
        leases,
        status: status_sender,
        check_interval: config.check_interval,
        shutdown,
    };
    let worker = spawn("weft-overlay", move || work(start, &stopper))?;
    Ok(OverlayHandle { status, worker })
}

fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new().name(name.into()).spawn(work).map_err(|source| StartError::Thread { name, source })
}

/// Stops the event thread also when the worker panics.
struct StopOnDrop<'a>(&'a Stopper);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn work(start: reconcile::Start, stopper: &Stopper) {
    let _stop = StopOnDrop(stopper);
    // One thread: netlink calls block it for microseconds, and must stay in this thread's namespace.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of this thread alone needs only two file descriptors");
    runtime.block_on(reconcile::run(start));
    // A lease manager waiting for a lock or a server must not hold up the exit.
    runtime.shutdown_background();
}

fn forward_events(monitor: &Monitor, sender: &mpsc::Sender<Vec<Event>>) {
    loop {
        match monitor.wait() {
            Ok(events) if events.is_empty() => return,
            Ok(events) => {
                if sender.blocking_send(events).is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "no more kernel events; changes are found by the regular look");
                return;
            }
        }
    }
}

/// Whether this thread may change its network. Unreadable `/proc`: the first change will tell.
fn has_net_admin() -> bool {
    let Ok(status) = fs::read_to_string("/proc/thread-self/status") else {
        return true;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_none_or(|set| set & CAP_NET_ADMIN != 0)
}
