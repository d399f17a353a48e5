//! Where addresses come from: the built-in host-local, or another plugin.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use serde_json::Value;

use super::{
    Assignment, Error as IpamError, Lease, Owner, RangeSet,
    allocate::{self, Pool},
    holder,
    store::{self, Store},
};
use crate::{
    attachment::ValidAttachments,
    config::{Config, IpamPlugin},
    delegate::Delegate,
    dns::Dns,
    env::Environment,
    error::{Code, Error},
    result::{Reported, ReportedIp},
    teardown::Teardown,
};

/// What gives this network its addresses.
#[derive(Debug)]
pub(crate) enum Ipam<'a> {
    /// host-local, in this process; `directory` is the network's own.
    HostLocal { directory: PathBuf, config: &'a Config },
    /// A plugin beside us.
    Delegated(Delegate<'a>),
}

impl<'a> Ipam<'a> {
    /// The one a configuration names.
    pub(crate) fn of(environment: &'a Environment, config: &'a Config) -> Self {
        match &config.ipam {
            IpamPlugin::Other(name) => {
                Self::Delegated(Delegate { name, path: &environment.path, stdin: &config.stdin })
            }
            IpamPlugin::HostLocal | IpamPlugin::Unnamed => {
                Self::HostLocal { directory: config.data_dir.join(&config.name), config }
            }
        }
    }

    /// Takes addresses. After an error none are taken. `sets` and `requested` are for the built-in one; another reads
    /// its own configuration.
    pub(crate) fn add(&self, owner: Owner<'_>, sets: Vec<RangeSet>, requested: &[IpAddr]) -> Result<Assignment, Error> {
        match self {
            Self::HostLocal { directory, config } => {
                let dns = config.resolv_conf.as_deref().map(Dns::read).transpose()?.unwrap_or_default();
                let leases =
                    Pool::new(directory.clone(), sets).beside(&config.shared_with).allocate(owner, requested)?;
                Ok(Assignment { leases, routes: config.routes.clone(), dns })
            }
            Self::Delegated(delegate) => delegate.ask("ADD").and_then(assignment).inspect_err(|_| {
                // It may have taken something before it failed (A5).
                let mut undo = Teardown::default();
                undo.step(delegate.run("DEL"));
                undo.finish_quietly();
            }),
        }
    }

    /// Frees what an owner has; nothing is fine.
    pub(crate) fn del(&self, owner: Owner<'_>) -> Result<(), Error> {
        match self {
            Self::HostLocal { directory, config } => {
                let mut teardown = Teardown::default();
                // A runtime asks for DEL of pods of the other network here, once that is no longer configured.
                for directory in config.shared_with.iter().chain([directory]) {
                    teardown.step(allocate::release(directory, owner));
                }
                teardown.finish()
            }
            Self::Delegated(delegate) => delegate.run("DEL"),
        }
    }

    /// Undoes an [`Ipam::add`]: frees what it took, and nothing else the owner may have.
    pub(crate) fn give_back(&self, owner: Owner<'_>, leases: &[Lease]) -> Result<(), Error> {
        match self {
            Self::HostLocal { directory, .. } => Ok(Pool::give_back(directory, owner, leases)?),
            Self::Delegated(delegate) => delegate.run("DEL"),
        }
    }

    /// Fails unless the addresses of an owner are written down. `on_interface` are those the container has.
    pub(crate) fn check(&self, owner: Owner<'_>, on_interface: &[IpAddr]) -> Result<(), Error> {
        let directory = match self {
            Self::HostLocal { directory, .. } => directory,
            Self::Delegated(delegate) => return delegate.run("CHECK"),
        };
        let not_reserved =
            || IpamError::NotReserved { container_id: owner.container_id.to_owned(), directory: directory.clone() };
        let reservations = Store::open_to_read(directory)?.ok_or_else(not_reserved)?.reservations()?;
        let own = store::of_owner(&reservations, owner);
        if own.is_empty() {
            return Err(not_reserved().into());
        }
        let foreign = on_interface.iter().find(|ip| reservations.contains_key(ip) && !own.contains(ip));
        if let Some(address) = foreign {
            return Err(not_as_made(format!("{address} is reserved for another container")));
        }
        match own.iter().find(|address| !on_interface.contains(address)) {
            Some(address) => Err(not_as_made(format!("{address} is reserved for the container, which has it not"))),
            None => Ok(()),
        }
    }

    /// Container ID and interface name of all who have addresses, as far as that is known here.
    pub(crate) fn holders(&self) -> Result<BTreeSet<(String, String)>, Error> {
        let Self::HostLocal { directory, .. } = self else { return Ok(BTreeSet::new()) };
        let Some(store) = Store::open_to_read(directory)? else { return Ok(BTreeSet::new()) };
        let reservations = store.reservations()?;
        let holders = reservations.values().filter_map(|text| {
            let (container_id, ifname) = holder(text);
            Some((container_id.to_owned(), ifname?.to_owned()))
        });
        Ok(holders.collect())
    }

    /// Frees what no valid attachment has (G2).
    pub(crate) fn gc(&self, valid: &ValidAttachments) -> Result<(), Error> {
        match self {
            Self::HostLocal { directory, .. } => {
                let Some(store) = Store::open_existing(directory)? else { return Ok(()) };
                let mut teardown = Teardown::default();
                let rest = store.retain(valid, &mut teardown);
                teardown.step(rest);
                teardown.finish()
            }
            Self::Delegated(delegate) => delegate.run("GC"),
        }
    }

    /// Fails if there is no address left, or another plugin says so.
    pub(crate) fn status(&self, sets: Vec<RangeSet>) -> Result<(), Error> {
        match self {
            Self::HostLocal { directory, config } => {
                Ok(Pool::new(directory.clone(), sets).beside(&config.shared_with).check_room()?)
            }
            Self::Delegated(delegate) => delegate.run("STATUS"),
        }
    }
}

/// What a plugin's answer gives. Our interface cannot do without a gateway: it is the address of its other end.
fn assignment(answer: Value) -> Result<Assignment, Error> {
    let answer = Reported::parse(answer)?;
    let lease = |ip: &ReportedIp| match ip.gateway {
        Some(gateway) if gateway.is_ipv4() == ip.address.is_ipv4() => Ok(Lease { address: ip.address, gateway }),
        _ => Err(Error::with_details(
            Code::InvalidConfig,
            format!("IPAM plugin gave {} without a gateway of its family", ip.address),
            "a routed interface needs one: configure a gateway for the plugin's subnet; it need not exist",
        )),
    };
    let leases = answer.ips.iter().map(lease).collect::<Result<Vec<_>, _>>()?;
    if leases.is_empty() {
        return Err(Error::new(Code::Ipam, "IPAM plugin returned no IP address"));
    }
    Ok(Assignment { leases, routes: answer.routes, dns: answer.dns })
}

fn not_as_made(message: String) -> Error {
    Error::new(Code::NotAsMade, message)
}
