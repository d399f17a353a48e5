//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`, in any order (section 6).

use std::net::IpAddr;

use weft_netlink::Mac;

use crate::error::{Code, Error};

/// The keys Weft knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    /// `IP=`: an address to be given to the container, with or without a prefix length.
    pub(crate) ip: Option<IpAddr>,
    /// `MAC=`.
    pub(crate) mac: Option<Mac>,
    /// `namespace/name` of `K8S_POD_NAMESPACE=` and `K8S_POD_NAME=`, which a Kubernetes runtime passes.
    pub(crate) pod: Option<String>,
}

impl Args {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let mut args = Self::default();
        let (mut ignore_unknown, mut unknown) = (false, Vec::new());
        let (mut namespace, mut name) = (None, None);
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(_, value)| !value.contains('=')) else {
                return Err(invalid(format!("invalid CNI_ARGS pair {pair:?}")));
            };
            match key {
                "IgnoreUnknown" => ignore_unknown = matches!(value.to_ascii_lowercase().as_str(), "1" | "true"),
                "IP" => args.ip = Some(parse_address(value)?),
                "MAC" => args.mac = Some(value.parse().map_err(|error| invalid(format!("CNI_ARGS MAC: {error}")))?),
                other => {
                    match other {
                        "K8S_POD_NAMESPACE" => namespace = word(value),
                        "K8S_POD_NAME" => name = word(value),
                        _ => {}
                    }
                    unknown.push(other);
                }
            }
        }
        args.pod = namespace.zip(name).map(|(namespace, name)| format!("{namespace}/{name}"));
        if !unknown.is_empty() && !ignore_unknown {
            return Err(invalid(format!("CNI_ARGS: unknown args {unknown:?}")));
        }
        Ok(args)
    }
}

/// A value that is one word, as names of Kubernetes are.
fn word(value: &str) -> Option<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!value.is_empty() && value.chars().all(is_word)).then_some(value)
}

/// `a` or `a/len`: requested addresses come either way; the length that counts is the subnet's.
pub(crate) fn parse_address(text: &str) -> Result<IpAddr, Error> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    address.parse().map_err(|_| invalid(format!("requested IP {text:?} is not an IP address")))
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidEnvironment, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_6_known_keys_are_read_in_any_order() {
        let args = "K8S_POD_UID=1;MAC=02:00:00:00:00:01;IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.244.1.9/24";
        let expected = Args {
            ip: Some("10.244.1.9".parse().unwrap()),
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            pod: None,
        };
        let pod = |text| Args::parse(text).unwrap().pod;
        assert_eq!(pod("IgnoreUnknown=1;K8S_POD_NAME=web-1;K8S_POD_NAMESPACE=shop").as_deref(), Some("shop/web-1"));
        assert_eq!(pod("IgnoreUnknown=1;K8S_POD_NAME=a b;K8S_POD_NAMESPACE=shop"), None);
        assert_eq!(Args::parse(args), Ok(expected));
        assert_eq!(Args::parse(""), Ok(Args::default()));
    }

    #[test]
    fn section_6_malformed_and_unknown_pairs_are_refused() {
        for text in
            ["K8S_POD_NAME=x", "A=1;IgnoreUnknown=0", "IgnoreUnknown", "IgnoreUnknown=1;IP=a=b", "IP=ten", "MAC=1"]
        {
            assert_eq!(Args::parse(text).unwrap_err().code, Code::InvalidEnvironment, "{text}");
        }
    }
}
