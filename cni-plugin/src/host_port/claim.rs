//! A port of the node, claimed for a pod.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use weft_netlink::NftElement;

use super::mapping::{Mapping, Masquerade, Protocol};
use crate::{
    attachment::AttachmentId,
    error::{Code, Error},
    ipam::Owner,
};

/// First word of what the kernel keeps beside a rule or element of ours.
const PROGRAM: &str = "weft-cni";

/// As much as there is room for beside an element of nftables and a rule of iptables.
const COMMENT_BYTES: usize = 250;

/// Whose a claim is: an attachment, as far as it can be read back from the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub(crate) struct Holder {
    pub(crate) network: String,
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

/// A mapping of one family for one pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Claim {
    /// Address of the node; unspecified: any.
    pub(crate) host: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) host_port: u16,
    /// Where it leads to, of the same family.
    pub(crate) pod: SocketAddr,
    pub(crate) masquerade: Masquerade,
    pub(crate) holder: Holder,
    /// Of two claims of one port the one with the higher number wins: that of the pod that came later.
    pub(crate) order: u64,
}

impl Holder {
    /// Fails if the names are longer than the kernel keeps.
    pub(crate) fn of(id: AttachmentId<'_>) -> Result<Self, Error> {
        let AttachmentId { network, owner: Owner { container_id, ifname } } = id;
        if network.len() + container_id.len() + ifname.len() > COMMENT_BYTES - 40 {
            let message = "host ports need shorter names of network and container: 210 bytes with the interface's";
            return Err(Error::new(Code::InvalidConfig, message));
        }
        Ok(Self { network: network.into(), container_id: container_id.into(), ifname: ifname.into() })
    }

    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner { container_id: &self.container_id, ifname: &self.ifname }
    }

    pub(crate) fn is(&self, id: AttachmentId<'_>) -> bool {
        self.network == id.network && self.owner() == id.owner
    }
}

impl Claim {
    pub(crate) fn new(mapping: &Mapping, pod: IpAddr, holder: &Holder, masquerade: Masquerade) -> Self {
        let any = if pod.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        Self {
            host: mapping.host.unwrap_or(any),
            protocol: mapping.protocol,
            host_port: mapping.host_port,
            pod: SocketAddr::new(pod, mapping.pod_port),
            masquerade,
            holder: holder.clone(),
            order: 0,
        }
    }

    /// IPv6 has no way from ::1 to a pod, and without masquerading there is none from 127.0.0.1.
    pub(crate) fn serves_loopback(&self) -> bool {
        let reaches = self.host.is_loopback() || self.host.is_unspecified();
        self.host.is_ipv4() && reaches && self.masquerade != Masquerade::Never
    }

    /// Whether both are the same but for their order.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        *self == Self { order: self.order, ..other.clone() }
    }

    /// For people: `192.0.2.1:80/tcp`.
    pub(crate) fn port(&self) -> String {
        format!("{}/{}", SocketAddr::new(self.host, self.host_port), self.protocol.name())
    }

    /// What is kept beside the claim in the kernel.
    pub(crate) fn comment(&self) -> String {
        let Holder { network, container_id, ifname } = &self.holder;
        let masquerade = match self.masquerade {
            Masquerade::Never => "never",
            Masquerade::WhereNeeded => "where-needed",
            Masquerade::Always => "always",
        };
        format!("{PROGRAM} {network} {container_id} {ifname} {} {masquerade}", self.order)
    }

    /// As an element of the set of claims.
    pub(crate) fn element(&self) -> NftElement {
        let [host, pod] = [self.host, self.pod.ip()].map(bytes_of);
        let key = [&host[..], &self.protocol_and_port(), &pod, &port_bytes(self.pod.port())].concat();
        NftElement { key, comment: Some(self.comment()), ..NftElement::default() }
    }

    /// Reads an element back; `None` if it is none of ours.
    pub(crate) fn of_element(element: &NftElement) -> Option<Self> {
        let comment = Comment::parse(element.comment.as_deref()?)?;
        let length = match element.key.len() {
            20 => 4,
            44 => 16,
            _ => return None,
        };
        let (host, rest) = element.key.split_at(length);
        let ([protocol, _, _, _, high, low, _, _], rest) = rest.split_first_chunk()?;
        let (pod, port) = rest.split_at(length);
        let host_port = u16::from_be_bytes([*high, *low]);
        let pod = SocketAddr::new(address_of(pod)?, u16::from_be_bytes(*port.first_chunk()?));
        let protocol = Protocol::ALL.into_iter().find(|known| known.number() == *protocol)?;
        Some(comment.claim(address_of(host)?, protocol, host_port, pod))
    }

    /// Protocol and port of the node, as keys have them.
    pub(crate) fn protocol_and_port(&self) -> [u8; 8] {
        let [high, low] = self.host_port.to_be_bytes();
        [self.protocol.number(), 0, 0, 0, high, low, 0, 0]
    }
}

/// What is read back from beside a claim.
pub(crate) struct Comment {
    pub(crate) holder: Holder,
    masquerade: Masquerade,
    order: u64,
}

impl Comment {
    /// `None` for those of others.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split(' ').collect();
        let [PROGRAM, network, container_id, ifname, order, masquerade] = words[..] else { return None };
        let masquerade = match masquerade {
            "never" => Masquerade::Never,
            "where-needed" => Masquerade::WhereNeeded,
            "always" => Masquerade::Always,
            _ => return None,
        };
        let holder = Holder { network: network.into(), container_id: container_id.into(), ifname: ifname.into() };
        Some(Self { holder, masquerade, order: order.parse().ok()? })
    }

    pub(crate) fn claim(self, host: IpAddr, protocol: Protocol, host_port: u16, pod: SocketAddr) -> Claim {
        let Self { holder, masquerade, order } = self;
        Claim { host, protocol, host_port, pod, masquerade, holder, order }
    }
}

pub(crate) fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A port as keys have it.
pub(crate) fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(host: &str, pod: &str, masquerade: Masquerade) -> Claim {
        Claim {
            host: host.parse().unwrap(),
            protocol: Protocol::Sctp,
            host_port: 8080,
            pod: pod.parse().unwrap(),
            masquerade,
            holder: Holder { network: "weft".into(), container_id: "0a1b".into(), ifname: "eth0".into() },
            order: 7,
        }
    }

    #[test]
    fn section_8_claims_are_read_back_from_the_kernel() {
        for masquerade in [Masquerade::Never, Masquerade::WhereNeeded, Masquerade::Always] {
            for (host, pod) in [("0.0.0.0", "10.244.1.5:80"), ("fd00::1", "[fd44::5]:80")] {
                let claim = claim(host, pod, masquerade);
                assert_eq!(Claim::of_element(&claim.element()), Some(claim));
            }
        }
        let element = claim("0.0.0.0", "10.244.1.5:80", Masquerade::Always).element();
        for length in 0..element.key.len() {
            let cut = NftElement { key: element.key[..length].to_vec(), ..element.clone() };
            assert_eq!(Claim::of_element(&cut), None);
        }
        assert_eq!(Claim::of_element(&NftElement { comment: Some("someone else's".into()), ..element }), None);
    }

    #[test]
    fn section_8_names_too_long_to_be_kept_are_refused() {
        let long = "a".repeat(200);
        let id = |container_id| AttachmentId { network: "weft", owner: Owner { container_id, ifname: "eth0" } };
        assert!(Holder::of(id(&long)).is_ok());
        assert_eq!(Holder::of(id(&format!("{long}aaa"))).unwrap_err().code, Code::InvalidConfig);
    }
}
