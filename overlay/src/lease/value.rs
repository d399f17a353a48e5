//! The JSON value of a lease, byte for byte as flannel writes it.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{LeaseAttributes, Mac, VtepData};

/// The only backend whose payload is read.
const VXLAN: &str = "vxlan";

/// Field order is the wire order. flannel's IPv4 address is never null: absent is 0.0.0.0.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireLease {
    #[serde(rename = "PublicIP", default = "unspecified")]
    public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6", default)]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    backend_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend_data: Option<WirePayload>,
    #[serde(rename = "BackendV6Data", default, skip_serializing_if = "Option::is_none")]
    backend_v6_data: Option<WirePayload>,
}

fn unspecified() -> Ipv4Addr {
    Ipv4Addr::UNSPECIFIED
}

/// A payload is read as a tree first, because its shape depends on the backend.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WirePayload {
    Vtep(VtepData),
    Other(Value),
}

/// flannel parses `VtepMAC` textually: it must come last and be the only string (flannel.md 4.1).
#[derive(Serialize, Deserialize)]
struct WireVtep {
    #[serde(rename = "VNI")]
    vni: u32,
    #[serde(rename = "VtepMAC", with = "mac_text")]
    mac: Mac,
}

mod mac_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for VtepData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireVtep { vni: self.vni, mac: self.mac }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for VtepData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let WireVtep { vni, mac } = WireVtep::deserialize(deserializer)?;
        Ok(Self { vni, mac })
    }
}

/// The value of a lease cannot be used. It stays unusable until its owner writes it again.
#[derive(Debug, thiserror::Error)]
pub enum LeaseValueError {
    /// It is not the JSON of a lease.
    #[error("not the value of a lease: {0}")]
    Json(#[from] serde_json::Error),
    /// A vxlan lease with a payload that is not vxlan's.
    #[error("{field} is {value}, not {{\"VNI\":number,\"VtepMAC\":\"aa:bb:cc:dd:ee:ff\"}}")]
    Payload {
        /// `BackendData` or `BackendV6Data`.
        field: &'static str,
        /// What it is.
        value: String,
    },
}

impl LeaseAttributes {
    /// The JSON value, without a line end.
    pub fn to_json(&self) -> String {
        let wire = WireLease {
            public_ip: self.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            public_ipv6: self.public_ipv6,
            backend_type: self.backend_type.clone(),
            backend_data: self.backend_data.map(WirePayload::Vtep),
            backend_v6_data: self.backend_v6_data.map(WirePayload::Vtep),
        };
        serde_json::to_string(&wire).expect("a struct with string keys is always JSON")
    }

    /// Reads the JSON value. Payloads of other backends are not looked at.
    ///
    /// # Errors
    /// [`LeaseValueError`]: the value must not be used.
    pub fn from_json(json: &str) -> Result<Self, LeaseValueError> {
        let wire: WireLease = serde_json::from_str(json)?;
        let vxlan = wire.backend_type == VXLAN;
        Ok(Self {
            public_ip: Some(wire.public_ip).filter(|address| !address.is_unspecified()),
            public_ipv6: wire.public_ipv6.filter(|address| !address.is_unspecified()),
            backend_data: vtep("BackendData", wire.backend_data, vxlan)?,
            backend_v6_data: vtep("BackendV6Data", wire.backend_v6_data, vxlan)?,
            backend_type: wire.backend_type,
        })
    }
}

fn vtep(field: &'static str, payload: Option<WirePayload>, vxlan: bool) -> Result<Option<VtepData>, LeaseValueError> {
    match payload {
        Some(WirePayload::Vtep(vtep)) if vxlan => Ok(Some(vtep)),
        Some(WirePayload::Other(value)) if vxlan => Err(LeaseValueError::Payload { field, value: value.to_string() }),
        _ => Ok(None),
    }
}
