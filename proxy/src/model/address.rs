//! Addresses as Kubernetes reads them: leading zeros are accepted and dropped (kube-proxy.md 1.12).

use std::{net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;

/// Parses an address the sloppy way; an IPv4-mapped IPv6 address becomes the IPv4 address, as in Go.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    let address = IpAddr::from_str(text).or_else(|_| IpAddr::from_str(&without_leading_zeros(text))).ok()?;
    Some(address.to_canonical())
}

/// Parses `address/prefix` the sloppy way and clears the host bits. Space around it is trimmed (9.6).
pub(super) fn parse_cidr(text: &str) -> Option<IpNetwork> {
    let (address, prefix) = text.trim().split_once('/')?;
    // Not `parse_ip`: the prefix of a mapped address counts 128 bits, so it would not fit the IPv4 address.
    let address = IpAddr::from_str(&without_leading_zeros(address)).ok()?;
    if !prefix.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let network = IpNetwork::new(address, prefix.parse().ok()?).ok()?;
    IpNetwork::new(network.network(), network.prefix()).ok()
}

/// Why an address can be neither an endpoint nor an external address, or `None` if it can.
///
/// The API server refuses the same ones; a manifest in a directory has not been through it. Loopback and link-local
/// would let the author of a Service reach what listens on the node only.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match address {
        _ if address.is_unspecified() => Some("unspecified"),
        _ if address.is_loopback() => Some("loopback"),
        _ if address.is_multicast() => Some("multicast"),
        _ if link_local => Some("link-local"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast"),
        _ => None,
    }
}

/// `10.0.0.041` to `10.0.0.41`, `2001:0db8::0001` to `2001:db8::1`: each run of letters and digits keeps its last zero.
fn without_leading_zeros(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut in_run = false;
    while let Some(c) = chars.next() {
        let more = chars.peek().is_some_and(char::is_ascii_alphanumeric);
        if c == '0' && !in_run && more {
            continue;
        }
        in_run = c.is_ascii_alphanumeric();
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_12_sloppy_addresses_are_canonical() {
        for (text, canonical) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("172.30.0.041", Some("172.30.0.41")),
            ("010.000.00.0000", Some("10.0.0.0")),
            ("2001:DB8:0000::0001", Some("2001:db8::1")),
            ("2001:0db8:0:0:0:0:0:00001", Some("2001:db8::1")),
            ("::", Some("::")),
            ("::ffff:10.0.0.01", Some("10.0.0.1")),
            ("", None),
            ("10.0.0", None),
            ("10.0.0.256", None),
            ("0x10.0.0.1", None),
            ("10.0.0.1 ", None),
            ("fe80::1%eth0", None),
            ("١.0.0.1", None),
        ] {
            assert_eq!(parse_ip(text).map(|ip| ip.to_string()).as_deref(), canonical, "{text:?}");
        }
    }

    #[test]
    fn rule_1_12_sloppy_ranges_are_canonical() {
        for (text, canonical) in [
            ("203.0.113.000/025", Some("203.0.113.0/25")),
            (" 10.1.2.3/8\n", Some("10.0.0.0/8")),
            ("2001:DB8::/032", Some("2001:db8::/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/255.0.0.0", None),
        ] {
            assert_eq!(parse_cidr(text).map(|net| net.to_string()).as_deref(), canonical, "{text:?}");
        }
    }
}
