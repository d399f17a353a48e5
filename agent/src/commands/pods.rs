//! `weft pods`: the pods of this node, read without the agent.

use std::{net::IpAddr, process::ExitCode};

use serde::Serialize;
use weft_cni::Pod;

use super::{finish, table::Table};
use crate::{cli::PodsArgs, cni_files::NETWORKS};

/// Exit code 1 when they cannot be read.
pub(crate) fn pods(args: &PodsArgs) -> ExitCode {
    let networks = args.state_dir.join(NETWORKS);
    let pods = match networks.exists() {
        true => weft_cni::pods(&networks).map_err(|error| error.to_string()),
        false => Err(format!(
            "{} does not exist: weft-cni has made no pod here, or --state-dir is another one",
            networks.display()
        )),
    };
    let pods = pods.map(|pods| pods.into_iter().map(PodStatus::from).collect::<Vec<_>>());
    finish(args.output, pods, |pods| table(pods))
}

/// An element of `weft pods -o json`. Field names are a contract: scripts read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    name: Option<String>,
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: Option<String>,
    network: String,
    addresses: Vec<IpAddr>,
    host_interface: Option<String>,
    host_ports: Vec<HostPort>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostPort {
    /// `null`: every address of the node.
    address: Option<IpAddr>,
    port: u16,
    protocol: &'static str,
    container_port: u16,
}

impl From<Pod> for PodStatus {
    fn from(pod: Pod) -> Self {
        let host_ports = pod.host_ports.iter().map(|port| HostPort {
            address: Some(port.host.ip()).filter(|address| !address.is_unspecified()),
            port: port.host.port(),
            protocol: port.protocol,
            container_port: port.pod.port(),
        });
        Self {
            host_ports: host_ports.collect(),
            name: pod.name,
            container_id: pod.container_id,
            ifname: pod.ifname,
            network: pod.network,
            addresses: pod.addresses,
            host_interface: pod.host_interface,
        }
    }
}

fn table(pods: &[PodStatus]) -> String {
    if pods.is_empty() {
        return "No pods.\n".to_owned();
    }
    let mut table = Table::new(["POD", "CONTAINER", "ADDRESSES", "INTERFACE", "HOST PORTS"]);
    for pod in pods {
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        let ports: Vec<String> = pod.host_ports.iter().map(host_port).collect();
        // As crictl shows them; the whole ID is in the JSON.
        let container: String = pod.container_id.chars().take(13).collect();
        table.row([
            pod.name.clone().unwrap_or_else(|| "-".to_owned()),
            container,
            addresses.join(","),
            pod.host_interface.clone().unwrap_or_else(|| "-".to_owned()),
            ports.join(","),
        ]);
    }
    table.render()
}

fn host_port(port: &HostPort) -> String {
    let to = format!("{}->{}/{}", port.port, port.container_port, port.protocol);
    match port.address {
        Some(IpAddr::V6(address)) => format!("[{address}]:{to}"),
        Some(address) => format!("{address}:{to}"),
        None => to,
    }
}
