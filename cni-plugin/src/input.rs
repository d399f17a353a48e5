//! The readers of foreign bytes, one function each, for fuzzing. An error is an answer; a panic is not.

use std::net::IpAddr;

use crate::{
    args::Args,
    config::{Config, Header},
    error::Error,
    ipam::{self, RangeSet},
    result::Reported,
    subnet_env::SubnetEnv,
    version::Version,
};

/// Of the overlay, in bytes: the smallest bucket depends on it.
const MTU: u32 = 1450;

/// Why an input was refused: the text a runtime would get.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// A network configuration as it comes on standard input, with what ADD, CHECK and GC read in it.
///
/// # Errors
/// It is no JSON object, or a value in it makes no sense.
pub fn network_configuration(stdin: &[u8]) -> Result<(), Refused> {
    let mut version = Version::LATEST;
    let config = Config::parse(Header::parse(stdin, &mut version)?)?;
    config.requested_ips(&Args::default())?;
    config.mac(&Args::default())?;
    walk(&RangeSet::check(&config.ranges).map_err(Error::from)?);
    config.valid_attachments()?;
    config.port_map.mappings()?;
    config.bandwidth.check(MTU)?;
    if let Some(result) = &config.prev_result {
        Reported::parse(result.clone())?;
    }
    Ok(())
}

/// The value of `CNI_ARGS`.
///
/// # Errors
/// A pair is malformed, or its key unknown and not to be ignored.
pub fn cni_args(text: &str) -> Result<(), Refused> {
    Args::parse(text)?;
    Ok(())
}

/// The name and content of a file in a network's directory of addresses: the address it reserves, if it is one that
/// reserves, and the container ID and interface name it is reserved for.
pub fn reservation(name: &str, content: &str) -> Option<(IpAddr, String, Option<String>)> {
    let address = ipam::address_of_file(name)?;
    let (id, ifname) = ipam::holder(content);
    Some((address, id.to_owned(), ifname.map(str::to_owned)))
}

/// The content of flannel's `subnet.env`.
///
/// # Errors
/// A value is no subnet or number, or there is no subnet.
pub fn subnet_file(text: &str) -> Result<(), Refused> {
    let node = SubnetEnv::parse(text).map_err(Refused)?;
    walk(&RangeSet::of_subnets(&node.subnets).map_err(Error::from)?);
    Ok(())
}

/// Looks at the addresses ADD would try first, and at those it would try after them.
fn walk(sets: &[RangeSet]) {
    for set in sets {
        let last = set.round_robin(None).take(3).last().map(|(address, _)| address);
        let _ = set.round_robin(last).take(3).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = r#"{"cniVersion":"1.1.0","name":"n","mtu":1400,"dns":{"nameservers":["10.0.0.1"]},
        "ipam":{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.1.0.5","ranges":[[{"subnet":"fd00::/64",
        "gateway":"fd00::1"}]],"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1","mtu":1}]},"args":{"cni":{"ips":["10.1.0.7"]}},
        "runtimeConfig":{"ips":["10.1.0.9/24"],"mac":"02:00:00:00:00:01","ipRanges":[[{"Subnet":"10.5.0.0/29"}]],
        "portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp","hostIP":"10.0.0.1"},{"HostPort":53,
        "ContainerPort":53,"Protocol":"UDP","HostIP":""}],"bandwidth":{"ingressRate":1000000,"ingressBurst":4294967295,
        "egressRate":1000,"egressBurst":12000}},
        "prevResult":{"interfaces":[{"name":"eth0","mac":"","mtu":1,"sandbox":"/x"}],"ips":[{"address":"10.1.0.5/24",
        "interface":1}],"routes":[{"dst":"::/0"}]},"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}"#;

    const SUBNET_FILE: &str = "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64\nFLANNEL_MTU=1450\n";

    /// What is near a good input reaches further into the readers than noise does.
    fn neighbours(text: &str) -> impl Iterator<Item = String> {
        let cut = (0..text.len()).map(|at| text[..at].to_owned());
        let changed = (0..text.len()).flat_map(move |at| {
            ["0", "9", "f", "-", "\"", "null", "[", "", "/", ":"]
                .map(|new| format!("{}{new}{}", &text[..at], &text[at + 1..]))
        });
        cut.chain(changed)
    }

    #[test]
    fn inputs_that_are_nearly_right_are_read_or_refused() {
        network_configuration(CONFIGURATION.as_bytes()).unwrap();
        let good = neighbours(CONFIGURATION).filter(|text| network_configuration(text.as_bytes()).is_ok()).count();
        assert!(good > 1000, "{good}");
        subnet_file(SUBNET_FILE).unwrap();
        assert!(neighbours(SUBNET_FILE).any(|text| subnet_file(&text).is_err()));
        let arguments = "IgnoreUnknown=1;IP=10.244.1.9/24;MAC=02:00:00:00:00:01;K8S_POD_NAME=web";
        cni_args(arguments).unwrap();
        assert!(neighbours(arguments).any(|text| cni_args(&text).is_err()));
    }

    #[test]
    fn reservations_are_told_from_other_files() {
        let holder = |name, content| reservation(name, content).map(|(_, id, ifname)| (id, ifname));
        assert_eq!(holder("10.1.0.5", "a\r\neth0"), Some(("a".into(), Some("eth0".into()))));
        assert_eq!(holder("fd00::5", "a\n"), Some(("a".into(), None)));
        assert_eq!(holder("lock", "a\r\neth0"), None);
    }
}
