//! DEL: take away the attachment, as far as there is one (D1 to D5).

use weft_netlink::{LinkKind, Netlink};

use crate::{
    attachment::{AttachmentId, host_end},
    config::Config,
    env::Environment,
    error::Error,
    extras::{self, EXTRAS},
    ipam::Ipam,
    sandbox::Sandbox,
    teardown::Teardown,
};

/// Removes what leads to the interface, the interface, then frees its addresses: not before, or the next container
/// would get an address that still leads here. All is tried whatever happens to the rest (D3).
pub(crate) fn del(environment: &Environment, config: &Config) -> Result<(), Error> {
    let id = AttachmentId { network: &config.name, owner: environment.owner() };
    let mut teardown = Teardown::default();
    extras::del(EXTRAS, id, config, &mut teardown);
    teardown.step(remove_interface(environment, id));
    teardown.step(Ipam::of(environment, config).del(id.owner));
    teardown.finish()
}

fn remove_interface(environment: &Environment, id: AttachmentId<'_>) -> Result<(), Error> {
    let Some(sandbox) = Sandbox::open_if_there(environment)? else {
        // The namespace may live on somewhere, and the interface with it, under an address that is free from now on.
        return id.remove_host_end(&Netlink::open()?);
    };
    let Some(link) = sandbox.netlink.link_by_name(&environment.ifname)? else { return Ok(()) };
    // Nothing but a veth is ours, and none that says it is another's (D4): a DEL may come late, or for another network.
    // Pods of flannel's time say nothing. The host's end, with addresses and routes, goes with it.
    let is_ours = match link.kind {
        LinkKind::Veth { .. } => host_end(&Netlink::open()?, &link)?.is_none_or(|host_end| id.may_own(&host_end)),
        _ => false,
    };
    if is_ours {
        sandbox.netlink.delete_link(link.index)?;
    }
    Ok(())
}
