//! What the container runtime reads: the plugin's binary, and the configuration list whose presence tells kubelet that
//! the node's network is ready.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::{sync::watch, time};
use tracing::{error, info};
use weft_overlay::OverlayStatus;

use crate::cli::PathArgs;

/// Early in the order of names: the runtime takes the first configuration it finds.
const LIST: &str = "10-weft.conflist";

/// Where the plugin keeps its reservations, below `--state-dir`.
pub(crate) const NETWORKS: &str = "cni/networks";

/// The plugin; its name is the `type` in the list.
const PLUGIN: &str = "weft-cni";

/// How soon an installation that failed is tried again: a disk may have been full, or mounted late.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells the runtime that pods can be started, once that is so.
pub(crate) async fn install_when_ready(paths: PathArgs, mut overlay: watch::Receiver<OverlayStatus>) {
    let device = match overlay.wait_for(|status| status.ready).await {
        Ok(status) => status.ipv4.device.clone().or_else(|| status.ipv6.as_ref()?.device.clone()),
        Err(_) => return,
    };
    keep_trying(|| install(&paths, &beside()?, device.as_deref()), AGAIN).await;
    info!(directory = %paths.cni_conf_dir.display(), "CNI configuration is in place");
}

async fn keep_trying(attempt: impl Fn() -> Result<()>, pause: Duration) {
    while let Err(error) = attempt() {
        error!("the runtime gets no CNI configuration, so no pod can start: {error:#}");
        time::sleep(pause).await;
    }
}

/// Where the plugin lies that came with the running agent.
fn beside() -> Result<PathBuf> {
    Ok(std::env::current_exe().context("path of the running program")?.with_file_name(PLUGIN))
}

/// Installs the plugin `beside` the agent, and then the list. `device` is the overlay's, if its backend has one: without it
/// STATUS says that running pods are impaired.
///
/// # Errors
/// A directory cannot be written, or there is no plugin.
fn install(paths: &PathArgs, beside: &Path, device: Option<&str>) -> Result<()> {
    let installed = paths.cni_bin_dir.join(PLUGIN);
    if beside.is_file() {
        let plugin = fs::read(beside).with_context(|| format!("read {}", beside.display()))?;
        replace(&installed, &plugin, 0o755)?;
    }
    ensure!(installed.is_file(), "there is neither {} nor {}", beside.display(), installed.display());
    replace(&list_path(paths), list(paths, device).as_bytes(), 0o644)
}

/// Removes the list; a missing one is fine. The plugin stays: the runtime needs it to remove the pods that still run.
///
/// # Errors
/// The file cannot be removed.
pub(crate) fn remove(paths: &PathArgs) -> io::Result<()> {
    match fs::remove_file(list_path(paths)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts a file in place at once. One with the same content is left alone, so that the runtime does not reload.
///
/// The temporary file lies in the same directory, under a name the runtime does not load: containerd's watcher ignores
/// creations and moves from elsewhere, but sees a rename inside the directory (cni.md section 10). A running plugin
/// keeps its old file (writing into that would fail with ETXTBSY).
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.new"));
    let write = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(&temporary, content)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

fn list_path(paths: &PathArgs) -> PathBuf {
    paths.cni_conf_dir.join(LIST)
}

/// Runtimes that know `cniVersions` take the latest they speak, and with 1.1.0 ask for STATUS and GC; the others read
/// `cniVersion`, which containerd 1.6 understands.
fn list(paths: &PathArgs, device: Option<&str>) -> String {
    let text = |path: &Path| path.display().to_string();
    let mut plugin = json!({
        "type": PLUGIN,
        "capabilities": { "portMappings": true, "bandwidth": true },
        "subnetFile": text(&paths.subnet_file),
        "dataDir": text(&paths.state_dir.join(NETWORKS)),
        "sharedWith": [text(&flannels_reservations(paths))],
    });
    if let Some(device) = device {
        plugin["overlayDevice"] = device.into();
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "weft",
        "plugins": [plugin],
    });
    format!("{list:#}\n")
}

/// Where pods of flannel's time have their addresses: `/var/lib/cni` beside `/var/lib/weft`; `cbr0` is the name of the
/// network in flannel's manifest.
fn flannels_reservations(paths: &PathArgs) -> PathBuf {
    paths.state_dir.with_file_name("cni").join("networks/cbr0")
}

#[cfg(test)]
mod tests;
