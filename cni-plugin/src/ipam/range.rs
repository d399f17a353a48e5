//! Ranges of addresses and sets of them, with host-local's defaults and rules.

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::Error;

/// A range as configured; keys are in lower case by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RangeConfig {
    pub(crate) subnet: IpNetwork,
    #[serde(default)]
    pub(crate) rangestart: Option<IpAddr>,
    #[serde(default)]
    pub(crate) rangeend: Option<IpAddr>,
    #[serde(default)]
    pub(crate) gateway: Option<IpAddr>,
}

/// A checked range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    subnet: IpNetwork,
    /// First and last address to be given out, as numbers.
    first: u128,
    last: u128,
    pub(crate) gateway: IpAddr,
}

/// Ranges of one family; a container gets one address of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range>);

impl Range {
    /// The whole of a node's subnet, given as subnet.env does with host bits: the gateway is the first address.
    pub(crate) fn of_subnet(subnet: IpNetwork) -> Result<Self, Error> {
        let network = IpNetwork::new(subnet.network(), subnet.prefix())
            .map_err(|error| Error::InvalidRange(format!("{subnet}: {error}")))?;
        Self::new(RangeConfig { subnet: network, rangestart: None, rangeend: None, gateway: None })
    }

    fn new(config: RangeConfig) -> Result<Self, Error> {
        let invalid = |text: String| Err(Error::InvalidRange(text));
        let subnet = config.subnet;
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > bits - 2 {
            return invalid(format!("Network {subnet} too small to allocate from"));
        }
        if subnet.ip() != subnet.network() {
            let (length, network) = (subnet.prefix(), subnet.network());
            return invalid(format!(
                "Network has host bits set. For a subnet mask of length {length} the network address is {network}"
            ));
        }
        let network = number(subnet.network());
        // IPv6 has no broadcast address.
        let highest = number(last_of(subnet)) - u128::from(subnet.is_ipv4());
        let inside = |name: &str, address: Option<IpAddr>, default: u128| match address {
            None => Ok(default),
            Some(address) if subnet.contains(address) => Ok(number(address)),
            Some(address) => invalid(format!("{name} {address} not in network {subnet}")).map(|_: Self| 0),
        };
        let first = inside("RangeStart", config.rangestart, network + 1)?.max(network + 1);
        let last = inside("RangeEnd", config.rangeend, highest)?.min(highest);
        if first > last {
            return invalid(format!("RangeStart is after RangeEnd in network {subnet}"));
        }
        let gateway = config.gateway.unwrap_or_else(|| address(network + 1, subnet));
        if gateway.is_ipv4() != subnet.is_ipv4() {
            return invalid(format!("Gateway {gateway} is not of the family of network {subnet}"));
        }
        Ok(Self { subnet, first, last, gateway })
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.subnet.is_ipv4() && (self.first..=self.last).contains(&number(address))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.subnet.is_ipv4() == other.subnet.is_ipv4() && self.first <= other.last && other.first <= self.last
    }

    /// The prefix length its addresses have.
    pub(crate) fn prefix(&self) -> u8 {
        self.subnet.prefix()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", address(self.first, self.subnet), address(self.last, self.subnet))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ranges.join(","))
    }
}

impl RangeSet {
    /// Checks all sets of a configuration, each by itself and against the others.
    pub(crate) fn check(sets: &[Vec<RangeConfig>]) -> Result<Vec<Self>, Error> {
        let mut checked: Vec<Self> = Vec::new();
        for set in sets {
            let ranges = set.iter().map(|config| Range::new(*config)).collect::<Result<Vec<_>, _>>()?;
            let set = Self::of(ranges)?;
            for (a, b) in
                set.0.iter().flat_map(|a| checked.iter().flat_map(move |other| other.0.iter().map(move |b| (a, b))))
            {
                if a.overlaps(b) {
                    return Err(Error::InvalidRange(format!("range set {a} overlaps with {b}")));
                }
            }
            checked.push(set);
        }
        Ok(checked)
    }

    /// One set for each subnet of a node.
    pub(crate) fn of_subnets(subnets: &[IpNetwork]) -> Result<Vec<Self>, Error> {
        subnets.iter().map(|subnet| Ok(Self(vec![Range::of_subnet(*subnet)?]))).collect()
    }

    fn of(ranges: Vec<Range>) -> Result<Self, Error> {
        let Some(first) = ranges.first() else {
            return Err(Error::InvalidRange("empty range set".to_owned()));
        };
        if ranges.iter().any(|range| range.subnet.is_ipv4() != first.subnet.is_ipv4()) {
            return Err(Error::InvalidRange("mixed address families in one range set".to_owned()));
        }
        for (index, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges[..index].iter().find(|other| other.overlaps(range)) {
                return Err(Error::InvalidRange(format!("subnet {range} overlaps with {other}")));
            }
        }
        Ok(Self(ranges))
    }

