//! flannel's `subnet.env`: what the overlay gave this node (flannel.md section 7).

use std::{fs, io, path::Path};

use ipnetwork::IpNetwork;

use crate::error::{Code, Error};

/// The node's part of the pod network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubnetEnv {
    /// IPv4 and IPv6 subnets of this node, in this order; the file gives them with the host part of the gateway.
    pub(crate) subnets: Vec<IpNetwork>,
    /// MTU inside the overlay, in bytes.
    pub(crate) mtu: Option<u32>,
}

impl SubnetEnv {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            // The agent writes it as soon as the overlay is up; until then a pod may well be tried again (code 11).
            io::ErrorKind::NotFound => Error::with_details(
                Code::TryAgainLater,
                format!("the node has no pod subnet yet: {} does not exist", path.display()),
                "weft agent writes it when the overlay is up",
            ),
            _ => Error::new(Code::Io, format!("read {}: {error}", path.display())),
        })?;
        Self::parse(&text).map_err(|message| Error::new(Code::InvalidConfig, format!("{}: {message}", path.display())))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut env = Self::default();
        let (mut v4, mut v6) = (None, None);
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match key {
                "FLANNEL_SUBNET" => v4 = Some(network(key, value, IpNetwork::is_ipv4)?),
                "FLANNEL_IPV6_SUBNET" => v6 = Some(network(key, value, IpNetwork::is_ipv6)?),
                "FLANNEL_MTU" => env.mtu = Some(value.parse().map_err(|_| format!("{key} {value:?} is no number"))?),
                _ => {}
            }
        }
        env.subnets = v4.into_iter().chain(v6).collect();
        if env.subnets.is_empty() {
            return Err("neither FLANNEL_SUBNET nor FLANNEL_IPV6_SUBNET".to_owned());
        }
        Ok(env)
    }
}

fn network(key: &str, value: &str, of_family: fn(&IpNetwork) -> bool) -> Result<IpNetwork, String> {
    value.parse().ok().filter(of_family).ok_or_else(|| format!("{key} {value:?} is no subnet of its family"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flannels_file_is_understood() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd44::/48\n\
                    FLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let expected = SubnetEnv {
            subnets: vec!["10.244.1.1/24".parse().unwrap(), "fd44:0:0:1::1/64".parse().unwrap()],
            mtu: Some(1450),
        };
        assert_eq!(SubnetEnv::parse(text), Ok(expected));
        let only_v6 = SubnetEnv::parse("FLANNEL_IPV6_SUBNET=fd44::1/64\n").unwrap();
        assert_eq!((only_v6.subnets.len(), only_v6.mtu), (1, None));
    }

    #[test]
    fn broken_files_are_refused_by_key() {
        for (text, key) in [
            ("FLANNEL_SUBNET=10.244.1.1", None),
            ("FLANNEL_SUBNET=fd44::1/64", Some("FLANNEL_SUBNET")),
            ("FLANNEL_SUBNET=10.244.1.300/24", Some("FLANNEL_SUBNET")),
            ("FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=big", Some("FLANNEL_MTU")),
            ("", Some("neither FLANNEL_SUBNET")),
        ] {
            let result = SubnetEnv::parse(text);
            match key {
                Some(key) => assert!(result.clone().unwrap_err().contains(key), "{result:?}"),
                // Without a length it is a single address, which no range fits into: refused there.
                None => assert_eq!(result.unwrap().subnets[0].prefix(), 32),
            }
        }
    }

    #[test]
    fn a_missing_file_is_worth_another_try() {
        let error = SubnetEnv::read(Path::new("/nonexistent/subnet.env")).unwrap_err();
        assert_eq!(error.code, Code::TryAgainLater);
    }
}
