//! ADD: make the attachment, or nothing.

use ipnetwork::IpNetwork;
use weft_netlink::{Link, Netlink};

use crate::{
    args::Args,
    config::Config,
    env::Environment,
    error::{Code, Error},
    ipam::{Lease, Owner, Pool, RangeSet},
    result::{AddResult, Interface, Ip, RouteConfig},
    sandbox::Sandbox,
    subnet_env::SubnetEnv,
    veth::{self, Attachment, Wiring},
};

/// Attaches the container to the pod network.
pub(crate) fn add(environment: &Environment, config: &Config) -> Result<AddResult, Error> {
    let args = Args::parse(&environment.args)?;
    let (requested, mac) = (config.requested_ips(&args)?, config.mac(&args)?);
    config.check_ipam_type()?;
    let sandbox = Sandbox::open(environment)?;
    // Before anything is taken, so that the first attachment is unharmed (A1).
    if sandbox.netlink.link_by_name(&environment.ifname)?.is_some() {
        return Err(Error::new(
            Code::Network,
            format!("container veth name {:?} already exists in {}", environment.ifname, environment.netns),
        ));
    }
    let (sets, mtu) = network_of_node(config)?;
    let host = Netlink::open()?;

    let pool = Pool::new(config.data_dir.join(&config.name), sets);
    let owner = Owner { container_id: &environment.container_id, ifname: &environment.ifname };
    let leases = pool.allocate(owner, &requested)?;
    let routes = routes(config, &leases);
    let wiring = Wiring { ifname: &environment.ifname, mtu, mac, leases: &leases, routes: &routes };
    match veth::attach(&host, &sandbox, &wiring) {
        Ok(attachment) => Ok(result(environment, config, &attachment, &leases, routes)),
        Err(error) => {
            if let Err(also) = pool.give_back(owner, &leases) {
                eprintln!("weft-cni: {also}");
            }
            Err(error)
        }
    }
}

/// Where addresses come from, and the MTU: from the configuration, else from what the overlay gave the node.
fn network_of_node(config: &Config) -> Result<(Vec<RangeSet>, Option<u32>), Error> {
    let configured_mtu = (config.mtu != 0).then_some(config.mtu);
    if !config.ranges.is_empty() {
        return Ok((RangeSet::check(&config.ranges)?, configured_mtu));
    }
    let node = SubnetEnv::read(&config.subnet_file)?;
    Ok((RangeSet::of_subnets(&node.subnets)?, configured_mtu.or(node.mtu)))
}

/// The configured routes, with the gateway of their family where they name none; without any, default routes.
fn routes(config: &Config, leases: &[Lease]) -> Vec<RouteConfig> {
    if config.routes.is_empty() {
        return leases.iter().map(|lease| RouteConfig::via(any(lease.address), lease.gateway)).collect();
    }
    let gateway_for = |route: &RouteConfig| {
        let lease = leases.iter().find(|lease| lease.address.is_ipv4() == route.dst.is_ipv4());
        route.gw.or(lease.map(|lease| lease.gateway))
    };
    config.routes.iter().map(|route| RouteConfig { gw: gateway_for(route), ..route.clone() }).collect()
}

/// The default destination in the family of `like`.
fn any(like: IpNetwork) -> IpNetwork {
    let text = if like.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    text.parse().expect("it is a well-formed network")
}

fn result(
    environment: &Environment,
    config: &Config,
    attachment: &Attachment,
    leases: &[Lease],
    routes: Vec<RouteConfig>,
) -> AddResult {
    let interface = |link: &Link, sandbox: Option<String>| Interface {
        name: link.name.clone(),
        mac: link.mac,
        mtu: link.mtu,
        sandbox,
    };
    // The interface itself has the address as /32 or /128, so that everything goes by the gateway. The result names
    // the subnet's length, as ptp and flannel's bridge do: what reads the mask (chained plugins that spare the pod's
    // own subnet from masquerading, Multus' status) wants to know the subnet, and runtimes read the address only.
    let ips = leases.iter().map(|lease| Ip { address: lease.address, gateway: lease.gateway, interface: 1 });
    AddResult {
        interfaces: vec![
            interface(&attachment.host, None),
            interface(&attachment.container, Some(environment.netns.clone())),
        ],
        ips: ips.collect(),
        routes,
        dns: config.dns.clone(),
    }
}
