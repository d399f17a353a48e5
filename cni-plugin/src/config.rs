//! The network configuration on standard input.

use std::{net::IpAddr, path::PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use weft_netlink::Mac;

use crate::{
    args::{Args, parse_address},
    env::is_identifier,
    error::{Code, Error},
    ipam::RangeConfig,
    result::{Dns, RouteConfig},
    version::Version,
};

const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DATA_DIR: &str = "/var/lib/cni/networks";

/// The part every command checks first, in this order: JSON, name, version (R1.6).
#[derive(Clone, Debug)]
pub(crate) struct Header {
    name: String,
    /// The whole configuration, keys in lower case and nulls left out.
    body: Value,
}

/// A configuration as ADD and DEL need it. What only ADD needs to be right is checked by ADD.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Name of the network.
    pub(crate) name: String,
    /// MTU of the interfaces in bytes; 0: that of the subnet file.
    pub(crate) mtu: u32,
    pub(crate) subnet_file: PathBuf,
    /// Directory of host-local's files, without the name of the network.
    pub(crate) data_dir: PathBuf,
    pub(crate) ipam_type: String,
    /// Sets of ranges, one address to be taken from each; empty: the subnet file's.
    pub(crate) ranges: Vec<Vec<RangeConfig>>,
    /// Routes for the container; empty: a default route.
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) dns: Dns,
    requested_ips: Vec<String>,
    mac: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Body {
    mtu: u32,
    subnetfile: Option<PathBuf>,
    datadir: Option<PathBuf>,
    ipam: Ipam,
    dns: Dns,
    args: ArgsSection,
    runtimeconfig: RuntimeConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Ipam {
    r#type: String,
    datadir: Option<PathBuf>,
    ranges: Vec<Vec<RangeConfig>>,
    routes: Vec<RouteConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ArgsSection {
    cni: PodArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodArgs {
    ips: Vec<String>,
    mac: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct RuntimeConfig {
    ips: Vec<String>,
    mac: Option<String>,
    ipranges: Vec<Vec<RangeConfig>>,
}

impl Header {
    /// Reads the name and the version. `version` is set as soon as it is known, for an error to be written in it.
    pub(crate) fn parse(stdin: &[u8], version: &mut Version) -> Result<Self, Error> {
        let decoding = |error: &dyn std::fmt::Display| {
            Error::new(Code::Decode, format!("error unmarshall network config: {error}"))
        };
        let body: Value = serde_json::from_slice(stdin).map_err(|error| decoding(&error))?;
        if !body.is_object() {
            return Err(decoding(&"it is not a JSON object"));
        }
        let body = normalise(body);
        let text = |key: &str| match body.get(key) {
            None => Ok(""),
            Some(value) => value.as_str().ok_or_else(|| decoding(&format_args!("{key} is not a string"))),
        };
        let (name, config_version) = (text("name")?, text("cniversion")?);
        let known = Version::of_config(config_version);
        if let Ok(known) = known {
            *version = known;
        }
        if name.is_empty() {
            return Err(Error::new(Code::InvalidConfig, "missing network name"));
        }
        if !is_identifier(name) {
            return Err(Error::with_details(Code::InvalidConfig, "invalid characters found in network name", name));
        }
        known?;
        Ok(Self { name: name.to_owned(), body })
    }
}

impl Config {
    pub(crate) fn parse(header: Header) -> Result<Self, Error> {
        // The first range may stand in `ipam` itself (section 7).
        let single = header.body.get("ipam").filter(|ipam| ipam.get("subnet").is_some()).cloned();
        let single = single.map(serde_json::from_value::<RangeConfig>).transpose().map_err(decoding)?;
        let body: Body = serde_json::from_value(header.body).map_err(decoding)?;
        // runtimeConfig.ipRanges come before the configured ones (section 6).
        let mut ranges = body.runtimeconfig.ipranges;
        ranges.extend(single.map(|range| vec![range]));
        ranges.extend(body.ipam.ranges);
        Ok(Self {
            name: header.name,
            mtu: body.mtu,
            subnet_file: body.subnetfile.unwrap_or_else(|| SUBNET_FILE.into()),
            data_dir: body.ipam.datadir.or(body.datadir).unwrap_or_else(|| DATA_DIR.into()),
            ipam_type: body.ipam.r#type,
            ranges,
            routes: body.ipam.routes,
            dns: body.dns,
            requested_ips: body.args.cni.ips.into_iter().chain(body.runtimeconfig.ips).collect(),
            mac: body.runtimeconfig.mac.or(body.args.cni.mac),
        })
    }

    /// The addresses asked for, wherever they are asked for (section 6: a union).
    pub(crate) fn requested_ips(&self, args: &Args) -> Result<Vec<IpAddr>, Error> {
        let mut requested: Vec<_> = args.ip.into_iter().collect();
        for text in &self.requested_ips {
            let address = parse_address(text)?;
            if !requested.contains(&address) {
                requested.push(address);
            }
        }
        Ok(requested)
    }

    /// The container's MAC, if one is asked for: runtimeConfig, then args, then `CNI_ARGS` (A6).
    pub(crate) fn mac(&self, args: &Args) -> Result<Option<Mac>, Error> {
        match self.mac.as_deref().filter(|text| !text.is_empty()) {
            None => Ok(args.mac),
            Some(text) => match text.parse() {
                Ok(mac) => Ok(Some(mac)),
                Err(error) => Err(Error::with_details(Code::InvalidConfig, "invalid mac", format!("{error}"))),
            },
        }
    }

    /// Whether addresses come from the built-in host-local; other plugins are not called yet.
    pub(crate) fn check_ipam_type(&self) -> Result<(), Error> {
        if self.ipam_type.is_empty() || self.ipam_type == "host-local" {
            return Ok(());
        }
        Err(Error::with_details(
            Code::UnsupportedField,
            "unsupported IPAM plugin",
            format!("ipam.type is {:?}; weft-cni has \"host-local\" built in and calls no others yet", self.ipam_type),
        ))
    }
}

fn decoding(error: serde_json::Error) -> Error {
    Error::new(Code::Decode, format!("failed to load netconf: {error}"))
}

/// Go's decoder takes keys in any case and null for any type, and containerd makes use of both (R1.8).
fn normalise(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let known = object.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(known.map(|(key, value)| (key.to_ascii_lowercase(), normalise(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().filter(|item| !item.is_null()).map(normalise).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
