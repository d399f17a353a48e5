//! What flannel leaves: devices, chains, tables, files (flannel.md sections 7, 8 and 10).

use std::{fs, io, path::Path};

use anyhow::Context;
use weft_netlink::{IfIndex, Link, LinkKind, Netlink, NftQuery};

use super::Leftover;
use crate::{cli::PathArgs, commands::programs};

const BRIDGE: &str = "cni0";

/// Where they are jumped to from, by table.
const CHAINS: [(&str, &str, &str); 2] =
    [("filter", "FORWARD", "FLANNEL-FWD"), ("nat", "POSTROUTING", "FLANNEL-POSTRTG")];

/// Both families in both variants.
const PROGRAMS: [&str; 4] = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"];

/// Pods that are attached to flannel's bridge, as a reason to leave it.
pub(super) fn attached(links: &[Link]) -> Option<String> {
    let bridge = links.iter().find(|link| link.name == BRIDGE)?;
    let ports = links.iter().filter(|link| link.controller == Some(bridge.index)).count();
    (ports > 0).then(|| format!("{ports} pods are attached to {BRIDGE}"))
}

/// What is there. `taken_over`: the tunnel, `subnet.env` and the chains are Weft's now.
pub(super) fn find(links: &[Link], paths: &PathArgs, taken_over: bool) -> Vec<Leftover> {
    let mut found: Vec<Leftover> = devices(links, taken_over);
    found.extend(tables());
    found.extend(conflists(&paths.cni_conf_dir));
    if !taken_over {
        found.extend(PROGRAMS.iter().flat_map(|program| chains(program)));
        found.extend(paths.subnet_file.exists().then(|| file(&paths.subnet_file)));
    }
    found
}

fn devices(links: &[Link], taken_over: bool) -> Vec<Leftover> {
    let is_tunnel = |link: &&Link| {
        !taken_over && link.name.starts_with("flannel") && matches!(link.kind, LinkKind::Vxlan(_) | LinkKind::Other(_))
    };
    let is_bridge = |link: &&Link| link.name == BRIDGE && link.kind == LinkKind::Bridge;
    links.iter().filter(|link| is_bridge(link) || is_tunnel(link)).map(|link| device(&link.name, link.index)).collect()
}

/// A device that is deleted.
pub(super) fn device(name: &str, index: IfIndex) -> Leftover {
    Leftover::new(format!("device {name}"), move || Ok(Netlink::open()?.delete_link(index)?))
}

fn tables() -> Vec<Leftover> {
    // A kernel without nftables has none.
    let tables = NftQuery::open().and_then(|mut query| query.tables()).unwrap_or_default();
    let of_flannel = tables.into_iter().filter(|table| table.contains(" flannel-ipv"));
    of_flannel
        .map(|table| {
            // "add" first: deleting what is gone by now is an error.
            let script = format!("add table {table}\ndelete table {table}\n");
            Leftover::new(format!("nftables table {table}"), move || {
                programs::feed("nft", &["-f", "-"], &script).context("nft")
            })
        })
        .collect()
}

/// The chains in one program's rules, each with the jumps to it.
fn chains(program: &'static str) -> Vec<Leftover> {
    let Some(rules) = programs::output(&format!("{program}-save"), &[]) else { return Vec::new() };
    let scripts = CHAINS.iter().filter_map(|(table, from, chain)| Some((*chain, removal(&rules, table, from, chain)?)));
    scripts
        .map(|(chain, script)| {
            Leftover::new(format!("chain {chain} ({program})"), move || {
                programs::feed(&format!("{program}-restore"), &["--noflush"], &script).context(program)
            })
        })
        .collect()
}

/// What takes a chain and its jumps out of the rules that `iptables-save` printed; `None`: it is not there.
fn removal(rules: &str, table: &str, from: &str, chain: &str) -> Option<String> {
    let lines = rules.lines().skip_while(|line| line.strip_prefix('*') != Some(table)).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| *line != "COMMIT").collect();
    lines.iter().find(|line| line.strip_prefix(':').and_then(|line| line.split(' ').next()) == Some(chain))?;
    let jump = format!(" -j {chain}");
    let jumps = lines.iter().filter(|line| line.starts_with(&format!("-A {from} ")) && line.ends_with(&jump));
    let jumps: String = jumps.map(|line| format!("-D{}\n", line.trim_start_matches("-A"))).collect();
    Some(format!("*{table}\n{jumps}-F {chain}\n-X {chain}\nCOMMIT\n"))
}

/// Configurations of the runtime that call flannel's plugin, by whatever name.
fn conflists(directory: &Path) -> Vec<Leftover> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let calls_flannel = |path: &std::path::PathBuf| fs::read(path).is_ok_and(|text| calls_flannel(&text));
    let mut paths: Vec<_> = entries.filter(|path| path.is_file()).filter(calls_flannel).collect();
    paths.sort();
    paths.iter().map(|path| file(path)).collect()
}

fn calls_flannel(text: &[u8]) -> bool {
    let Ok(list) = serde_json::from_slice::<serde_json::Value>(text) else { return false };
    let plugins = list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    plugins.iter().chain([&list]).any(|plugin| plugin["type"] == "flannel")
}

fn file(path: &Path) -> Leftover {
    let gone = path.to_owned();
    Leftover::new(format!("file {}", path.display()), move || match fs::remove_file(&gone) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"*filter
:FORWARD ACCEPT [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FORWARD -j OTHERS
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
COMMIT
"#;

    #[test]
    fn a_chain_goes_with_the_jumps_to_it() {
        let expected = r#"*filter
-D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-F FLANNEL-FWD
-X FLANNEL-FWD
COMMIT
"#;
        assert_eq!(removal(RULES, "filter", "FORWARD", "FLANNEL-FWD").as_deref(), Some(expected));
        assert_eq!(removal(RULES, "nat", "POSTROUTING", "FLANNEL-POSTRTG"), None);
        assert_eq!(removal("", "filter", "FORWARD", "FLANNEL-FWD"), None);
    }

    #[test]
    fn flannels_lists_are_known_by_the_plugin_they_call() {
        assert!(calls_flannel(br#"{"name":"cbr0","plugins":[{"type":"flannel"},{"type":"portmap"}]}"#));
        assert!(calls_flannel(br#"{"name":"cbr0","type":"flannel"}"#));
        assert!(!calls_flannel(br#"{"name":"weft","plugins":[{"type":"weft-cni"}]}"#));
        assert!(!calls_flannel(b"flannel"));
    }
}
