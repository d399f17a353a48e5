//! What an attachment may have beside its interface, such as a hostPort or a bandwidth. Each kind is one [`Extra`];
//! what is here calls them in their order.

use weft_netlink::{Link, Netlink};

use crate::{
    attachment::{AttachmentId, ValidAttachments},
    bandwidth::Bandwidth,
    config::Config,
    error::Error,
    host_port::HostPort,
    ipam::Lease,
    result::{AddResult, Reported},
    sandbox::Sandbox,
    teardown::Teardown,
};

/// All kinds there are, in the order of ADD.
pub(crate) const EXTRAS: &[&dyn Extra] = &[&Bandwidth, &HostPort];

/// An attachment whose interface is up, with addresses and routes, and that is not yet reported.
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use weft_netlink::Netns;

    use super::*;
    use crate::{config::Header, error::Code, ipam::Owner, version::Version};

    /// Notes what it is asked to do.
    struct Noting<'a> {
        name: &'static str,
        fails: bool,
        notes: &'a Mutex<Vec<String>>,
    }

    impl Noting<'_> {
        fn note(&self, what: &str) -> Result<(), Error> {
            self.notes.lock().unwrap().push(format!("{what} {}", self.name));
            if self.fails { Err(Error::new(Code::Network, self.name)) } else { Ok(()) }
        }
    }

    impl Extra for Noting<'_> {
        fn add(&self, _: &Attached<'_>, _: &mut AddResult) -> Result<(), Error> {
            self.note("add")
        }
        fn del(&self, _: AttachmentId<'_>, _: &Config) -> Result<(), Error> {
            self.note("del")
        }
        fn check(&self, _: &Attached<'_>, _: &Reported) -> Result<(), Error> {
            self.note("check")
        }
        fn gc(&self, _: &Config, _: &ValidAttachments) -> Result<(), Error> {
            self.note("gc")
        }
        fn status(&self, _: &Config) -> Result<(), Error> {
            self.note("status")
        }
    }

    #[test]
    fn a2_a_failure_undoes_itself_and_those_before_the_last_first() {
        let notes = Mutex::new(Vec::new());
        let noting = |name, fails| Noting { name, fails, notes: &notes };
        let (one, two, three) = (noting("one", false), noting("two", true), noting("three", false));
        let extras: [&dyn Extra; 3] = [&one, &two, &three];
        let header = Header::parse(br#"{"name":"n"}"#, &mut Version::LATEST.clone()).unwrap();
        let config = Config::parse(header).unwrap();
        let id = AttachmentId { network: "n", owner: Owner { container_id: "p", ifname: "eth0" } };
        let host = Netlink::open().unwrap();
        let host_end = host.link_by_name("lo").unwrap().unwrap();
        let sandbox = Sandbox { netns: Netns::current().unwrap(), netlink: Netlink::open().unwrap() };
        let attached =
            Attached { id, config: &config, host: &host, host_end: &host_end, sandbox: &sandbox, leases: &[] };
        let mut result =
            AddResult { interfaces: Vec::new(), ips: Vec::new(), routes: Vec::new(), dns: Default::default() };
        assert_eq!(add(&extras, &attached, &mut result).unwrap_err().message, "two");
        assert_eq!(*notes.lock().unwrap(), ["add one", "add two", "del two", "del one"]);

        // D3: removal does not stop.
        notes.lock().unwrap().clear();
        let mut teardown = Teardown::default();
        del(&extras, id, &config, &mut teardown);
        assert_eq!(teardown.finish().unwrap_err().message, "two");
        assert_eq!(*notes.lock().unwrap(), ["del three", "del two", "del one"]);
    }
}
