//! The network configuration on standard input.

mod body;

use std::{net::IpAddr, path::PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use weft_netlink::Mac;

use self::body::{AttachmentEntry, Body, HostLocal};

pub(crate) use self::body::normalise;
use crate::{
    args::{Args, parse_address},
    attachment::ValidAttachments,
    bandwidth::BandwidthSettings,
    dns::Dns,
    env::is_identifier,
    error::{Code, Error},
    host_port::{Masquerade, PortMapSettings},
    ipam::RangeConfig,
    result::RouteConfig,
    version::Version,
};

const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DATA_DIR: &str = "/var/lib/cni/networks";

/// Of the reference plugins portmap and bandwidth: who leaves them out opens a port to more clients than was asked for, or
/// limits more traffic.
const UNSUPPORTED: [&str; 4] = ["conditionsV4", "conditionsV6", "shapedSubnets", "unshapedSubnets"];

/// The part every command checks first, in this order: JSON, name, version (R1.6).
#[derive(Clone, Debug)]
pub(crate) struct Header {
    name: String,
    /// The whole configuration, keys in lower case and nulls left out.
    body: Value,
    /// As it came.
    stdin: Vec<u8>,
}

/// Who gives out addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IpamPlugin {
    /// The built-in one: by its name, or because there is no `ipam`.
    HostLocal,
    /// An `ipam` without `type`. Others take that as "no addresses"; a routed interface is nothing without.
    Unnamed,
    /// Another plugin, to be called.
    Other(String),
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
    /// Directories of other networks whose pods live in the same subnet, with the names of the networks: flannel's on a
    /// node that changed over.
    pub(crate) shared_with: Vec<PathBuf>,
    pub(crate) ipam: IpamPlugin,
    /// Sets of ranges, one address to be taken from each; empty: the subnet file's.
    pub(crate) ranges: Vec<Vec<RangeConfig>>,
    /// Routes for the container; empty: a default route.
    pub(crate) routes: Vec<RouteConfig>,
    /// Name servers for the pod, in place of the IPAM plugin's (A11).
    pub(crate) dns: Option<Dns>,
    /// A file with the IPAM plugin's name servers.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Device of the overlay; without it pods of other nodes cannot be reached.
    pub(crate) overlay_device: Option<String>,
    /// Host ports.
    pub(crate) port_map: PortMapSettings,
    /// Limits of what the attachment sends and receives.
    pub(crate) bandwidth: BandwidthSettings,
    /// Result of the chain's last ADD, not looked into: DEL must work with any.
    pub(crate) prev_result: Option<Value>,
    /// The configuration as it came, for other plugins.
    pub(crate) stdin: Vec<u8>,
    valid_attachments: Option<Value>,
    requested_ips: Vec<String>,
    mac: Option<String>,
    /// A field that asks for what there is not, with its value.
    unsupported: Option<(&'static str, Value)>,
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
        Ok(Self { name: name.to_owned(), body, stdin: stdin.to_owned() })
    }
}

