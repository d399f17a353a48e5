//! The container's network namespace.

use weft_netlink::{Netlink, Netns, NetnsGuard};

use crate::{
    env::Environment,
    error::{Code, Error},
};

/// An opened network namespace that is not our own, and a netlink connection in it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) netns: Netns,
    pub(crate) netlink: Netlink,
}

impl Sandbox {
    /// Opens `CNI_NETNS`.
    pub(crate) fn open(environment: &Environment) -> Result<Self, Error> {
        Self::connect(Netns::open(&environment.netns)?, environment)
    }

    /// Opens `CNI_NETNS` for DEL: `None` if it is not given or gone (D1). Runtimes unmount the namespace first and
    /// remove the file later, so there may be a file that is no namespace.
    pub(crate) fn open_if_there(environment: &Environment) -> Result<Option<Self>, Error> {
        match Netns::open(&environment.netns) {
            Ok(netns) => Self::connect(netns, environment).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Fails with code 8, before anything is done, if that is the namespace we are in (R1.10).
    fn connect(netns: Netns, environment: &Environment) -> Result<Self, Error> {
        if !environment.allow_own_netns && netns.id()? == Netns::current()?.id()? {
            return Err(Error::new(
                Code::InvalidNetns,
                "plugin's netns and netns from CNI_NETNS should not be the same",
            ));
        }
        // A netlink socket stays in the namespace it was opened in.
        let guard = NetnsGuard::enter(&netns)?;
        let netlink = Netlink::open()?;
        drop(guard);
        Ok(Self { netns, netlink })
    }
}
