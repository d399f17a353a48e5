//! A node on which a kube-proxy ran: its rules are as the real one makes them (kube-proxy.md 12).

use std::fmt::Write;

use anyhow::{Result, ensure};
use weft_tests::{Cluster, Load, Request, eventually, secs};

use crate::{
    fixture::web_vip,
    single::{Single, answered},
};

/// Where a kube-proxy put its rules.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    Iptables(&'static str),
    Nftables,
}

const NFT: Left = Left::Iptables("nft");
const LEGACY: Left = Left::Iptables("legacy");

#[test]
fn ebpf_takes_over_from_iptables() -> Result<()> {
    takes_over("ebpf", &[NFT, LEGACY])
}

#[test]
fn ebpf_takes_over_from_nftables() -> Result<()> {
    takes_over("ebpf", &[Left::Nftables])
}

#[test]
fn nftables_takes_over_from_nftables_and_iptables() -> Result<()> {
    takes_over("nftables", &[Left::Nftables, LEGACY])
}

#[test]
fn iptables_replaces_the_same_chains() -> Result<()> {
    takes_over("iptables", &[NFT])
}

#[test]
fn iptables_replaces_the_same_chains_of_the_legacy_variant() -> Result<()> {
    takes_over("iptables", &[LEGACY])
}

#[test]
fn iptables_takes_over_from_nftables() -> Result<()> {
    takes_over("iptables", &[Left::Nftables])
}

/// A node whose Services a kube-proxy serves; the agent has only made the pod network.
fn start(mode: &str, left: &[Left]) -> Result<Single> {
    let builder = Cluster::builder().agent_flag("--proxy-mode", mode);
    let single = Single::with(builder, "", 2, &[("--components", "overlay,cni")])?;
    single.apply_web("", "")?;
    for left in left {
        single.leave(*left)?;
    }
    single.node().agent().stop()?;
    answered(&single.client, web_vip())?;
    Ok(single)
}

fn takes_over(mode: &str, left: &[Left]) -> Result<()> {
    let single = start(mode, left)?;
    let load = single.client.load(&Load::new(web_vip(), 500))?;
    let agent = single.node().agent();
    agent.start_with(&[("--take-over-kube-proxy", "true")])?;
    agent.wait_ready(secs(20))?;
    eventually(secs(20), || {
        let rules = single.rules()?;
        // iptables mode of ours has the same names, but not this one.
        let names = ["KUBE-PROXY-CANARY", "kube-proxy", "KUBE-SEP-AAAAAAAAAAAAAAAA", "KUBE-SERVICES", "KUBE-MARK-MASQ"];
        let names = if mode == "iptables" { &names[..3] } else { &names[..] };
        // Our own has a canary in nat and filter.
        let rules = if mode == "iptables" { single.without_ours(&rules) } else { rules };
        for name in names {
            ensure!(!rules.contains(name), "{name} is still there:\n{rules}");
        }
        Ok(())
    })?;
    let rules = single.rules()?;
    if left.iter().any(|left| matches!(left, Left::Iptables(_))) {
        for kubelets in ["KUBE-KUBELET-CANARY", "KUBE-MARK-DROP", "KUBE-FIREWALL"] {
            ensure!(rules.contains(kubelets), "kubelet's {kubelets} is gone:\n{rules}");
        }
    }
    let status = agent.status()?.proxy;
    ensure!(status.as_ref().is_some_and(|proxy| proxy.synced && proxy.kube_proxy.is_empty()), "{status:?}");
    load.finish()?.all_good()?;
    answered(&single.client, web_vip())?;
    single.shutdown()
}

#[test]
fn without_being_told_the_rules_stay_and_are_reported() -> Result<()> {
    let single = start("nftables", &[NFT, Left::Nftables])?;
    let before = single.rules()?;
    let agent = single.node().agent();
    agent.start()?;
    agent.wait_ready(secs(20))?;
    eventually(secs(20), || {
        let left = agent.status()?.proxy.map(|proxy| proxy.kube_proxy).unwrap_or_default();
        ensure!(left == ["chains KUBE-* in iptables (nft)", "nftables table ip kube-proxy"], "{left:?}");
        Ok(())
    })?;
    let after = single.rules()?;
    ensure!(after == before, "{after}\ninstead of\n{before}");
    answered(&single.client, web_vip())?;
    single.shutdown()
}

#[test]
fn iptables_mode_keeps_away_from_a_kube_proxy_that_is_to_stay() -> Result<()> {
    let single = start("iptables", &[NFT])?;
    let before = single.rules()?;
    let agent = single.node().agent();
    agent.start()?;
    eventually(secs(20), || {
        let proxy = agent.status()?.proxy;
        let error = proxy.and_then(|proxy| proxy.last_error).unwrap_or_default();
        ensure!(error.contains("--take-over-kube-proxy"), "{error:?}");
        Ok(())
    })?;
    ensure!(single.rules()? == before, "{}", single.rules()?);
    answered(&single.client, web_vip())?;
    single.shutdown()
}

