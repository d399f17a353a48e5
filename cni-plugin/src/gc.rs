//! GC: remove what is left of attachments the runtime no longer knows (G1 to G3).

use weft_netlink::Netlink;

use crate::{
    attachment::{AttachmentId, ValidAttachments},
    config::Config,
    env::Environment,
    error::Error,
    extras::EXTRAS,
    ipam::{Ipam, Owner},
    teardown::Teardown,
};

/// Removes everything of this network that is not an attachment listed as valid. Without a list nothing: a runtime
/// that leaves it out did not say that there are none.
pub(crate) fn gc(environment: &Environment, config: &Config) -> Result<(), Error> {
    let Some(valid) = config.valid_attachments()? else { return Ok(()) };
    let mut teardown = Teardown::default();
    // In the order of DEL, and for its reasons.
    for extra in EXTRAS.iter().rev() {
        teardown.step(extra.gc(config, &valid));
    }
    let ipam = Ipam::of(environment, config);
    let links = remove_links(&config.name, &valid, &mut teardown);
    teardown.step(links);
    let nameless = remove_nameless_links(&config.name, &ipam, &valid, &mut teardown);
    teardown.step(nameless);
    teardown.step(ipam.gc(&valid));
    teardown.finish()
}

/// An interface whose alias names this network is surely ours.
fn remove_links(network: &str, valid: &ValidAttachments, teardown: &mut Teardown) -> Result<(), Error> {
    let host = Netlink::open()?;
    for link in host.links()? {
        let id = link.alias.as_deref().and_then(AttachmentId::of_alias);
        if id.is_some_and(|id| id.network == network && !valid.contains(id.owner)) {
            teardown.step(host.delete_link(link.index));
        }
    }
    Ok(())
}

/// A plugin that was killed between making an interface and giving it an alias has left an address as well, and who
/// has that tells the interface's name.
fn remove_nameless_links(
    network: &str,
    ipam: &Ipam<'_>,
    valid: &ValidAttachments,
    teardown: &mut Teardown,
) -> Result<(), Error> {
    let host = Netlink::open()?;
    for (container_id, ifname) in ipam.holders()? {
        let owner = Owner { container_id: &container_id, ifname: &ifname };
        if !valid.contains(owner) {
            teardown.step(AttachmentId { network, owner }.remove_host_end(&host));
        }
    }
    Ok(())
}
