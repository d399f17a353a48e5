//! `weft-wire`: what the kernel has to do for a pod and nothing else, which `weft-bench cni` compares plugins with.
//!
//! `weft-wire add NETNS NAME ADDRESS=GATEWAY...` and `weft-wire del NETNS`. The pod's end is `eth0`. There is no
//! configuration, no address management, no check and no waiting.

use std::{env, net::IpAddr, os::fd::AsFd, process::ExitCode};

use anyhow::{Context, Result, bail};
use weft_netlink::{AddressOptions, Netlink, Netns, NetnsGuard, Route, RouteScope, VethSpec};

const POD_END: &str = "eth0";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["add", netns, name, addresses @ ..] => add(netns, name, addresses),
        ["del", netns] => del(netns),
        _ => Err(anyhow::anyhow!("weft-wire add NETNS NAME ADDRESS=GATEWAY... | del NETNS")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-wire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A socket there, without a thread of its own: this is to be as cheap as can be.
fn open_in(netns: &Netns) -> Result<Netlink> {
    let _inside = NetnsGuard::enter(netns)?;
    Ok(Netlink::open()?)
}

fn add(netns: &str, name: &str, addresses: &[&str]) -> Result<()> {
    let netns = Netns::open(netns)?;
    let (host, pod) = (Netlink::open()?, open_in(&netns)?);
    host.create_veth(&VethSpec {
        name,
        peer_name: POD_END,
        peer_netns: Some(netns.as_fd()),
        mtu: Some(1450),
        mac: None,
        peer_mac: None,
    })?;
    let link = |netlink: &Netlink, name: &str| -> Result<_> {
        Ok(netlink.link_by_name(name)?.with_context(|| format!("{name} is gone"))?.index)
    };
    let (host_link, pod_link) = (link(&host, name)?, link(&pod, POD_END)?);
    host.set_up(host_link)?;
    pod.set_up(pod_link)?;
    for pair in addresses {
        let Some((address, gateway)) = pair.split_once('=') else { bail!("{pair} is no ADDRESS=GATEWAY") };
        let (address, gateway): (IpAddr, IpAddr) = (address.parse()?, gateway.parse()?);
        let options = AddressOptions { no_dad: address.is_ipv6(), no_prefix_route: true, link_scope: false };
        let scope = if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        pod.replace_address(pod_link, address.into(), options)?;
        host.replace_address(host_link, gateway.into(), options)?;
        host.replace_route(&Route { link: Some(host_link), scope, ..Route::new(address.into()) })?;
        pod.replace_route(&Route { link: Some(pod_link), scope, ..Route::new(gateway.into()) })?;
        let everywhere = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        pod.replace_route(&Route {
            gateway: Some(gateway),
            link: Some(pod_link),
            ..Route::new(everywhere.parse().context("a default route")?)
        })?;
    }
    Ok(())
}

fn del(netns: &str) -> Result<()> {
    let pod = open_in(&Netns::open(netns)?)?;
    let link = pod.link_by_name(POD_END)?.context("there is no eth0")?;
    Ok(pod.delete_link(link.index)?)
}
