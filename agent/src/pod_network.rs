//! Starts the pod network with the chosen lease manager, once everything it has to know is known.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};
use weft_overlay::{
    DirLeases, EtcdLeases, KubeLeaseConfig, KubeLeases, LeaseManager, NetConf, OverlayHandle, OverlayStatus,
    StoredSettings, SubnetSource,
};

use crate::{
    config::{Config, OverlayConfig, SubnetManager},
    metrics::Metrics,
    source,
};

/// How soon the lease manager is asked again for what is missing.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_LONGEST: Duration = Duration::from_secs(10);

/// Starts the pod network; its status is there at once, also while it waits.
///
/// With `etcd` the network configuration may be kept there, with `kube` the Node may say at which address it is reached. Both
/// are read first, for as long as that takes: the agent answers meanwhile, and what it did before goes on working.
///
/// # Errors
/// The lease manager cannot be used, or the node's network cannot be managed.
pub(crate) async fn start(
    config: &Config,
    overlay: &OverlayConfig,
    metrics: &Arc<Metrics>,
    shutdown: &CancellationToken,
) -> anyhow::Result<watch::Receiver<OverlayStatus>> {
    let leases = lease_manager(config, &overlay.subnet_manager, Some(metrics)).await?;
    let waiting = Waiting { config: config.clone(), overlay: overlay.clone(), leases };
    let shutdown = shutdown.clone();
    if overlay.net_conf.is_some() && !matches!(overlay.subnet_manager, SubnetManager::Kube(_)) {
        return Ok(waiting.start(&StoredSettings::default(), shutdown)?.status());
    }
    let error = Some("waiting for the lease manager".to_owned());
    let subnet_manager = waiting.leases.describe();
    let (sender, status) = watch::channel(OverlayStatus { subnet_manager, error, ..OverlayStatus::default() });
    let work = async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async { hand_on(&waiting.start_when_known(&sender, &shutdown).await, &sender).await } => {}
        }
    };
    tokio::spawn(work.instrument(info_span!("pod network")));
    Ok(status)
}

/// The lease manager of this node. Only `kube` can fail: its access is checked, though not whether anybody answers.
///
/// # Errors
/// There is no way to the API server.
pub(crate) async fn lease_manager(
    config: &Config,
    manager: &SubnetManager,
    metrics: Option<&Arc<Metrics>>,
) -> anyhow::Result<Arc<dyn LeaseManager>> {
    Ok(match manager {
        SubnetManager::Dir(path) => Arc::new(DirLeases::new(path)),
        SubnetManager::Etcd(etcd) => Arc::new(EtcdLeases::new(etcd.clone())),
        SubnetManager::Kube(kube) => {
            let (client, _) = source::kube::connect(&kube.access, metrics).await.context("subnet leases")?;
            let config = KubeLeaseConfig {
                node_name: config.node_name.clone(),
                annotation_prefix: kube.annotation_prefix.clone(),
                set_network_unavailable: kube.set_network_unavailable,
                trust_empty_lists: kube.access.trust_empty_lists,
                known_nodes: Some(config.paths.run_dir.join(source::kube::KNOWN_NODES)),
            };
            Arc::new(KubeLeases::new(client, config))
        }
    })
}

/// The network configuration: that of the file, or else the one the lease manager keeps.
///
/// # Errors
/// There is none, or it is wrong.
pub(crate) fn net_conf(overlay: &OverlayConfig, stored: &StoredSettings) -> anyhow::Result<NetConf> {
    if let Some(net_conf) = &overlay.net_conf {
        return Ok(net_conf.clone());
    }
    let text =
        stored.net_conf.as_deref().context("etcd has no network configuration below --etcd-prefix: key config")?;
    NetConf::parse(text, SubnetSource::Allocated).map_err(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("key config below --etcd-prefix: {}", mistakes.join("; "))
    })
}

/// An overlay whose configuration is not complete yet.
struct Waiting {
    config: Config,
    overlay: OverlayConfig,
    leases: Arc<dyn LeaseManager>,
}

impl Waiting {
    fn start(&self, stored: &StoredSettings, shutdown: CancellationToken) -> anyhow::Result<OverlayHandle> {
        let overlay = &self.overlay;
        let mut interface = overlay.interface.clone();
        interface.public_ip = stored.public_ip.or(interface.public_ip);
        interface.public_ipv6 = stored.public_ipv6.or(interface.public_ipv6);
        let settings = weft_overlay::OverlayConfig {
            node_name: self.config.node_name.clone(),
            net_conf: net_conf(overlay, stored)?,
            interface,
            ip_masq: overlay.ip_masq,
            forward_rules: overlay.forward_rules,
            conntrack_bypass: overlay.conntrack_bypass,
            checksum_offload: overlay.checksum_offload,
            subnet_file: self.config.paths.subnet_file.clone(),
            check_interval: weft_overlay::OverlayConfig::CHECK_INTERVAL,
        };
        weft_overlay::start(settings, Arc::clone(&self.leases), shutdown).context("pod network")
    }

    async fn start_when_known(
        &self,
        status: &watch::Sender<OverlayStatus>,
        shutdown: &CancellationToken,
    ) -> OverlayHandle {
        let mut again = AGAIN_FIRST;
        loop {
            let stored = self.leases.settings(&self.config.node_name).await.map_err(anyhow::Error::from);
            match stored.and_then(|stored| self.start(&stored, shutdown.clone())) {
                Ok(handle) => return handle,
                Err(error) => {
                    let error = format!("{error:#}");
                    warn!(error, "the pod network is not started yet");
                    status.send_modify(|status| status.error = Some(error));
                }
            }
            tokio::time::sleep(again).await;
            again = (again * 2).min(AGAIN_LONGEST);
        }
    }
}

/// Copies the status until the overlay has stopped.
async fn hand_on(handle: &OverlayHandle, status: &watch::Sender<OverlayStatus>) {
    let mut overlay = handle.status();
    let empty = OverlayStatus::default();
    // What was waited for stays to be seen until there is more to say.
    while let Ok(now) = overlay.wait_for(|now| *now != empty).await.map(|now| now.clone()) {
        status.send_replace(now);
        if overlay.changed().await.is_err() {
            return;
        }
    }
}
