//! `--source kube`: Services, EndpointSlices and this Node, listed and watched at the API server.

mod access;
mod follow;
mod types;

use std::{fs, io, path::Path};

use kube::{Api, Client};
use weft_kube_watch::{ListGuard, Selection};
use weft_proxy::model::ObjectKind;

use super::SourceEvent;
pub(crate) use access::connect;
use follow::Follower;
use types::{WatchedEndpointSlice, WatchedNode, WatchedService};

/// kube-proxy.md 1.1: Services of other proxies and headless ones never reach us.
const SERVICE_LABELS: &str = "!service.kubernetes.io/service-proxy-name";
const SERVICE_FIELDS: &str = "spec.clusterIP!=None";
/// kube-proxy.md 1.2.
const SLICE_LABELS: &str = "!service.kubernetes.io/headless";

/// Files in `--run-dir` that hold how many objects there are.
const KNOWN_SERVICES: &str = "known-services";
const KNOWN_SLICES: &str = "known-endpointslices";
/// The one that the lease manager `kube` keeps there.
pub(crate) const KNOWN_NODES: &str = "known-nodes";

/// Follows all three kinds for as long as `deliver` takes what comes. How many objects there are is noted in `run_dir`, for
/// the next process to see a list that has lost most of them; `trusting` believes such a list.
pub(crate) async fn watch(
    client: Client,
    node: &str,
    run_dir: &Path,
    trusting: bool,
    deliver: impl Fn(SourceEvent) -> bool + Sync,
) {
    let services = Selection { labels: Some(SERVICE_LABELS.into()), fields: Some(SERVICE_FIELDS.into()), whole: false };
    let slices = Selection { labels: Some(SLICE_LABELS.into()), ..Selection::default() };
    let nodes = Selection { fields: Some(format!("metadata.name={node}")), ..Selection::default() };
    let guard = |name: &str| Some(ListGuard::new(trusting, Some(run_dir.join(name))));
    let follower = |kind, guard| Follower::new(kind, guard, &deliver);
    futures::join!(
        follower(ObjectKind::Service, guard(KNOWN_SERVICES))
            .follow::<WatchedService>(Api::all(client.clone()), services),
        follower(ObjectKind::EndpointSlice, guard(KNOWN_SLICES))
            .follow::<WatchedEndpointSlice>(Api::all(client.clone()), slices),
        // One object, whose loss changes little: its last state stays.
        follower(ObjectKind::Node, None).follow::<WatchedNode>(Api::all(client), nodes),
    );
}

/// Forgets how many objects there were: with the kernel state gone, a shorter list loses nothing.
///
/// # Errors
/// A file cannot be removed.
pub(crate) fn forget(run_dir: &Path) -> io::Result<()> {
    for name in [KNOWN_SERVICES, KNOWN_SLICES, KNOWN_NODES] {
        match fs::remove_file(run_dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_not_missed() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join(KNOWN_SERVICES), "10\n")?;
        forget(directory.path())?;
        forget(directory.path())?;
        assert_eq!(fs::read_dir(directory.path())?.count(), 0);
        Ok(())
    }
}
