//! The result of ADD, in the shape of each version of the specification (R2.4, R3).

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use weft_netlink::Mac;

use crate::version::Version;

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

/// Name servers, passed through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
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
mod tests {
    use super::*;

    fn dual_stack() -> AddResult {
        let ip = |address: &str, gateway: &str| Ip {
            address: address.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            interface: 1,
        };
        let route = |dst: &str, gw: &str| RouteConfig::via(dst.parse().unwrap(), gw.parse().unwrap());
        let interface = |name: &str, sandbox: Option<&str>| Interface {
            name: name.into(),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: 1450,
            sandbox: sandbox.map(Into::into),
        };
        AddResult {
            interfaces: vec![interface("veth1", None), interface("eth0", Some("/run/netns/x"))],
            ips: vec![ip("10.244.1.5/24", "10.244.1.1"), ip("fd44::5/64", "fd44::1")],
            routes: vec![RouteConfig { mtu: Some(1400), ..route("0.0.0.0/0", "10.244.1.1") }, route("::/0", "fd44::1")],
            dns: Dns::default(),
        }
    }

    #[test]
    fn r2_4_version_1_1_0() {
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "veth1", "mac": "02:00:00:00:00:01", "mtu": 1450},
                {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1450, "sandbox": "/run/netns/x"},
            ],
            "ips": [
                {"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 1},
                {"address": "fd44::5/64", "gateway": "fd44::1", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1", "mtu": 1400}, {"dst": "::/0", "gw": "fd44::1"}],
        });
        assert_eq!(dual_stack().to_json(Version::V1_1_0), expected);
    }

    #[test]
    fn r2_4_version_1_0_0_has_neither_mtu_nor_ip_version() {
        let result = dual_stack().to_json(Version::V1_0_0);
        assert_eq!(result["interfaces"][0], json!({"name": "veth1", "mac": "02:00:00:00:00:01"}));
        assert_eq!(result["ips"][0], json!({"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 1}));
        assert_eq!(result["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.244.1.1"}));
        assert!(result.get("dns").is_none());
    }

    #[test]
    fn r2_4_versions_0_3_and_0_4_have_ip_version_and_dns() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            let result = dual_stack().to_json(version);
            assert_eq!(result["cniVersion"], version.as_str());
            assert_eq!((&result["ips"][0]["version"], &result["ips"][1]["version"]), (&json!("4"), &json!("6")));
            assert_eq!(result["dns"], json!({}));
        }
    }

    #[test]
    fn r2_4_versions_0_1_and_0_2_have_one_address_per_family() {
        let expected = json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.244.1.5/24", "gateway": "10.244.1.1",
                    "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}]},
            "ip6": {"ip": "fd44::5/64", "gateway": "fd44::1", "routes": [{"dst": "::/0", "gw": "fd44::1"}]},
            "dns": {},
        });
        assert_eq!(dual_stack().to_json(Version::V0_2_0), expected);
    }
}
