//! flannel's `net-conf.json`, parsed once into an immutable, valid [`NetConf`] (flannel.md section 3).

mod backend;
mod fields;
#[cfg(test)]
mod tests;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

pub(crate) use self::backend::{VXLAN, device_name, vxlan_overhead};
use self::fields::Fields;
pub use self::{
    backend::{Backend, Vxlan},
    fields::NetConfError,
};
use crate::{
    family::{self, Family},
    pool::SubnetPool,
};

/// Who decides which subnet a node gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubnetSource {
    /// The lease manager takes a free one (`dir`, `etcd`): `SubnetLen`, `SubnetMin` and `SubnetMax` count.
    Allocated,
    /// Somebody else (`kube`: the controller manager's `podCIDR`): those three are ignored, as flannel ignores them.
    Assigned,
}

/// The network configuration of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConf {
    /// The IPv4 pod network; `None` with `EnableIPv4: false`.
    pub ipv4: Option<PodNetwork>,
    /// The IPv6 pod network; `None` unless `EnableIPv6: true`.
    pub ipv6: Option<PodNetwork>,
    /// `EnableNFTables`: with what masquerading is done; `None`: not said, whatever the host has.
    pub nftables: Option<bool>,
    /// How packets get from node to node.
    pub backend: Backend,
}

/// The pod network of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    /// All pods of the cluster; host bits are zero.
    pub network: IpNetwork,
    /// Where subnets are taken from; `None` with [`SubnetSource::Assigned`].
    pub pool: Option<SubnetPool>,
}

impl NetConf {
    /// Parses and validates the text of `net-conf.json`.
    ///
    /// A missing `Backend` means `vxlan`: flannel's manual says so and its manifest sets it, while its code falls back to
    /// `udp`, which exists on amd64 only and is deprecated. Nobody who leaves it out means that one.
    ///
    /// # Errors
    /// Every mistake in the text, in the order of the reference. Nothing else is read, so nothing else can fail.
    pub fn parse(text: &str, source: SubnetSource) -> Result<Self, Vec<NetConfError>> {
        let document = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(object)) => object,
            Ok(other) => return Err(vec![not_an_object("(document)", &other)]),
            Err(error) => {
                return Err(vec![NetConfError {
                    field: "(document)".into(),
                    value: error.to_string(),
                    allowed: "a JSON object".into(),
                }]);
            }
        };
        let mut fields = Fields::new("", &document);
        let enabled_v4 = fields.boolean("EnableIPv4", true);
        let enabled_v6 = fields.boolean("EnableIPv6", false);
        if !enabled_v4 && !enabled_v6 {
            fields.refuse("EnableIPv4", "false", "true here or in EnableIPv6: one family is needed");
        }
        let ipv4 = enabled_v4.then(|| pod_network(&mut fields, &KEYS_V4, source)).flatten();
        let ipv6 = enabled_v6.then(|| pod_network(&mut fields, &KEYS_V6, source)).flatten();
        let nftables = fields.raw("EnableNFTables").is_some().then(|| fields.boolean("EnableNFTables", false));
        let empty = Map::new();
        let backend = match fields.raw("Backend") {
            None => backend::parse(&empty, enabled_v6),
            Some(Value::Object(object)) => backend::parse(object, enabled_v6),
            Some(other) => Err(vec![not_an_object("Backend", other)]),
        };

        let mut mistakes = fields.into_mistakes();
        match backend {
            Ok(backend) if mistakes.is_empty() => Ok(Self { ipv4, ipv6, nftables, backend }),
            Ok(_) => Err(mistakes),
            Err(more) => {
                mistakes.extend(more);
                Err(mistakes)
            }
        }
    }

    /// The pod network of a family; `None` if the family is off.
    pub fn network(&self, family: Family) -> Option<PodNetwork> {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }

    /// The enabled families, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        Family::ALL.into_iter().filter(|family| self.network(*family).is_some())
    }
}

fn not_an_object(field: &str, value: &Value) -> NetConfError {
    NetConfError { field: field.into(), value: value.to_string(), allowed: "a JSON object".into() }
}

/// Spelling and limits of one family's fields (flannel.md section 3).
struct Keys {
    family: Family,
    network: &'static str,
    subnet_len: &'static str,
    subnet_min: &'static str,
    subnet_max: &'static str,
    /// `SubnetLen` when unset, if the network has room for four of them.
    default_subnet_len: u8,
    /// The longest prefix of a subnet: at least a gateway and a pod.
    max_subnet_len: u8,
}

const KEYS_V4: Keys = Keys {
    family: Family::V4,
    network: "Network",
    subnet_len: "SubnetLen",
    subnet_min: "SubnetMin",
    subnet_max: "SubnetMax",
    default_subnet_len: 24,
    max_subnet_len: 30,
};
const KEYS_V6: Keys = Keys {
    family: Family::V6,
    network: "IPv6Network",
    subnet_len: "IPv6SubnetLen",
    subnet_min: "IPv6SubnetMin",
    subnet_max: "IPv6SubnetMax",
    default_subnet_len: 64,
    max_subnet_len: 126,
};

fn pod_network(fields: &mut Fields<'_>, keys: &Keys, source: SubnetSource) -> Option<PodNetwork> {
    let network = fields.network(keys.network, keys.family)?;
    let pool = match source {
        SubnetSource::Assigned => None,
        SubnetSource::Allocated => Some(pool(fields, keys, network)?),
    };
    Some(PodNetwork { network, pool })
}

fn pool(fields: &mut Fields<'_>, keys: &Keys, network: IpNetwork) -> Option<SubnetPool> {
    // Room for four subnets at least: the first is not given out by default, and one node is no cluster.
    let shortest = network.prefix() + 2;
    if shortest > keys.max_subnet_len {
        let allowed = format!("a prefix of at most /{}", keys.max_subnet_len - 2);
        fields.refuse(keys.network, network, allowed);
        return None;
    }
    let subnet_len = if fields.raw(keys.subnet_len).is_some() {
        let range = u64::from(shortest)..=u64::from(keys.max_subnet_len);
        u8::try_from(fields.number(keys.subnet_len, range)?).ok()?
    } else {
        keys.default_subnet_len.max(shortest)
    };
    let size = 1u128 << (keys.family.bits() - subnet_len);
    let base = family::number(network.network());
    let default_first = family::address(keys.family, base + size)?;
    let default_last = family::network(network.broadcast(), subnet_len)?.network();
    let first = bound(fields, keys.subnet_min, keys.family, network, subnet_len, default_first)?;
    let last = bound(fields, keys.subnet_max, keys.family, network, subnet_len, default_last)?;
    if first > last {
        fields.refuse(keys.subnet_min, first, format!("at most {} ({last})", keys.subnet_max));
        return None;
    }
    Some(SubnetPool { network, subnet_len, first, last })
}

/// `SubnetMin` or `SubnetMax`: inside the network and the first address of a subnet.
fn bound(
    fields: &mut Fields<'_>,
    name: &str,
    family: Family,
    network: IpNetwork,
    subnet_len: u8,
    default: std::net::IpAddr,
) -> Option<std::net::IpAddr> {
    if fields.raw(name).is_none() {
        return Some(default);
    }
    let address = fields.address(name, family)?;
    let aligned = family::network(address, subnet_len)?.network() == address;
    if network.contains(address) && aligned {
        return Some(address);
    }
    fields.refuse(name, address, format!("the first address of a /{subnet_len} inside {network}"));
    None
}
