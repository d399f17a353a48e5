//! How packets get from node to node: `vxlan` or `host-gw`, with their options (flannel.md section 4).

use serde_json::{Map, Value};

use super::fields::{Fields, NetConfError};
use crate::family::Family;

/// Names of the backends, in configuration and leases.
pub(crate) const VXLAN: &str = "vxlan";
const HOST_GW: &str = "host-gw";

/// Outer headers of a VXLAN packet over IPv4: IP 20 + UDP 8 + VXLAN 8 + inner Ethernet 14 (RFC 7348 section 5).
const OVERHEAD_V4: u32 = 50;
/// The same over IPv6, whose header has 40 bytes. flannel subtracts 50 here too and fragments (flannel-defects.md B.2).
const OVERHEAD_V6: u32 = 70;

/// How packets get from node to node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In UDP packets.
    Vxlan(Vxlan),
    /// As they are, by routes to the other nodes: all must be on directly connected networks.
    HostGw,
}

impl Backend {
    /// Its name, in configuration and leases.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => VXLAN,
            Self::HostGw => HOST_GW,
        }
    }

    /// The options of `vxlan`.
    pub const fn vxlan(&self) -> Option<&Vxlan> {
        match self {
            Self::Vxlan(vxlan) => Some(vxlan),
            Self::HostGw => None,
        }
    }

    /// Whether peers that are directly connected get plain routes.
    pub(crate) fn routes_directly(&self) -> bool {
        self.vxlan().is_none_or(|vxlan| vxlan.direct_routing)
    }

    /// MTU of pods over an interface of `underlay_mtu` bytes. With direct routing too the tunnel's: a peer may need it later.
    pub(crate) fn pod_mtu(&self, family: Family, underlay_mtu: u32) -> u32 {
        self.vxlan().map_or(underlay_mtu, |vxlan| vxlan.device_mtu(family, underlay_mtu))
    }
}

/// Options of the `vxlan` backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier, 0..=9,999,999 (0..=9,999 with IPv6: it is part of the device's name).
    pub vni: u32,
    /// UDP destination port; 0 = the kernel's, 8472.
    pub port: u16,
    /// MTU of the underlay to count from, in bytes; `None` = that of the external interface.
    pub mtu: Option<u32>,
    /// Group-based policy extension.
    pub gbp: bool,
    /// Peers on a directly connected network get a plain route instead of the tunnel.
    pub direct_routing: bool,
}

impl Vxlan {
    /// Name of the VXLAN device of a family, as flannel names it.
    pub fn device_name(&self, family: Family) -> String {
        device_name(self.vni, family)
    }

    /// MTU of the VXLAN device over an interface of `underlay_mtu` bytes.
    pub fn device_mtu(&self, family: Family, underlay_mtu: u32) -> u32 {
        self.mtu.unwrap_or(underlay_mtu).saturating_sub(vxlan_overhead(family))
    }
}

/// Bytes that the tunnel adds to an inner packet, over an underlay of that family.
pub(crate) const fn vxlan_overhead(family: Family) -> u32 {
    match family {
        Family::V4 => OVERHEAD_V4,
        Family::V6 => OVERHEAD_V6,
    }
}

/// Name of the VXLAN device with that VNI.
pub(crate) fn device_name(vni: u32, family: Family) -> String {
    match family {
        Family::V4 => format!("flannel.{vni}"),
        Family::V6 => format!("flannel-v6.{vni}"),
    }
}

/// 24 bits (RFC 7348), but it also becomes part of the device's name, which has room for 15 characters.
fn vni(fields: &mut Fields<'_>, ipv6: bool) -> u32 {
    let largest = if ipv6 { 9_999 } else { 9_999_999 };
    fields.number("VNI", 0..=largest).and_then(|vni| u32::try_from(vni).ok()).unwrap_or(1)
}

pub(super) fn parse(object: &Map<String, Value>, ipv6: bool) -> Result<Backend, Vec<NetConfError>> {
    let mut fields = Fields::new("Backend.", object);
    match fields.raw("Type") {
        None => {}
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case(VXLAN) => {}
        // It has no options; flannel ignores those of others too.
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case(HOST_GW) => return Ok(Backend::HostGw),
        Some(other) => {
            fields.refuse("Type", other, "\"vxlan\" or \"host-gw\"; Weft has no other backend");
            // The other options belong to that backend: checking them against vxlan's would only mislead.
            return Err(fields.into_mistakes());
        }
    }
    // Every peer has a permanent entry, so there is nothing to learn; and what a device learns cannot be told from what
    // somebody else wrote, which must be repaired.
    if fields.boolean("Learning", false) {
        fields.refuse("Learning", "true", "false; Weft writes every forwarding entry itself");
    }
    // 0 is the same as absent. The inner packet must still hold the family's minimum: 68 (RFC 791), 1280 (RFC 8200).
    let smallest = if ipv6 { 1280 + OVERHEAD_V6 } else { 68 + OVERHEAD_V4 };
    if let Some(mtu) = fields.raw("MTU").and_then(Value::as_u64)
        && mtu != 0
        && mtu < u64::from(smallest)
    {
        fields.refuse("MTU", mtu, format!("0 (that of the interface), or {smallest} to 65535"));
    }
    let conf = Vxlan {
        vni: vni(&mut fields, ipv6),
        port: fields.number("Port", 0..=65_535).and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        mtu: fields.number("MTU", 0..=65_535).and_then(|mtu| u32::try_from(mtu).ok()).filter(|mtu| *mtu != 0),
        gbp: fields.boolean("GBP", false),
        direct_routing: fields.boolean("DirectRouting", false),
    };
    let mistakes = fields.into_mistakes();
    if mistakes.is_empty() { Ok(Backend::Vxlan(conf)) } else { Err(mistakes) }
}
