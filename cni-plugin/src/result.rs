//! The result of ADD, in the shape of each version of the specification (R2.4, R3).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use weft_netlink::Mac;

use crate::{dns::Dns, version::Version};

mod reported;

pub(crate) use reported::{Reported, ReportedInterface, ReportedIp};

/// What ADD did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddResult {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) dns: Dns,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    /// `CNI_NETNS` as it came (R3.2); `None` on the host.
    pub(crate) sandbox: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) address: IpNetwork,
    pub(crate) gateway: IpAddr,
    /// Index into the interfaces.
    pub(crate) interface: usize,
}

/// A route as configurations and results write it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct RouteConfig {
    pub(crate) dst: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advmss: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<u8>,
}

impl RouteConfig {
    pub(crate) fn via(dst: IpNetwork, gateway: IpAddr) -> Self {
        Self { dst, gw: Some(gateway), mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl AddResult {
    pub(crate) fn to_json(&self, version: Version) -> Value {
        if version < Version::V0_3_0 { self.to_legacy_json(version) } else { self.to_current_json(version) }
    }

    fn to_current_json(&self, version: Version) -> Value {
        let mut object = json!({
            "cniVersion": version.as_str(),
            "interfaces": self.interfaces.iter().map(|interface| interface.to_json(version)).collect::<Vec<_>>(),
            "ips": self.ips.iter().map(|ip| ip.to_json(version)).collect::<Vec<_>>(),
        });
        if !self.routes.is_empty() {
            object["routes"] = self.routes.iter().map(|route| route.to_json(version)).collect();
        }
        // Until 1.0.0 the key is not optional.
        if version < Version::V1_0_0 || self.dns != Dns::default() {
            object["dns"] = json!(self.dns);
        }
        object
    }

    /// 0.1.0 and 0.2.0: one address of each family and no interfaces.
    fn to_legacy_json(&self, version: Version) -> Value {
        let mut object = json!({ "cniVersion": version.as_str(), "dns": self.dns });
        for (key, of_family) in [("ip4", IpNetwork::is_ipv4 as fn(&IpNetwork) -> bool), ("ip6", IpNetwork::is_ipv6)] {
            let Some(ip) = self.ips.iter().find(|ip| of_family(&ip.address)) else { continue };
            let routes: Vec<_> =
                self.routes.iter().filter(|route| of_family(&route.dst)).map(|route| route.to_json(version)).collect();
            object[key] = json!({ "ip": ip.address, "gateway": ip.gateway });
            if !routes.is_empty() {
                object[key]["routes"] = routes.into();
            }
        }
        object
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("name".into(), json!(self.name));
        object.extend(self.mac.map(|mac| ("mac".to_owned(), json!(mac.to_string()))));
        if version >= Version::V1_1_0 {
            object.insert("mtu".into(), json!(self.mtu));
        }
        object.extend(self.sandbox.as_ref().map(|sandbox| ("sandbox".to_owned(), json!(sandbox))));
        object.into()
    }
}

impl Ip {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({ "address": self.address, "gateway": self.gateway, "interface": self.interface });
        if version < Version::V1_0_0 {
            object["version"] = json!(if self.address.is_ipv4() { "4" } else { "6" });
        }
        object
    }
}

impl RouteConfig {
    fn to_json(&self, version: Version) -> Value {
        if version >= Version::V1_1_0 {
            json!(self)
        } else {
            let plain = Self { mtu: None, advmss: None, priority: None, table: None, scope: None, ..self.clone() };
            json!(plain)
        }
    }
}

#[cfg(test)]
mod tests;
