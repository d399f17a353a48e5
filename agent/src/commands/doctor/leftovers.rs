//! What other networks have, or left, on this node.

use weft_netlink::{Link, Netlink, NftQuery};
use weft_proxy::kube_proxy;

use super::{
    Context,
    finding::{Area, Finding},
};

const AREA: Area = Area::Leftovers;

const REMOVE: &str = "once nothing of it runs on this node: weft cleanup --legacy";

/// Interfaces by the start of their names, and whose they are.
const FOREIGN: [(&str, &str); 9] = [
    ("cali", "Calico"),
    ("vxlan.calico", "Calico"),
    ("cilium_", "Cilium"),
    ("weave", "Weave Net"),
    ("vethwe-", "Weave Net"),
    ("kube-bridge", "kube-router"),
    ("antrea-gw", "Antrea"),
    ("ovn-k8s-", "OVN-Kubernetes"),
    ("genev_sys", "an Open vSwitch network"),
];

/// flannel's bridge, and IPVS' interface.
const BRIDGE: &str = "cni0";
const IPVS: &str = "kube-ipvs0";

/// All of them.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Netlink::open().and_then(|netlink| netlink.links()) {
        Ok(links) => findings.extend(devices(&links, &context.own_devices(), context.overlay().is_some())),
        Err(error) => findings.push(unknown("devices", &error.to_string())),
    }
    match kube_proxy::find() {
        Ok(found) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            findings.extend(kube_proxy_rules(&found, context.serves()));
        }
        Err(error) => findings.push(unknown("kube-proxy", &error.to_string())),
    }
    // A kernel without nftables has none.
    let tables = NftQuery::open().and_then(|mut query| query.tables()).unwrap_or_default();
    findings.extend(flannel_tables(&tables));
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, "leftovers", "nothing of flannel, kube-proxy or other networks"));
    }
    findings
}

fn unknown(check: &'static str, error: &str) -> Finding {
    Finding::warning(AREA, check, format!("could not be looked for: {error}"), "run it as root on the node")
}

/// `ours`: VXLAN devices of the running agent, which made a network if `agent`.
fn devices(links: &[Link], ours: &[String], agent: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for link in links {
        let name = link.name.as_str();
        if name == BRIDGE {
            let ports = links.iter().filter(|port| port.controller == Some(link.index)).count();
            findings.push(bridge(ports));
        } else if name == IPVS {
            let seen = format!("{IPVS}: a kube-proxy in ipvs mode has every ClusterIP on this node");
            findings.push(Finding::problem(AREA, "kube-proxy", seen, REMOVE));
        } else if name.starts_with("flannel") && !ours.iter().any(|own| own == name) {
            findings.push(tunnel(name, agent));
        } else if let Some((_, network)) = FOREIGN.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            let advice = format!("if {network} is to stay run only --components=proxy; else remove it from this node");
            findings.push(Finding::warning(AREA, "other-network", format!("{name}: interface of {network}"), advice));
        }
    }
    findings
}

fn bridge(ports: usize) -> Finding {
    match ports {
        0 => Finding::warning(AREA, "flannel", format!("{BRIDGE}: flannel's bridge, without pods"), REMOVE),
        _ => {
            let seen = format!("{BRIDGE}: flannel's bridge with {ports} pods, which go on working beside Weft's");
            Finding::note(AREA, "flannel", seen)
                .advise("re-create them when it suits you; the bridge can go after that")
        }
    }
}

fn tunnel(name: &str, agent: bool) -> Finding {
    if agent {
        let seen = format!("{name}: a tunnel of flannel that the agent does not use");
        return Finding::warning(AREA, "flannel", seen, format!("ip link delete {name}"));
    }
    Finding::note(AREA, "flannel", format!("{name}: a tunnel is there; Weft takes it over with its addresses"))
}

/// `serving`: Weft serves Services here.
fn kube_proxy_rules(found: &[String], serving: bool) -> Option<Finding> {
    let list = found.join(", ");
    match (found.is_empty(), serving) {
        (true, _) => None,
        (false, true) => {
            let seen = format!("rules of a kube-proxy beside Weft's: {list}; they go stale and answer for Services");
            Some(Finding::warning(
                AREA,
                "kube-proxy",
                seen,
                "start the agent with --take-over-kube-proxy, or ".to_owned() + REMOVE,
            ))
        }
        (false, false) => {
            let note = Finding::note(AREA, "kube-proxy", format!("rules of a kube-proxy: {list}"));
            Some(note.advise("leave them until Weft serves; --take-over-kube-proxy then removes them without a gap"))
        }
    }
}

fn flannel_tables(tables: &[String]) -> Option<Finding> {
    let is_flannels = |table: &&String| table.split(' ').nth(1).is_some_and(|name| name.starts_with("flannel-ipv"));
    let found: Vec<&str> = tables.iter().filter(is_flannels).map(String::as_str).collect();
    let seen = format!("nftables tables of flannel: {}", found.join(", "));
    (!found.is_empty()).then(|| Finding::warning(AREA, "flannel", seen, REMOVE))
}

#[cfg(test)]
mod tests {
    use weft_netlink::{IfIndex, LinkKind};

    use super::{super::finding::Verdict, *};

    fn link(index: u32, name: &str, controller: Option<u32>) -> Link {
        Link {
            index: IfIndex::new(index).unwrap(),
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            running: true,
            loopback: false,
            controller: controller.and_then(IfIndex::new),
            alias: None,
            kind: LinkKind::Other(String::new()),
        }
    }

    #[test]
    fn interfaces_are_known_by_their_names() {
        let ours = ["flannel.1".to_owned()];
        for (name, agent, verdict) in [
            ("eth0", true, None),
            ("flannel.1", true, None),
            ("flannel.7", true, Some(Verdict::Warning)),
            ("flannel.7", false, Some(Verdict::Note)),
            ("cni0", true, Some(Verdict::Warning)),
            ("kube-ipvs0", true, Some(Verdict::Problem)),
            ("cali1234", true, Some(Verdict::Warning)),
            ("cilium_host", false, Some(Verdict::Warning)),
        ] {
            let found = devices(&[link(2, name, None)], &ours, agent);
            assert_eq!(found.first().map(|finding| finding.verdict), verdict, "{name}");
        }
        let attached = devices(&[link(2, "cni0", None), link(3, "veth1", Some(2))], &ours, true);
        assert_eq!(attached[0].verdict, Verdict::Note);
    }

    #[test]
    fn rules_of_a_kube_proxy_are_fine_until_weft_serves() {
        assert_eq!(kube_proxy_rules(&[], true), None);
        let found = ["nftables table ip kube-proxy".to_owned()];
        assert_eq!(kube_proxy_rules(&found, false).unwrap().verdict, Verdict::Note);
        assert_eq!(kube_proxy_rules(&found, true).unwrap().verdict, Verdict::Warning);
    }

    #[test]
    fn flannels_tables_are_told_from_ours() {
        let tables = ["inet weft-overlay", "ip flannel-ipv4", "ip nat"].map(str::to_owned);
        assert!(flannel_tables(&tables).unwrap().seen.ends_with(": ip flannel-ipv4"));
        assert_eq!(flannel_tables(&tables[..1]), None);
    }
}
