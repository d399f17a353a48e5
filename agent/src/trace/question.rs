//! What is asked: from whom, to whom. Text only; nothing is looked up here.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use weft_proxy::model::Protocol;

/// Who opens the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// A process in the node's own network.
    Node,
    /// Whoever has this address: a pod of this node, or somebody whose packets this node receives.
    Address(IpAddr),
    /// The pod `namespace/name` of this node.
    Pod(String),
}

/// To whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// An address.
    Address { address: IpAddr, port: Option<u16>, protocol: Protocol },
    /// The Service, or else the pod of this node, `namespace/name`.
    Name { name: String, port: Option<String>, protocol: Option<Protocol> },
}

/// The text names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {problem}")]
pub(crate) struct QuestionError {
    text: String,
    problem: &'static str,
}

impl FromStr for From {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        if text == "node" {
            return Ok(Self::Node);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match is_name(text) {
            true => Ok(Self::Pod(text.to_owned())),
            false => Err(error(text, "FROM is `node`, an IP address, or a pod NAMESPACE/NAME")),
        }
    }
}

impl FromStr for To {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        const ALLOWED: &str =
            "TO is NAMESPACE/NAME[:PORT[/PROTOCOL]] or IP[:PORT[/PROTOCOL]], IPv6 with a port in brackets";
        if let Ok(address) = text.parse() {
            return Ok(Self::Address { address, port: None, protocol: Protocol::Tcp });
        }
        let (place, protocol) = split_protocol(text)?;
        if let Ok(at) = place.parse::<SocketAddr>() {
            let protocol = protocol.unwrap_or_default();
            return Ok(Self::Address { address: at.ip(), port: Some(at.port()), protocol });
        }
        let (name, port) = match place.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (place, None),
        };
        if !is_name(name) || port.is_some_and(str::is_empty) {
            return Err(error(text, ALLOWED));
        }
        Ok(Self::Name { name: name.to_owned(), port: port.map(str::to_owned), protocol })
    }
}

/// A protocol stands behind a port only: `default/udp` is a name.
fn split_protocol(text: &str) -> Result<(&str, Option<Protocol>), QuestionError> {
    let Some(colon) = text.rfind(':') else { return Ok((text, None)) };
    let Some((port, name)) = text[colon..].split_once('/') else { return Ok((text, None)) };
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    match known.into_iter().find(|protocol| protocol.lowercase() == name.to_ascii_lowercase()) {
        Some(protocol) => Ok((&text[..colon + port.len()], Some(protocol))),
        None => Err(error(text, "the protocol is tcp, udp or sctp")),
    }
}

/// `namespace/name`, of characters that names of Kubernetes have.
pub(crate) fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
    };
    text.split_once('/').is_some_and(|(namespace, name)| is_part(namespace) && is_part(name))
}

fn error(text: &str, problem: &'static str) -> QuestionError {
    QuestionError { text: text.to_owned(), problem }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Address(address) => address.fmt(f),
            Self::Pod(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_the_node_an_address_or_a_pod() {
        assert_eq!("node".parse(), Ok(From::Node));
        assert_eq!("10.244.1.2".parse(), Ok(From::Address("10.244.1.2".parse().unwrap())));
        assert_eq!("default/client".parse(), Ok(From::Pod("default/client".to_owned())));
        for odd in ["", "client", "a/b/c", "a/", "Default/x", "10.244.1.2:80", "a b/c"] {
            assert!(odd.parse::<From>().is_err(), "{odd:?}");
        }
    }

    #[test]
    fn whom_is_asked_is_a_service_a_pod_or_an_address() {
        let name = |name: &str, port: Option<&str>, protocol| To::Name {
            name: name.to_owned(),
            port: port.map(str::to_owned),
            protocol,
        };
        let address = |address: &str, port, protocol| To::Address { address: address.parse().unwrap(), port, protocol };
        for (text, expected) in [
            ("default/web", name("default/web", None, None)),
            ("default/web:http", name("default/web", Some("http"), None)),
            ("default/dns:53/udp", name("default/dns", Some("53"), Some(Protocol::Udp))),
            ("default/udp", name("default/udp", None, None)),
            ("10.96.0.1:443", address("10.96.0.1", Some(443), Protocol::Tcp)),
            ("10.96.0.10:53/UDP", address("10.96.0.10", Some(53), Protocol::Udp)),
            ("[fd00::1]:80/sctp", address("fd00::1", Some(80), Protocol::Sctp)),
            ("fd00::1", address("fd00::1", None, Protocol::Tcp)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for odd in ["", "web", "default/web:", "10.96.0.1:80/icmp", "10.96.0.1:99999", "default/web:http/x", "a/b/c"] {
            assert!(odd.parse::<To>().is_err(), "{odd:?}");
        }
    }
}
