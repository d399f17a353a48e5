//! `weft cleanup`: takes everything of ours off the node.

use anyhow::Context;
use weft_overlay::{CleanupConfig, StoredSettings};

use crate::{
    cni_files,
    config::{Config, OverlayConfig},
    data_planes, pod_network,
    server::Server,
    source,
};

/// Goes on after a failure, so that as little as possible is left; reports all of them.
pub(crate) async fn remove_everything(config: Config) -> anyhow::Result<()> {
    // A running agent would put everything back.
    drop(Server::bind(&config.paths.run_dir).context("stop the agent first")?);
    let mut failures = Vec::new();
    let mut note = |result: anyhow::Result<()>| failures.extend(result.err().map(|error| format!("{error:#}")));
    if config.components.cni {
        note(cni_files::remove(&config.paths).context("CNI configuration"));
    }
    if config.components.proxy {
        for error in data_planes::remove_all(&config.proxy) {
            note(Err(error));
        }
    }
    if let Some(overlay) = &config.overlay {
        note(remove_overlay(&config, overlay).await);
    }
    note(source::kube::forget(&config.paths.run_dir).context("numbers of known objects"));
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// The network configuration may be in etcd; without it nobody knows what the devices are called.
async fn remove_overlay(config: &Config, overlay: &OverlayConfig) -> anyhow::Result<()> {
    let leases = pod_network::lease_manager(config, &overlay.subnet_manager, None).await?;
    let stored = match &overlay.net_conf {
        Some(_) => StoredSettings::default(),
        None => leases.settings(&config.node_name).await?,
    };
    let settings = CleanupConfig {
        net_conf: pod_network::net_conf(overlay, &stored)?,
        subnet_file: config.paths.subnet_file.clone(),
        node_name: config.node_name.clone(),
    };
    weft_overlay::cleanup(&settings, Some(leases.as_ref())).await?;
    Ok(())
}
