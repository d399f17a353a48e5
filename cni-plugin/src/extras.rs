//! What an attachment may have beside its interface, such as a hostPort or a bandwidth. Each kind is one [`Extra`];
//! what is here calls them in their order.

use weft_netlink::{Link, Netlink};

use crate::{
    attachment::{AttachmentId, ValidAttachments},
    config::Config,
    error::Error,
    ipam::Lease,
    result::{AddResult, Reported},
    sandbox::Sandbox,
    teardown::Teardown,
};

/// All kinds there are, in the order of ADD.
pub(crate) const EXTRAS: &[&dyn Extra] = &[];

/// An attachment whose interface is up, with addresses and routes, and that is not yet reported.
#[expect(dead_code, reason = "there is no kind of extra yet that looks at all of it")]
pub(crate) struct Attached<'a> {
    pub(crate) id: AttachmentId<'a>,
    pub(crate) config: &'a Config,
    /// Of the host's namespace, as `host_end`.
    pub(crate) host: &'a Netlink,
    pub(crate) host_end: &'a Link,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) leases: &'a [Lease],
}

/// One kind of thing. Most attachments have none of it, so every call begins by finding that out cheaply.
pub(crate) trait Extra: Sync {
    /// Makes it, if the configuration asks for it, and adds to the result what a runtime should know. After an error
    /// [`Extra::del`] is called.
    fn add(&self, attached: &Attached<'_>, result: &mut AddResult) -> Result<(), Error>;

    /// Removes it; there being nothing is fine (D1). Must not need the container's namespace, a prevResult, or the
    /// configuration that ADD had.
    fn del(&self, id: AttachmentId<'_>, config: &Config) -> Result<(), Error>;

    /// Fails unless it is as ADD made it. Changes nothing (C4).
    fn check(&self, attached: &Attached<'_>, previous: &Reported) -> Result<(), Error>;

    /// Removes what attachments of the configuration's network have that are not valid any more (G2).
    fn gc(&self, config: &Config, valid: &ValidAttachments) -> Result<(), Error>;

    /// Fails, with code 50 or 51, if it could not be made now, and may be asked for (S2). Changes nothing.
    fn status(&self, config: &Config) -> Result<(), Error>;
}

/// Makes all of them; after an error none is left.
pub(crate) fn add(extras: &[&dyn Extra], attached: &Attached<'_>, result: &mut AddResult) -> Result<(), Error> {
    for (index, extra) in extras.iter().enumerate() {
        if let Err(error) = extra.add(attached, result) {
            let mut undo = Teardown::default();
            del(&extras[..=index], attached.id, attached.config, &mut undo);
            undo.finish_quietly();
            return Err(error);
        }
    }
    Ok(())
}

/// Removes all of them, the last first, whatever goes wrong.
pub(crate) fn del(extras: &[&dyn Extra], id: AttachmentId<'_>, config: &Config, teardown: &mut Teardown) {
    for extra in extras.iter().rev() {
        teardown.step(extra.del(id, config));
    }
}
