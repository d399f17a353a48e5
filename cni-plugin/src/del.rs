//! DEL: take away the attachment, as far as there is one (D1 to D5).

use weft_netlink::LinkKind;

use crate::{
    config::Config,
    env::Environment,
    error::Error,
    ipam::{self, Owner},
    sandbox::Sandbox,
};

/// Removes the interface, then frees its addresses: not before, or the next container would get an address that still
/// leads here. Both are tried whatever happens to the other; the first error is reported (D3).
pub(crate) fn del(environment: &Environment, config: &Config) -> Result<(), Error> {
    let removed = remove_interface(environment);
    let owner = Owner { container_id: &environment.container_id, ifname: &environment.ifname };
    let released = ipam::release(&config.data_dir.join(&config.name), owner).map_err(Error::from);
    if let (Err(_), Err(also)) = (&removed, &released) {
        eprintln!("weft-cni: {also}");
    }
    removed.and(released)
}

fn remove_interface(environment: &Environment) -> Result<(), Error> {
    let Some(sandbox) = Sandbox::open_if_there(environment)? else { return Ok(()) };
    let Some(link) = sandbox.netlink.link_by_name(&environment.ifname)? else { return Ok(()) };
    // Nothing but a veth is ours (D4). Its host end, with addresses and routes, goes with it.
    if matches!(link.kind, LinkKind::Veth { .. }) {
        sandbox.netlink.delete_link(link.index)?;
    }
    Ok(())
}
