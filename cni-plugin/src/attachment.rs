//! What tells attachments apart, and how the host's interfaces say whose they are.

use std::collections::BTreeSet;

use weft_netlink::{IfIndex, Link, LinkKind, Netlink};

use crate::{
    error::Error,
    ipam::{self, Owner},
};

/// Interfaces of the host carry an alias that begins with this; the rest names the attachment.
const ALIAS: &str = "weft-cni";

/// The kernel's limit, IFALIASZ without the final zero.
const ALIAS_BYTES: usize = 255;

/// How many names are tried for the host's end before giving up.
pub(crate) const NAME_ATTEMPTS: u32 = 10;

/// An interface of a container in a network. Everything ADD makes belongs to one of these, and goes with it (D4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttachmentId<'a> {
    pub(crate) network: &'a str,
    pub(crate) owner: Owner<'a>,
}

impl<'a> AttachmentId<'a> {
    /// The alias of the host's end, with the pod's `namespace/name` if there is room; `None` if it would be longer than the
    /// kernel takes.
    pub(crate) fn alias(&self, pod: Option<&str>) -> Option<String> {
        // None of them may contain white space (R1.6).
        let alias = format!("{ALIAS} {} {} {}", self.network, self.owner.container_id, self.owner.ifname);
        let fits = |alias: &String| alias.len() <= ALIAS_BYTES;
        pod.map(|pod| format!("{alias} {pod}")).filter(fits).or(Some(alias).filter(fits))
    }

    /// The attachment an alias names; `None` for aliases of others.
    pub(crate) fn of_alias(alias: &'a str) -> Option<Self> {
        Self::and_pod_of_alias(alias).map(|(id, _)| id)
    }

    /// The same with the pod's `namespace/name`, for people; pods made by older plugins do not have it.
    pub(crate) fn and_pod_of_alias(alias: &'a str) -> Option<(Self, Option<&'a str>)> {
        let mut words = alias.split(' ');
        let (program, network, container_id, ifname) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let pod = words.next();
        let ours = program == ALIAS && words.next().is_none() && pod.is_none_or(|pod| pod.contains('/'));
        ours.then_some((Self { network, owner: Owner { container_id, ifname } }, pod))
    }

    /// Name of the host's end: looks random, and can be found again when the container's namespace is gone. Another
    /// attempt gives another name.
    pub(crate) fn host_name(&self, attempt: u32) -> String {
        let parts = [self.network, self.owner.container_id, self.owner.ifname];
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0])).chain(attempt.to_le_bytes());
        // FNV-1a: what this plugin names today, another version of it must find tomorrow.
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        format!("veth{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
    }

    /// Removes the host's end, found by its name: for when the container's cannot be reached. One without an alias is
    /// ours too, for a plugin killed before it gave one; who else would have hit upon that name?
    pub(crate) fn remove_host_end(&self, host: &Netlink) -> Result<(), Error> {
        // The first name is taken at once in a million pods; GC looks at the aliases of all interfaces.
        for attempt in 0..2 {
            if let Some(link) = host.link_by_name(&self.host_name(attempt))?
                && matches!(link.kind, LinkKind::Veth { .. })
                && self.may_own(&link)
            {
                host.delete_link(link.index)?;
            }
        }
        Ok(())
    }

    /// Whether an interface says that it is this attachment's, or says nothing.
    pub(crate) fn may_own(&self, link: &Link) -> bool {
        link.alias.as_deref().is_none_or(|alias| AttachmentId::of_alias(alias) == Some(*self))
    }
}

/// The host's end of a veth in a container: interface with index `peer`, if it is there and leads to `container`.
pub(crate) fn host_end(host: &Netlink, container: &Link) -> Result<Option<Link>, Error> {
    let LinkKind::Veth { peer: Some(peer) } = container.kind else { return Ok(None) };
    let leads_to = |link: &Link, index: IfIndex| link.kind == LinkKind::Veth { peer: Some(index) };
    Ok(host.link_by_index(peer)?.filter(|link| leads_to(link, container.index)))
}

/// The attachments a runtime still knows, as GC gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValidAttachments(BTreeSet<(String, String)>);

impl ValidAttachments {
    pub(crate) fn contains(&self, owner: Owner<'_>) -> bool {
        self.0.contains(&(owner.container_id.to_owned(), owner.ifname.to_owned()))
    }

    /// Whether the text of a reservation names one of them. Files of old versions of host-local name the container
    /// only: any attachment of it will do (G3).
    pub(crate) fn contains_holder(&self, reservation: &str) -> bool {
        match ipam::holder(reservation) {
            (container_id, Some(ifname)) => self.contains(Owner { container_id, ifname }),
            (container_id, None) => self.0.iter().any(|(id, _)| id == container_id),
        }
    }
}

impl FromIterator<(String, String)> for ValidAttachments {
    /// From pairs of container ID and interface name.
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id<'a>(network: &'a str, container_id: &'a str, ifname: &'a str) -> AttachmentId<'a> {
        AttachmentId { network, owner: Owner { container_id, ifname } }
    }

    #[test]
    fn d4_aliases_round_trip_and_foreign_ones_are_not_ours() {
        let attachment = id("weft", "0a1b", "eth0");
        let alias = attachment.alias(None).unwrap();
        assert_eq!(alias, "weft-cni weft 0a1b eth0");
        assert_eq!(AttachmentId::of_alias(&alias), Some(attachment));
        for foreign in ["", "weft-cni", "weft-cni weft 0a1b", "weft-cni weft 0a1b eth0 x", "flannel weft 0a1b eth0"] {
            assert_eq!(AttachmentId::of_alias(foreign), None, "{foreign:?}");
        }
        assert_eq!(id("weft", &"a".repeat(240), "eth0").alias(Some("default/web")), None);
        let named = attachment.alias(Some("default/web-1")).unwrap();
        assert_eq!(named, "weft-cni weft 0a1b eth0 default/web-1");
        assert_eq!(AttachmentId::and_pod_of_alias(&named), Some((attachment, Some("default/web-1"))));
        assert_eq!(
            attachment.alias(Some(&format!("default/{}", "a".repeat(253)))),
            Some(alias),
            "no room for the name"
        );
    }

    #[test]
    fn names_are_of_the_usual_form_and_differ_by_everything() {
        let names = [
            id("weft", "a", "eth0").host_name(0),
            id("weft", "a", "eth0").host_name(1),
            id("weft", "a", "eth1").host_name(0),
            id("weft", "b", "eth0").host_name(0),
            id("other", "a", "eth0").host_name(0),
        ];
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        for name in names {
            assert!(name.len() == 12 && name[4..].bytes().all(|c| c.is_ascii_hexdigit()), "{name}");
        }
        // Pods made by an older plugin must be found.
        assert_eq!(id("weft", "a", "eth0").host_name(0), "vethc2fd4f8e");
    }

    #[test]
    fn g3_files_without_ifname_match_any_attachment_of_the_container() {
        let valid: ValidAttachments = [("a".to_owned(), "eth0".to_owned())].into_iter().collect();
        for (reservation, listed) in
            [("a\r\neth0", true), ("a", true), ("a\r\nnet1", false), ("b\r\neth0", false), ("b", false), ("", false)]
        {
            assert_eq!(valid.contains_holder(reservation), listed, "{reservation:?}");
        }
    }
}
