//! Bandwidth: how much an attachment may send and receive (section 9), in place of the reference plugin `bandwidth`.
//!
//! A token bucket at each end of the veth: each end limits what it sends, the host's towards the pod, the pod's from it.
//! Nothing else is made, so nothing else can be left behind: DEL and GC have nothing to do. The reference plugin leads what
//! the pod sends through an interface of its own on the host (ifb), which costs a second removal of 16-20 ms and drops what a
//! full bucket of the pod's own holds back in the sender's socket. The price: a container with CAP_NET_ADMIN can lift the
//! limit on what it sends. Where that matters, chain the reference plugin and leave our capability out.

use serde::Deserialize;
use serde_json::Value;
use weft_netlink::{Link, Netlink, TokenBucket};

use crate::{
    attachment::{AttachmentId, ValidAttachments},
    config::Config,
    error::{Code, Error},
    extras::{Attached, Extra},
    result::{AddResult, Reported},
};

/// The extra.
pub(crate) struct Bandwidth;

/// containerd passes 2^32 - 1 bits and Kubernetes' own runtimes passed 2^31 - 1 to say "no limit of the burst". With that many
/// nothing would be limited until hundreds of megabytes have passed.
const NO_OPINION: u64 = (1 << 31) - 1;

/// How long what is waiting may wait, and what a burst of our choice lasts, in milliseconds.
const LATENCY_MS: u64 = 25;

/// A burst of our choice is no smaller, in bytes: one packet of as many segments as the kernel puts together.
const LEAST_BURST: u64 = 64 * 1024;

/// Of a packet on a veth beside its MTU: Ethernet header and VLAN tag, in bytes.
const LINK_HEADER: u32 = 18;

/// What the configuration asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BandwidthSettings {
    /// Members of the configuration itself; they win.
    pub(crate) fixed: Rates,
    /// `runtimeConfig.bandwidth`, not looked into: DEL must work with any.
    pub(crate) requested: Option<Value>,
}

/// Rates in bits a second, bursts in bits; 0 both: unlimited. Keys are in lower case by then.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub(crate) struct Rates {
    ingressrate: u64,
    ingressburst: u64,
    egressrate: u64,
    egressburst: u64,
}

/// What each end may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    to_pod: Option<TokenBucket>,
    from_pod: Option<TokenBucket>,
}

impl BandwidthSettings {
    /// Fails if the settings make no sense; `mtu` in bytes.
    pub(crate) fn check(&self, mtu: u32) -> Result<(), Error> {
        self.limits(mtu).map(drop)
    }

    fn limits(&self, mtu: u32) -> Result<Limits, Error> {
        let rates = match &self.requested {
            Some(requested) if self.fixed == Rates::default() => serde_json::from_value(requested.clone())
                .map_err(|error| Error::new(Code::Decode, format!("cannot read runtimeConfig.bandwidth: {error}")))?,
            _ => self.fixed.clone(),
        };
        Ok(Limits {
            to_pod: bucket("ingress", rates.ingressrate, rates.ingressburst, mtu)?,
            from_pod: bucket("egress", rates.egressrate, rates.egressburst, mtu)?,
        })
    }
}

fn bucket(direction: &str, rate: u64, burst: u64, mtu: u32) -> Result<Option<TokenBucket>, Error> {
    let invalid = |why: &str| Err(Error::new(Code::InvalidConfig, format!("invalid bandwidth: {direction}{why}")));
    match (rate, burst) {
        (0, 0) => return Ok(None),
        (0, _) => return invalid("Burst without a rate"),
        (_, 0) => return invalid("Rate without a burst"),
        (..8, _) => return invalid("Rate is less than a byte a second"),
        _ => {}
    }
    let rate = rate / 8;
    let in_flight = rate.saturating_mul(LATENCY_MS) / 1000;
    let burst = if burst >= NO_OPINION { in_flight.max(LEAST_BURST) } else { burst / 8 };
    let limited = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    // A packet that is larger than the bucket would never pass.
    let burst = limited(burst).max(mtu.saturating_add(LINK_HEADER));
    Ok(Some(TokenBucket { rate, burst, limit: limited(in_flight.saturating_add(u64::from(burst))) }))
}

/// An interface, the namespace it is in, and what it may send.
type End<'a> = (&'a Netlink, Link, Option<TokenBucket>);

