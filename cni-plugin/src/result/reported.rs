//! Results of other plugins: prevResult, and what an IPAM plugin answers. In the shape of any version.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use super::RouteConfig;
use crate::{
    dns::Dns,
    error::{Code, Error},
};

/// A result as read; keys are in lower case by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Reported {
    pub(crate) interfaces: Vec<ReportedInterface>,
    pub(crate) ips: Vec<ReportedIp>,
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) dns: Dns,
    /// 0.1.0 and 0.2.0 have these two in place of the three lists.
    ip4: Option<OfFamily>,
    ip6: Option<OfFamily>,
}

/// An interface of a result. Other plugins may have MACs of another length, so it stays a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ReportedInterface {
    pub(crate) name: String,
    pub(crate) mac: String,
    /// 0: not stated.
    pub(crate) mtu: u32,
    /// Empty on the host.
    pub(crate) sandbox: String,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ReportedIp {
    pub(crate) address: IpNetwork,
    #[serde(default)]
    pub(crate) gateway: Option<IpAddr>,
    /// Index into the interfaces, if it is known.
    #[serde(default)]
    pub(crate) interface: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct OfFamily {
    ip: IpNetwork,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<RouteConfig>,
}

impl Reported {
    pub(crate) fn parse(result: Value) -> Result<Self, Error> {
        let mut reported: Self = serde_json::from_value(result)
            .map_err(|error| Error::new(Code::Decode, format!("cannot read the result of a plugin: {error}")))?;
        for old in [reported.ip4.take(), reported.ip6.take()].into_iter().flatten() {
            reported.ips.push(ReportedIp { address: old.ip, gateway: old.gateway, interface: None });
            reported.routes.extend(old.routes);
        }
        Ok(reported)
    }

    /// The addresses of the interface with that index, and those that name none.
    pub(crate) fn addresses_of(&self, interface: usize) -> impl Iterator<Item = IpAddr> {
        let of_it = move |ip: &&ReportedIp| ip.interface.is_none_or(|index| index == interface);
        self.ips.iter().filter(of_it).map(|ip| ip.address.ip())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn r2_4_every_version_is_read() {
        let current = Reported::parse(json!({
            "cniversion": "1.0.0",
            "interfaces": [{"name": "veth1"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/n", "mtu": 9000}],
            "ips": [{"version": "4", "address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 1},
                    {"address": "fd00::5/64"}, {"address": "10.1.0.6/24", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {},
        }))
        .unwrap();
        assert_eq!(current.interfaces[1].mtu, 9000);
        let addresses: Vec<_> = current.addresses_of(1).map(|ip| ip.to_string()).collect();
        assert_eq!(addresses, ["10.1.0.5", "fd00::5"]);

        let old = Reported::parse(json!({
            "ip4": {"ip": "10.1.0.5/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
            "ip6": {"ip": "fd00::5/64"},
        }))
        .unwrap();
        assert_eq!((old.ips.len(), old.routes.len(), old.ips[0].gateway), (2, 1, current.ips[0].gateway));
    }

    #[test]
    fn nonsense_is_refused() {
        for result in [json!(7), json!({"ips": 7}), json!({"ips": [{"address": "ten"}]}), json!({"ip4": {}})] {
            assert_eq!(Reported::parse(result).unwrap_err().code, Code::Decode);
        }
    }
}
