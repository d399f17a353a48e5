//! Port mappings as the runtime asks for them, and the settings of the configuration.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Code, Error};

/// What the configuration says of host ports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PortMapSettings {
    /// `runtimeConfig.portMappings`, not looked into: DEL must work with any.
    pub(crate) requested: Option<Value>,
    pub(crate) masquerade: Masquerade,
    /// `None`: what the kernel has.
    pub(crate) backend: Option<PortMapBackend>,
    /// The configuration has the capability.
    pub(crate) may_be_asked_for: bool,
}

/// `backend`, as the reference plugin calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PortMapBackend {
    Nftables,
    Iptables,
}

/// Whose address the pod sees in place of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Masquerade {
    /// `"snat": false`.
    Never,
    /// The default: for clients that could not be answered otherwise, the pod itself and 127.0.0.1.
    WhereNeeded,
    /// `"masqAll": true`.
    Always,
}

/// Transport protocols with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// One checked mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Address of the node; unspecified: any of that family. `None`: any of both.
    pub(crate) host: Option<IpAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) host_port: u16,
    pub(crate) pod_port: u16,
}

/// As it comes; keys are in lower case by then.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    hostport: i64,
    containerport: i64,
    protocol: String,
    hostip: String,
}

impl PortMapSettings {
    /// The mappings asked for.
    pub(crate) fn mappings(&self) -> Result<Vec<Mapping>, Error> {
        let Some(requested) = self.requested.clone() else { return Ok(Vec::new()) };
        let entries: Vec<Entry> = serde_json::from_value(requested)
            .map_err(|error| Error::new(Code::Decode, format!("cannot read runtimeConfig.portMappings: {error}")))?;
        entries.into_iter().map(Mapping::try_from).collect()
    }
}

impl Mapping {
    pub(crate) fn has_family_of(&self, pod: IpAddr) -> bool {
        self.host.is_none_or(|host| host.is_ipv4() == pod.is_ipv4())
    }
}

impl TryFrom<Entry> for Mapping {
    type Error = Error;

    fn try_from(entry: Entry) -> Result<Self, Error> {
        let host = match entry.hostip.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid(format!("hostIP {text:?} is no address")))?),
        };
        Ok(Self {
            host,
            protocol: Protocol::parse(&entry.protocol)?,
            host_port: port("hostPort", entry.hostport)?,
            pod_port: port("containerPort", entry.containerport)?,
        })
    }
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// IANA's number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// In any case; TCP without a name, as Kubernetes has it.
    fn parse(text: &str) -> Result<Self, Error> {
        let is_it = |protocol: &Self| text.eq_ignore_ascii_case(protocol.name());
        match text {
            "" => Ok(Self::Tcp),
            _ => {
                Self::ALL.into_iter().find(is_it).ok_or_else(|| invalid(format!("protocol {text:?} has no host ports")))
            }
        }
    }
}

fn port(name: &str, value: i64) -> Result<u16, Error> {
    let port = u16::try_from(value).ok().filter(|port| *port != 0);
    port.ok_or_else(|| invalid(format!("{name} {value} is not in 1..=65535")))
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidConfig, format!("invalid port mapping: {message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mappings(requested: Value) -> Result<Vec<Mapping>, Error> {
        let requested = Some(crate::config::normalise(requested));
        let masquerade = Masquerade::WhereNeeded;
        PortMapSettings { requested, masquerade, backend: None, may_be_asked_for: true }.mappings()
    }

    #[test]
    fn section_8_mappings_are_read_as_containerd_and_crio_write_them() {
        let read = mappings(json!([
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
            {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "::"},
            {"hostPort": 9, "containerPort": 9, "hostIP": "192.0.2.1"},
        ]));
        let mapping = |host: Option<&str>, protocol, host_port, pod_port| {
            let host = host.map(|text| text.parse().unwrap());
            Mapping { host, protocol, host_port, pod_port }
        };
        let expected = [
            mapping(None, Protocol::Tcp, 8080, 80),
            mapping(Some("::"), Protocol::Udp, 53, 5353),
            mapping(Some("192.0.2.1"), Protocol::Tcp, 9, 9),
        ];
        assert_eq!(read.unwrap(), expected);
        assert_eq!(mappings(json!([])).unwrap(), []);
    }

    #[test]
    fn section_8_what_makes_no_sense_is_refused() {
        for (entry, code) in [
            (json!({"hostPort": 0, "containerPort": 80}), Code::InvalidConfig),
            (json!({"hostPort": -1, "containerPort": 80}), Code::InvalidConfig),
            (json!({"hostPort": 80, "containerPort": 65536}), Code::InvalidConfig),
            (json!({"hostPort": 80}), Code::InvalidConfig),
            (json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}), Code::InvalidConfig),
            (json!({"hostPort": 80, "containerPort": 80, "hostIP": "here"}), Code::InvalidConfig),
            (json!({"hostPort": "http", "containerPort": 80}), Code::Decode),
            (json!(80), Code::Decode),
        ] {
            assert_eq!(mappings(json!([entry.clone()])).unwrap_err().code, code, "{entry}");
        }
    }
}
