//! The pods of this node as far as their traces tell: reservations, interfaces, host ports. For whoever looks at a node from
//! outside; reads only, and needs neither a runtime nor an agent.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use weft_netlink::Netlink;

use crate::{
    attachment::AttachmentId,
    error::Error,
    host_port,
    ipam::{self, Owner},
};

/// One interface of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `namespace/name`, if the runtime told it when the pod was made.
    pub name: Option<String>,
    /// ID of the container (with Kubernetes: of the sandbox).
    pub container_id: String,
    /// Name of the interface in the pod; old reservations of host-local do not have it.
    pub ifname: Option<String>,
    /// Name of the network.
    pub network: String,
    /// Addresses reserved for it, sorted.
    pub addresses: Vec<IpAddr>,
    /// The host's end of its interface; `None`: there is none that says whose it is, as with pods of the `bridge` plugin.
    pub host_interface: Option<String>,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<PodHostPort>,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodHostPort {
    /// Address and port of the node; the unspecified address is every one.
    pub host: SocketAddr,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Where it leads.
    pub pod: SocketAddr,
}

/// Why the pods cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// The directory of reservations cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// Directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The interfaces cannot be listed.
    #[error("list interfaces: {0}")]
    Netlink(#[from] weft_netlink::Error),
    /// The host ports cannot be listed.
    #[error("list host ports: {0}")]
    HostPorts(String),
}

/// All pods of which there is a reservation below `networks` (a directory for each network) or an interface in the calling
/// thread's network namespace, by name and container. A directory that is not there holds none.
///
/// # Errors
/// See [`PodsError`].
pub fn pods(networks: &Path) -> Result<Vec<Pod>, PodsError> {
    let mut pods: BTreeMap<(String, String, Option<String>), Pod> = BTreeMap::new();
    for (network, address, container_id, ifname) in reservations(networks)? {
        let key = (network.clone(), container_id.clone(), ifname.clone());
        pods.entry(key).or_insert_with(|| pod(network, container_id, ifname)).addresses.push(address);
    }
    for link in Netlink::open()?.links()? {
        let Some((id, name)) = link.alias.as_deref().and_then(AttachmentId::and_pod_of_alias) else { continue };
        let AttachmentId { network, owner: Owner { container_id, ifname } } = id;
        let key = (network.to_owned(), container_id.to_owned(), Some(ifname.to_owned()));
        let found = pods.entry(key).or_insert_with(|| pod(network.into(), container_id.into(), Some(ifname.into())));
        found.host_interface = Some(link.name.clone());
        found.name = name.map(str::to_owned);
    }
    let claims = host_port::all_claims(networks).map_err(|error: Error| PodsError::HostPorts(error.to_string()))?;
    let mut ports: HashMap<IpAddr, Vec<PodHostPort>> = HashMap::new();
    for claim in claims {
        let host = SocketAddr::new(claim.host, claim.host_port);
        let port = PodHostPort { host, protocol: claim.protocol.name(), pod: claim.pod };
        ports.entry(claim.pod.ip()).or_default().push(port);
    }
    let mut pods: Vec<Pod> = pods.into_values().collect();
    for pod in &mut pods {
        pod.addresses.sort_unstable();
        pod.host_ports.extend(pod.addresses.iter().filter_map(|address| ports.get(address)).flatten().cloned());
    }
    pods.sort_by(|a, b| {
        (a.name.is_none(), &a.name, &a.container_id).cmp(&(b.name.is_none(), &b.name, &b.container_id))
    });
    Ok(pods)
}

fn pod(network: String, container_id: String, ifname: Option<String>) -> Pod {
    Pod {
        name: None,
        container_id,
        ifname,
        network,
        addresses: Vec::new(),
        host_interface: None,
        host_ports: Vec::new(),
    }
}

/// Network, address, container and interface.
type Reservation = (String, IpAddr, String, Option<String>);

/// Every reservation. Files come and go meanwhile: those are passed over.
fn reservations(networks: &Path) -> Result<Vec<Reservation>, PodsError> {
    let mut reservations = Vec::new();
    for network in entries(networks)? {
        for file in entries(&networks.join(&network))? {
            let Some(address) = ipam::address_of_file(&file) else { continue };
            let Ok(text) = fs::read(networks.join(&network).join(&file)) else { continue };
            let text = String::from_utf8_lossy(&text);
            let (container_id, ifname) = ipam::holder(&text);
            if !container_id.is_empty() {
                reservations.push((network.clone(), address, container_id.to_owned(), ifname.map(str::to_owned)));
            }
        }
    }
    Ok(reservations)
}

fn entries(directory: &Path) -> Result<Vec<String>, PodsError> {
    let failed = |source| PodsError::Read { path: directory.to_owned(), source };
    match fs::read_dir(directory) {
        Ok(entries) => {
            let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
            names.collect::<io::Result<_>>().map_err(failed)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_of_every_network_are_read_and_other_files_are_not() {
        let root = tempfile::tempdir().unwrap();
        let network = root.path().join("weft");
        fs::create_dir_all(&network).unwrap();
        for (name, text) in [
            ("10.244.1.2", "abc\r\neth0"),
            ("10.244.1.3", "old"),
            ("last_reserved_ip.0", "10.244.1.3"),
            ("lock", ""),
            ("10.244.1.4", ""),
        ] {
            fs::write(network.join(name), text).unwrap();
        }
        let mut found = reservations(root.path()).unwrap();
        found.sort();
        let expected = [("10.244.1.2", "abc", Some("eth0")), ("10.244.1.3", "old", None)];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(ip, id, ifname)| ("weft".to_owned(), ip.parse().unwrap(), id.to_owned(), ifname.map(str::to_owned)))
            .collect();
        assert_eq!(found, expected);
        assert!(reservations(&root.path().join("nothing")).unwrap().is_empty());
    }
}
