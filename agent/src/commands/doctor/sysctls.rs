//! Parameters of the kernel that decide whether packets go on.

use std::fs;

use weft_netlink::sysctl;

use super::{
    Context,
    finding::{Area, Finding},
};

const AREA: Area = Area::Sysctls;

/// Shares of conntrack's table, in percent: where it is time to think, and where packets are about to be dropped.
const FILLING: u64 = 75;
const FULL: u64 = 90;

/// All of them.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    let overlay = context.overlay();
    let mut findings = vec![ip_forward(sysctl::get("net/ipv4/ip_forward").ok().as_deref(), overlay.is_some())];
    if overlay.is_some_and(|overlay| overlay.ipv6.is_some()) {
        findings.push(forwarding_v6(sysctl::get("net/ipv6/conf/all/forwarding").ok().as_deref()));
    }
    let all = rp_filter("all");
    let values = interfaces().into_iter().filter(|name| matters(name)).map(|name| (rp_filter(&name).max(all), name));
    findings.push(reverse_path(&values.collect::<Vec<_>>()));
    let number = |name: &str| sysctl::get(&format!("net/netfilter/{name}")).ok()?.parse().ok();
    findings.extend(fill(number("nf_conntrack_count"), number("nf_conntrack_max")));
    findings
}

fn ip_forward(value: Option<&str>, agent: bool) -> Finding {
    let (check, set) = ("ip-forward", "sysctl -w net.ipv4.ip_forward=1");
    match (value, agent) {
        (Some("1"), _) => Finding::ok(AREA, check, "net.ipv4.ip_forward = 1"),
        // It watches it, so that this one cannot be written, or something else sets it back all the time.
        (_, true) => Finding::problem(
            AREA,
            check,
            "net.ipv4.ip_forward is not 1 although the agent sets it: no packet leaves or enters a pod",
            format!("{set}; find what sets it back (/etc/sysctl.d, a firewall), or whether /proc/sys is read-only"),
        ),
        (_, false) => Finding::warning(
            AREA,
            check,
            "net.ipv4.ip_forward is not 1: no packet leaves or enters a pod",
            format!("Weft's agent sets it when it makes the pod network; otherwise {set}"),
        ),
    }
}

fn forwarding_v6(value: Option<&str>) -> Finding {
    match value {
        Some("1") => Finding::ok(AREA, "ipv6-forwarding", "net.ipv6.conf.all.forwarding = 1"),
        _ => Finding::problem(
            AREA,
            "ipv6-forwarding",
            "net.ipv6.conf.all.forwarding is not 1: no IPv6 packet leaves or enters a pod",
            "sysctl -w net.ipv6.conf.all.forwarding=1, and find what sets it back",
        ),
    }
}

/// `values`: what is in force on each interface, the larger of its own and that of `all` (ip-sysctl.rst).
fn reverse_path(values: &[(u8, String)]) -> Finding {
    let strict: Vec<_> = values.iter().filter(|(value, _)| *value == 1).map(|(_, name)| name.as_str()).collect();
    if strict.is_empty() {
        return Finding::ok(AREA, "rp-filter", "loose or off where packets of pods come in");
    }
    Finding::warning(
        AREA,
        "rp-filter",
        format!("strict on {}: packets that come by another way than answers go are dropped", strict.join(", ")),
        format!("sysctl -w net.ipv4.conf.{}.rp_filter=2 (and of the others)", strict[0]),
    )
}

fn rp_filter(interface: &str) -> u8 {
    let value = sysctl::get(&format!("net/ipv4/conf/{interface}/rp_filter"));
    value.ok().and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Tunnels of flannel's names: a peer may tunnel to us what we send to it directly. Other interfaces are the administrator's.
fn matters(interface: &str) -> bool {
    interface.starts_with("flannel")
}

fn interfaces() -> Vec<String> {
    let directory = fs::read_dir("/proc/sys/net/ipv4/conf");
    let names = directory.into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

fn fill(used: Option<u64>, max: Option<u64>) -> Option<Finding> {
    let (used, max) = (used?, max.filter(|max| *max > 0)?);
    let seen = format!("{used} of {max} connections are tracked");
    let advice = "raise conntrack.maxPerCore (or .min) of the configuration; look at who makes so many: conntrack -L";
    Some(match used * 100 / max {
        FULL.. => Finding::problem(AREA, "conntrack-max", seen + ": new ones are about to be dropped", advice),
        FILLING.. => Finding::warning(AREA, "conntrack-max", seen, advice),
        _ => Finding::ok(AREA, "conntrack-max", seen),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn forwarding_must_be_on() {
        assert_eq!(ip_forward(Some("1"), false).verdict, Verdict::Ok);
        assert_eq!(ip_forward(Some("0"), false).verdict, Verdict::Warning);
        assert_eq!(ip_forward(Some("0"), true).verdict, Verdict::Problem);
        assert_eq!(ip_forward(None, true).verdict, Verdict::Problem);
        assert_eq!(forwarding_v6(Some("0")).verdict, Verdict::Problem);
    }

    #[test]
    fn only_strict_reverse_path_filters_are_told() {
        let on = |value| vec![(value, "flannel.1".to_owned())];
        assert_eq!(reverse_path(&on(0)).verdict, Verdict::Ok);
        assert_eq!(reverse_path(&on(2)).verdict, Verdict::Ok);
        let strict = reverse_path(&on(1));
        assert_eq!(strict.verdict, Verdict::Warning);
        assert!(strict.advice.unwrap().contains("net.ipv4.conf.flannel.1.rp_filter=2"));
    }

    #[test]
    fn a_filling_conntrack_table_is_told_in_time() {
        for (used, max, verdict) in [(10, 100, Verdict::Ok), (75, 100, Verdict::Warning), (90, 100, Verdict::Problem)] {
            assert_eq!(fill(Some(used), Some(max)).unwrap().verdict, verdict, "{used}");
        }
        assert_eq!(fill(None, Some(100)), None);
        assert_eq!(fill(Some(1), Some(0)), None);
    }
}
