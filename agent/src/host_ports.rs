//! Puts host ports back that somebody flushed; `weft-cni` itself runs when pods come and go, and at no other time.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{sync::Notify, task, time};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_cni::{HOST_PORTS_TABLE, restore_host_ports};
use weft_netlink::NftWatch;

/// How long after a notice of the kernel is looked: every pod with host ports that goes removes rules, and one look does for many.
const PAUSE: Duration = Duration::from_secs(1);

/// How often is looked anyway, for those in iptables.
const REGULARLY: Duration = Duration::from_secs(30);

/// Looks at once, after rules were removed, and now and then. `networks` is the directory of the plugin's files.
pub(crate) async fn look_after(networks: PathBuf, shutdown: CancellationToken) {
    let removed = Arc::new(Notify::new());
    if let Err(error) = notice(Arc::clone(&removed)) {
        warn!(%error, "no notices of removed host ports; the regular look finds them");
    }
    loop {
        look(&networks).await;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = removed.notified() => time::sleep(PAUSE).await,
            () = time::sleep(REGULARLY) => {}
        }
    }
}

async fn look(networks: &Path) {
    let networks = networks.to_owned();
    match task::spawn_blocking(move || restore_host_ports(&networks)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(ports)) => info!(ports, "host ports were missing and are back"),
        Ok(Err(error)) => warn!(%error, "host ports could not be looked at"),
        Err(error) => warn!(%error, "host ports could not be looked at"),
    }
}

/// Tells of removed rules, on a thread of its own. Without nftables there is nothing to tell.
fn notice(removed: Arc<Notify>) -> io::Result<()> {
    let Ok(watch) = NftWatch::open() else { return Ok(()) };
    let follow = move || {
        while watch.wait_removed(&[HOST_PORTS_TABLE]).is_ok() {
            removed.notify_one();
        }
        warn!("no more notices of removed host ports; the regular look finds them");
    };
    thread::Builder::new().name("host-ports".to_owned()).spawn(follow).map(drop)
}