    /// The range an address lies in.
    pub(crate) fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// All addresses, each once: from the one after `last` to the end, then from the start, `last` at the very end.
    /// Without gateways.
    pub(crate) fn round_robin(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let position = last.and_then(|last| {
            let index = self.0.iter().position(|range| range.contains(last))?;
            Some((index, number(last)))
        });
        let (index, after) = position.map_or((0, None), |(index, last)| (index, Some(last)));
        let start = self.0[index];
        // The range of `last` is walked in two parts, with all the others in between.
        let tail = match after {
            None => start.first..=start.last,
            // After the very last address there is there is none.
            Some(last) => last.checked_add(1).map_or(RangeInclusive::new(1, 0), |next| next..=start.last),
        };
        let head = after.map(|last| start.first..=last);
        let others = self.0[index + 1..].iter().chain(&self.0[..index]);
        let walk = std::iter::once((tail, &self.0[index]))
            .chain(others.map(|range| (range.first..=range.last, range)))
            .chain(head.map(|head| (head, &self.0[index])));
        walk.flat_map(|(numbers, range)| numbers.map(move |n| (address(n, range.subnet), range)))
            .filter(|(address, range)| *address != range.gateway)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with that number, in the family of `like`.
fn address(number: u128, like: IpNetwork) -> IpAddr {
    if like.is_ipv4() {
        let number = u32::try_from(number).expect("it was computed from IPv4 addresses within one subnet");
        IpAddr::V4(number.into())
    } else {
        IpAddr::V6(number.into())
    }
}

fn last_of(subnet: IpNetwork) -> IpAddr {
    match subnet {
        IpNetwork::V4(subnet) => subnet.broadcast().into(),
        IpNetwork::V6(subnet) => subnet.broadcast().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnet: &str) -> RangeConfig {
        RangeConfig { subnet: subnet.parse().unwrap(), rangestart: None, rangeend: None, gateway: None }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn walk(set: &RangeSet, last: Option<&str>) -> Vec<String> {
        set.round_robin(last.map(ip)).map(|(address, _)| address.to_string()).collect()
    }

    #[test]
    fn section_7_defaults_leave_out_network_gateway_and_broadcast() {
        let set = RangeSet::check(&[vec![config("10.1.0.0/29")]]).unwrap().remove(0);
        assert_eq!(walk(&set, None), ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        let v6 = RangeSet::check(&[vec![config("fd00::/126")]]).unwrap().remove(0);
        assert_eq!(walk(&v6, None), ["fd00::2", "fd00::3"]);
    }

    #[test]
    fn section_7_round_robin_goes_on_after_the_last_and_ends_with_it() {
        let set = RangeSet::check(&[vec![config("10.1.0.0/30"), config("10.2.0.0/29")]]).unwrap().remove(0);
        assert_eq!(
            walk(&set, Some("10.2.0.4")),
            ["10.2.0.5", "10.2.0.6", "10.1.0.2", "10.2.0.2", "10.2.0.3", "10.2.0.4"]
        );
        assert_eq!(walk(&set, Some("10.1.0.2")).first().unwrap(), "10.2.0.2");
        assert_eq!(walk(&set, Some("192.0.2.1")).first().unwrap(), "10.1.0.2");
    }

    #[test]
    fn section_7_the_highest_address_of_all_can_be_the_last() {
        let set = RangeSet::check(&[vec![config("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126")]]).unwrap().remove(0);
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(walk(&set, Some(last)), ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", last]);
    }

    #[test]
    fn section_7_explicit_bounds_and_gateway() {
        let range = RangeConfig {
            rangestart: Some(ip("10.1.0.10")),
            rangeend: Some(ip("10.1.0.12")),
            gateway: Some(ip("10.1.0.11")),
            ..config("10.1.0.0/24")
        };
        let set = RangeSet::check(&[vec![range]]).unwrap().remove(0);
        assert_eq!(walk(&set, None), ["10.1.0.10", "10.1.0.12"]);
        let widest =
            RangeConfig { rangestart: Some(ip("10.1.0.0")), rangeend: Some(ip("10.1.0.3")), ..config("10.1.0.0/30") };
        let set = RangeSet::check(&[vec![widest]]).unwrap().remove(0);
        assert_eq!(walk(&set, None), ["10.1.0.2"]);
    }

    #[test]
    fn a_nodes_subnet_is_given_with_host_bits() {
        let sets = RangeSet::of_subnets(&["10.244.1.1/24".parse().unwrap(), "fd44::1/64".parse().unwrap()]).unwrap();
        assert_eq!(sets[0].round_robin(None).next().unwrap().0, ip("10.244.1.2"));
        assert_eq!(sets[0].0[0].gateway, ip("10.244.1.1"));
        assert_eq!(sets[1].round_robin(None).next().unwrap().0, ip("fd44::2"));
    }

    #[test]
    fn section_7_nonsense_is_refused() {
        let outside = RangeConfig { rangestart: Some(ip("10.2.0.1")), ..config("10.1.0.0/24") };
        let backwards =
            RangeConfig { rangestart: Some(ip("10.1.0.9")), rangeend: Some(ip("10.1.0.3")), ..config("10.1.0.0/24") };
        let wrong_gateway = RangeConfig { gateway: Some(ip("fd00::1")), ..config("10.1.0.0/24") };
        let cases: [(&[Vec<RangeConfig>], &str); 9] = [
            (&[vec![config("10.1.0.1/24")]], "host bits"),
            (&[vec![config("10.1.0.0/31")]], "too small"),
            (&[vec![config("fd00::/127")]], "too small"),
            (&[vec![outside]], "RangeStart 10.2.0.1 not in network"),
            (&[vec![backwards]], "after RangeEnd"),
            (&[vec![wrong_gateway]], "family"),
            (&[vec![config("10.1.0.0/24"), config("fd00::/64")]], "mixed address families"),
            (&[vec![config("10.1.0.0/24"), config("10.1.0.0/25")]], "overlaps"),
            (&[vec![config("10.1.0.0/24")], vec![config("10.1.0.128/25")]], "overlaps"),
        ];
        for (sets, text) in cases {
            let error = RangeSet::check(sets).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