impl Config {
    pub(crate) fn parse(header: Header) -> Result<Self, Error> {
        let unsupported = UNSUPPORTED.into_iter().find_map(|key| stated(&header.body, key));
        let body = Body::deserialize(&header.body).map_err(|error| unreadable(&header.body, error))?;
        let ipam = IpamPlugin::named_by(body.ipam.as_ref())?;
        // The section of another plugin is its own business: it need not even look like host-local's.
        let section = body.ipam.filter(|_| !matches!(ipam, IpamPlugin::Other(_))).unwrap_or_default();
        // The first range may stand in `ipam` itself (section 7).
        let single = section.get("subnet").map(|_| serde_json::from_value::<RangeConfig>(section.clone()));
        let single = single.transpose().map_err(decoding)?;
        let section: HostLocal =
            if section.is_null() { HostLocal::default() } else { serde_json::from_value(section).map_err(decoding)? };
        // runtimeConfig.ipRanges come before the configured ones (section 6).
        let mut ranges = body.runtimeconfig.ipranges;
        ranges.extend(single.map(|range| vec![range]));
        ranges.extend(section.ranges);
        // Any field counts, be it an empty list (A11).
        let stated = body.dns.filter(|dns| dns.as_object().is_none_or(|dns| !dns.is_empty()));
        let dns = stated.map(serde_json::from_value).transpose().map_err(decoding)?;
        let masquerade = match (body.masqall, body.snat) {
            (true, _) => Masquerade::Always,
            (false, Some(false)) => Masquerade::Never,
            (false, _) => Masquerade::WhereNeeded,
        };
        Ok(Self {
            name: header.name,
            port_map: PortMapSettings {
                requested: body.runtimeconfig.portmappings,
                masquerade,
                backend: body.backend,
                may_be_asked_for: body.capabilities.portmappings,
            },
            bandwidth: BandwidthSettings { fixed: body.rates, requested: body.runtimeconfig.bandwidth },
            mtu: body.mtu,
            subnet_file: body.subnetfile.unwrap_or_else(|| SUBNET_FILE.into()),
            data_dir: section.datadir.or(body.datadir).unwrap_or_else(|| DATA_DIR.into()),
            shared_with: body.sharedwith,
            ipam,
            ranges,
            routes: section.routes,
            dns: body.runtimeconfig.dns.stated().or(dns),
            resolv_conf: section.resolvconf.filter(|path| !path.as_os_str().is_empty()),
            overlay_device: body.overlaydevice,
            prev_result: body.prevresult,
            stdin: header.stdin,
            valid_attachments: body.valid_attachments.or(body.attachments),
            requested_ips: body.args.cni.ips.into_iter().chain(body.runtimeconfig.ips).collect(),
            mac: body.runtimeconfig.mac.filter(|mac| !mac.is_empty()).or(body.args.cni.mac),
            unsupported,
        })
    }

    /// The attachments GC is to spare; `None` if the runtime did not say, which is not the same as none at all (G1).
    pub(crate) fn valid_attachments(&self) -> Result<Option<ValidAttachments>, Error> {
        let Some(list) = self.valid_attachments.clone() else { return Ok(None) };
        let entries: Vec<AttachmentEntry> = serde_json::from_value(list)
            .map_err(|error| Error::new(Code::Decode, format!("cannot read cni.dev/valid-attachments: {error}")))?;
        Ok(Some(entries.into_iter().map(|entry| (entry.containerid, entry.ifname)).collect()))
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

    /// Refuses what no attachment of ours can be made from.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some((key, value)) = &self.unsupported {
            return Err(Error::with_details(
                Code::UnsupportedField,
                format!("unsupported field {key}: {value}"),
                "chain the plugin that has it after weft-cni, and leave its capability out of weft-cni's",
            ));
        }
        if self.ipam != IpamPlugin::Unnamed {
            return Ok(());
        }
        Err(Error::with_details(
            Code::InvalidConfig,
            "ipam has no type",
            "an interface of weft-cni is routed and needs an address: leave out \"ipam\" for one of the node's subnet, \
             or name an IPAM plugin, such as \"host-local\", which is built in",
        ))
    }
}

impl IpamPlugin {
    fn named_by(section: Option<&Value>) -> Result<Self, Error> {
        let Some(section) = section else { return Ok(Self::HostLocal) };
        match section.get("type") {
            None => Ok(Self::Unnamed),
            Some(Value::String(name)) if name.is_empty() => Ok(Self::Unnamed),
            Some(Value::String(name)) if name == "host-local" => Ok(Self::HostLocal),
            Some(Value::String(name)) => Ok(Self::Other(name.clone())),
            Some(other) => Err(Error::new(Code::Decode, format!("failed to load netconf: ipam.type is {other}"))),
        }
    }
}

/// A member that says something: no empty list or text.
fn stated(body: &Value, key: &'static str) -> Option<(&'static str, Value)> {
    let value = body.get(key.to_ascii_lowercase())?;
    let is_empty = value.as_array().is_some_and(Vec::is_empty) || value.as_str().is_some_and(str::is_empty);
    (!is_empty).then(|| (key, value.clone()))
}

/// Names the member at fault, which serde does not.
fn unreadable(body: &Value, error: serde_json::Error) -> Error {
    let is_at_fault = |key: &&String| {
        let alone = json!({ key.as_str(): body[key.as_str()] });
        Body::deserialize(alone).is_err()
    };
    match body.as_object().and_then(|members| members.keys().find(is_at_fault)) {
        Some(key) => Error::new(Code::Decode, format!("failed to load netconf: {key}: {error}")),
        None => decoding(error),
    }
}

fn decoding(error: serde_json::Error) -> Error {
    Error::new(Code::Decode, format!("failed to load netconf: {error}"))
}

#[cfg(test)]
mod tests;
