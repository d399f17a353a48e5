//! `subnet.env`: what the CNI plugin reads about this node, in flannel's bytes (flannel.md section 7).

use std::{
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;

use crate::{
    atomic_file,
    family::{self, Family},
    lease::Subnets,
};

/// Contents of `subnet.env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetEnv {
    /// Pod network and this node's subnet, IPv4.
    pub ipv4: Option<SubnetEnvFamily>,
    /// The same for IPv6.
    pub ipv6: Option<SubnetEnvFamily>,
    /// MTU of pod interfaces, in bytes.
    pub mtu: u32,
    /// Whether the overlay masquerades, so that nobody else should.
    pub ip_masq: bool,
}

/// One family's networks in `subnet.env`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetEnvFamily {
    /// The pod network of the cluster.
    pub network: IpNetwork,
    /// This node's subnet, host bits zero. The file shows its first host address.
    pub subnet: IpNetwork,
}

/// `subnet.env` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SubnetEnvError {
    /// It could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// `read`, `write` or `remove`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A line has a value that cannot be.
    #[error("{}: {key}={value}: not {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The variable.
        key: &'static str,
        /// Its value; empty if the line is missing.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
}

impl SubnetEnv {
    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let families = [("", self.ipv4), ("IPV6_", self.ipv6)];
        for (infix, family) in families {
            if let Some(SubnetEnvFamily { network, subnet }) = family {
                let gateway = first_host(subnet).unwrap_or(subnet.ip());
                let prefix = subnet.prefix();
                let _ = writeln!(text, "FLANNEL_{infix}NETWORK={network}");
                let _ = writeln!(text, "FLANNEL_{infix}SUBNET={gateway}/{prefix}");
            }
        }
        let _ = writeln!(text, "FLANNEL_MTU={}\nFLANNEL_IPMASQ={}", self.mtu, self.ip_masq);
        text
    }

    /// Writes the file (0644, in one step) and its directory (0755), unless it is there already; true if it wrote.
    ///
    /// # Errors
    /// [`SubnetEnvError::File`].
    pub fn write(&self, path: &Path) -> Result<bool, SubnetEnvError> {
        let text = self.to_text();
        if fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        let write = || {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            atomic_file::replace(path, &text)
        };
        write().map(|()| true).map_err(failed("write", path))
    }

    /// Reads the file; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or a value in it cannot be.
    pub fn read(path: &Path) -> Result<Option<Self>, SubnetEnvError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", path)(source)),
        };
        let lines = Lines { path, text: &text };
        Ok(Some(Self {
            ipv4: lines.family(Family::V4, "FLANNEL_NETWORK", "FLANNEL_SUBNET")?,
            ipv6: lines.family(Family::V6, "FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET")?,
            mtu: lines.value("FLANNEL_MTU", "a number of bytes", |value| value.parse().ok())?,
            ip_masq: lines.value("FLANNEL_IPMASQ", "true or false", |value| value.parse().ok())?,
        }))
    }

    /// Removes the file; one that is gone is fine.
    ///
    /// # Errors
    /// [`SubnetEnvError::File`].
    pub fn remove(path: &Path) -> Result<(), SubnetEnvError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// The subnets the file gives to this node.
    pub fn subnets(&self) -> Option<Subnets> {
        let families = [self.ipv4, self.ipv6].into_iter().flatten();
        Subnets::from_networks(families.map(|family| family.subnet))
    }
}

struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Lines<'_> {
    fn raw(&self, key: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    fn value<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, SubnetEnvError> {
        let value = self.raw(key).unwrap_or_default();
        parse(value).ok_or_else(|| SubnetEnvError::Value {
            path: self.path.to_owned(),
            key,
            value: value.to_owned(),
            expected,
        })
    }

    fn family(
        &self,
        family: Family,
        network_key: &'static str,
        subnet_key: &'static str,
    ) -> Result<Option<SubnetEnvFamily>, SubnetEnvError> {
        if self.raw(network_key).is_none() && self.raw(subnet_key).is_none() {
            return Ok(None);
        }
        let parse = |value: &str| {
            let network: IpNetwork = value.parse().ok().filter(|_| value.contains('/'))?;
            let network = family::network(network.ip(), network.prefix())?;
            (Family::of(network.ip()) == family).then_some(network)
        };
        Ok(Some(SubnetEnvFamily {
            network: self.value(network_key, "a network of its family", parse)?,
            subnet: self.value(subnet_key, "a network of its family", parse)?,
        }))
    }
}

fn first_host(subnet: IpNetwork) -> Option<IpAddr> {
    family::address(Family::of(subnet.ip()), family::number(subnet.network()).checked_add(1)?)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SubnetEnvError {
    let path = path.to_owned();
    move |source| SubnetEnvError::File { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(network: &str, subnet: &str) -> Option<SubnetEnvFamily> {
        Some(SubnetEnvFamily { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() })
    }

    #[test]
    fn bytes_are_those_of_flannel() {
        // The measured example of flannel.md section 7.
        let env = SubnetEnv {
            ipv4: family("10.244.0.0/16", "10.244.1.0/24"),
            ipv6: family("fd44::/48", "fd44:0:0:1::/64"),
            mtu: 1450,
            ip_masq: true,
        };
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
                    FLANNEL_IPV6_NETWORK=fd44::/48\nFLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64\n\
                    FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        assert_eq!(env.to_text(), text);

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/flannel/subnet.env");
        assert_eq!(SubnetEnv::read(&path).unwrap(), None);
        assert!(env.write(&path).unwrap());
        assert!(!env.write(&path).unwrap(), "nothing to write the second time");
        assert_eq!(SubnetEnv::read(&path).unwrap(), Some(env));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn broken_files_are_errors_that_name_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("subnet.env");
        for (text, key) in [
            ("", "FLANNEL_MTU"),
            ("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", "FLANNEL_SUBNET"),
            ("FLANNEL_NETWORK=10.0.0.0\nFLANNEL_SUBNET=10.0.1.1/24\n", "FLANNEL_NETWORK"),
            ("FLANNEL_MTU=1450\nFLANNEL_IPMASQ=yes\n", "FLANNEL_IPMASQ"),
        ] {
            fs::write(&path, text).unwrap();
            let error = SubnetEnv::read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("subnet.env: {key}=")), "{error}");
        }
    }
}