/// Both ends, with what each may send.
fn ends<'a>(attached: &'a Attached<'_>, limits: Limits) -> Result<Vec<End<'a>>, Error> {
    if limits == Limits::default() {
        return Ok(Vec::new());
    }
    let (inside, name) = (&attached.sandbox.netlink, attached.id.owner.ifname);
    let container = inside.link_by_name(name)?;
    let container = container.ok_or_else(|| Error::new(Code::NotAsMade, format!("interface {name} is gone")))?;
    Ok(vec![(attached.host, attached.host_end.clone(), limits.to_pod), (inside, container, limits.from_pod)])
}

impl Extra for Bandwidth {
    fn add(&self, attached: &Attached<'_>, _: &mut AddResult) -> Result<(), Error> {
        let limits = attached.config.bandwidth.limits(attached.host_end.mtu)?;
        for (netlink, link, bucket) in ends(attached, limits)? {
            if let Some(bucket) = bucket {
                netlink.replace_token_bucket(link.index, &bucket)?;
            }
        }
        Ok(())
    }

    /// The buckets go with the interface.
    fn del(&self, _: AttachmentId<'_>, _: &Config) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, attached: &Attached<'_>, _: &Reported) -> Result<(), Error> {
        let limits = attached.config.bandwidth.limits(attached.host_end.mtu)?;
        for (netlink, link, bucket) in ends(attached, limits)? {
            let Some(TokenBucket { rate, limit, .. }) = bucket else { continue };
            let found = netlink.token_bucket(link.index)?;
            if found != Some((rate, limit)) {
                let has = found.map_or_else(|| "no limit".to_owned(), |(rate, _)| format!("{rate}"));
                let message = format!("interface {} sends at {has} instead of {rate} bytes/s", link.name);
                return Err(Error::new(Code::NotAsMade, message));
            }
        }
        Ok(())
    }

    /// As DEL.
    fn gc(&self, _: &Config, _: &ValidAttachments) -> Result<(), Error> {
        Ok(())
    }

    /// Whether the kernel has token buckets shows when one is made.
    fn status(&self, _: &Config) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits(fixed: Value, requested: Value) -> Result<Limits, Error> {
        let read = |value| crate::config::normalise(value);
        let fixed = serde_json::from_value(read(fixed)).unwrap();
        BandwidthSettings { fixed, requested: Some(read(requested)) }.limits(1450)
    }

    #[test]
    fn section_9_rates_and_bursts_are_bits() {
        let requested = json!({"ingressRate": 80_000_000, "ingressBurst": 8_000_000});
        let limits = limits(json!({}), requested).unwrap();
        let expected = TokenBucket { rate: 10_000_000, burst: 1_000_000, limit: 1_250_000 };
        assert_eq!(limits, Limits { to_pod: Some(expected), from_pod: None });
    }

    /// What containerd sends for the annotations of Kubernetes.
    #[test]
    fn section_9_a_burst_without_opinion_is_ours_to_choose() {
        let no_opinion = 4_294_967_295_u64;
        let burst_at = |rate: u64| {
            let requested = json!({"EgressRate": rate, "EgressBurst": no_opinion, "IngressRate": 0, "IngressBurst": 0});
            limits(json!({}), requested).unwrap().from_pod.unwrap().burst
        };
        assert_eq!(burst_at(10_000_000), 64 * 1024);
        assert_eq!(burst_at(1_000_000_000), 3_125_000);
    }

    #[test]
    fn section_9_the_smallest_burst_lets_a_packet_pass() {
        let limits = limits(json!({}), json!({"egressRate": 8000, "egressBurst": 8})).unwrap();
        assert_eq!(limits.from_pod.unwrap().burst, 1468);
    }

    #[test]
    fn section_9_the_configuration_wins_over_the_runtime() {
        let fixed = json!({"egressRate": 8000, "egressBurst": 80_000});
        let found = limits(fixed, json!({"ingressRate": 1, "ingressBurst": 1})).unwrap();
        assert!(found.to_pod.is_none() && found.from_pod.unwrap().rate == 1000);
        assert_eq!(limits(json!({}), json!({})).unwrap(), Limits::default());
    }

    #[test]
    fn section_9_what_makes_no_sense_is_refused() {
        for requested in
            [json!({"ingressRate": 8000}), json!({"egressBurst": 8000}), json!({"egressRate": 7, "egressBurst": 8000})]
        {
            assert_eq!(limits(json!({}), requested.clone()).unwrap_err().code, Code::InvalidConfig, "{requested}");
        }
        for requested in [json!({"ingressRate": "fast"}), json!({"ingressRate": -1}), json!(5)] {
            assert_eq!(limits(json!({}), requested.clone()).unwrap_err().code, Code::Decode, "{requested}");
        }
    }
}