/// The way back (docs/migrate.md): Weft stops, kube-proxy serves again, and only then Weft's part is taken out.
#[test]
fn a_node_goes_back_to_kube_proxy_without_a_gap() -> Result<()> {
    let single = Single::start(Cluster::builder(), 2)?;
    single.apply_web("", "")?;
    answered(&single.client, web_vip())?;
    let load = single.client.load(&Load::new(web_vip(), 500))?;
    let agent = single.node().agent();
    agent.stop()?;
    single.leave(NFT)?;
    let cleanup = agent.command("cleanup").args(agent.arguments_with(&[("--components", "proxy")])).output()?;
    ensure!(cleanup.status.success(), "{}", String::from_utf8_lossy(&cleanup.stderr));
    // A pod of the Service is reached by kube-proxy's rules alone.
    let answers = single.client.request(&Request::tcp(web_vip()).count(50))?.all_good()?;
    ensure!(answers.by_name.len() == 2, "{answers:?}");
    load.finish()?.all_good()?;
    ensure!(!single.node().run("nft", &["list", "tables"])?.contains("weft-proxy"), "Weft's table is still there");
    single.shutdown()
}

impl Single {
    /// Lets a kube-proxy have served `web`.
    fn leave(&self, left: Left) -> Result<()> {
        let endpoints: Vec<String> =
            self.web.iter().map(|pod| Ok(pod.socket_v4(0)?.ip().to_string())).collect::<Result<_>>()?;
        let Left::Iptables(variant) = left else {
            let path = self.node().directory().join("kube-proxy.nft");
            std::fs::write(&path, nftables(&endpoints))?;
            self.node().run("nft", &["-f", &path.display().to_string()])?;
            return Ok(());
        };
        let path = self.node().directory().join("kube-proxy.rules");
        std::fs::write(&path, iptables(&endpoints))?;
        let restore = format!("iptables-{variant}-restore --noflush {}", path.display());
        self.node().run("sh", &["-c", &restore])?;
        Ok(())
    }

    /// What of Services is in the kernel, whoever put it there; without counters.
    fn rules(&self) -> Result<String> {
        let save = "for save in iptables-nft-save iptables-legacy-save; do echo \"# $save\"; $save | grep KUBE; done; \
                    nft list ruleset | grep -n 'table ip6\\? kube-proxy' | cut -d: -f2; true";
        let text = self.node().run("sh", &["-c", save])?;
        let lines = text.lines().map(|line| line.split_once(" [").map_or(line, |(chain, _)| chain));
        Ok(lines.fold(String::new(), |text, line| text + line + "\n"))
    }

    /// Without the chain that our iptables mode has as well.
    fn without_ours(&self, rules: &str) -> String {
        let mut text = String::new();
        let mut of_ours = 0;
        for line in rules.lines() {
            // Ours are two, in nat and filter of the variant in use; a kube-proxy has one in mangle too.
            of_ours += usize::from(line == ":KUBE-PROXY-CANARY -");
            if line != ":KUBE-PROXY-CANARY -" || of_ours > 2 {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

/// What kube-proxy's iptables mode writes for `web`, beside what kubelet has.
fn iptables(endpoints: &[String]) -> String {
    let mut chains = String::new();
    let mut rules = String::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let name = ["KUBE-SEP-AAAAAAAAAAAAAAAA", "KUBE-SEP-BBBBBBBBBBBBBBBB"][index];
        let random =
            if index + 1 < endpoints.len() { "-m statistic --mode random --probability 0.50000000000 " } else { "" };
        let _ = writeln!(chains, ":{name} - [0:0]");
        let _ = write!(
            rules,
            "-A KUBE-SVC-LOLE4ISW44XBNF3G -m comment --comment \"default/web:http -> {endpoint}:8080\" {random}-j {name}
-A {name} -s {endpoint}/32 -m comment --comment \"default/web:http\" -j KUBE-MARK-MASQ
-A {name} -p tcp -m comment --comment \"default/web:http\" -m tcp -j DNAT --to-destination {endpoint}:8080
"
        );
    }
    format!(
        "*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-LOLE4ISW44XBNF3G - [0:0]
{chains}-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment \"default/web:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-LOLE4ISW44XBNF3G
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
{rules}COMMIT
"
    )
}

/// What kube-proxy's nftables mode writes for `web`.
fn nftables(endpoints: &[String]) -> String {
    let map: Vec<_> = endpoints.iter().enumerate().map(|(i, at)| format!("{i} : {at} . 8080")).collect();
    format!(
        "table ip kube-proxy {{
  comment \"rules for kube-proxy\"
  set cluster-ips {{ type ipv4_addr; elements = {{ 10.96.0.10 }} }}
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ 10.96.0.10 . tcp . 80 : goto service-AAAAAAAA-default/web/tcp/http }}
  }}
  chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
  chain filter-forward {{ type filter hook forward priority 0; ct state new jump cluster-ips-check; }}
  chain filter-output {{ type filter hook output priority 0; ct state new jump cluster-ips-check; }}
  chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}
  chain cluster-ips-check {{ ip daddr @cluster-ips reject; }}
  chain service-AAAAAAAA-default/web/tcp/http {{
    meta l4proto tcp dnat to numgen random mod {} map {{ {} }}
  }}
}}
",
        endpoints.len(),
        map.join(", ")
    )
}
