//! The readers of foreign bytes, one function each, for fuzzing. An error is an answer; a panic is not.

use std::net::IpAddr;

use crate::{
    args::Args,
    config::{Config, Header},
    error::Error,
    ipam,
    result::Reported,
    subnet_env::SubnetEnv,
    version::Version,
};

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
    ipam::RangeSet::check(&config.ranges).map_err(Error::from)?;
    config.valid_attachments()?;
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
    SubnetEnv::parse(text).map(drop).map_err(Refused)
}
