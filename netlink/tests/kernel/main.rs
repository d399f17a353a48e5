//! The crate against the kernel, in network namespaces made for each test, with iproute2 as the witness.
//!
//! Needs root. Nothing outside the namespaces is touched.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod addresses;
mod conntrack;
mod ethtool;
mod links;
mod monitor;
mod namespaces;
mod neighbours;
mod nft_elements;
mod nftables;
mod qdiscs;
mod routes;
mod sock_diag;
mod xtables;

use std::process::Command;

use serde_json::Value;
use weft_netlink::{IfIndex, Netlink, Netns};

/// Runs a test body in a network namespace of its own, with loopback up.
fn in_new_netns(test: impl FnOnce(&Netlink) + Send) {
    Netns::create()
        .unwrap()
        .run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.set_up(index(&netlink, "lo")).unwrap();
            test(&netlink);
        })
        .unwrap();
}

fn index(netlink: &Netlink, name: &str) -> IfIndex {
    netlink.link_by_name(name).unwrap().unwrap_or_else(|| panic!("no link {name}")).index
}

/// An interface with a carrier and an address: a veth, as not every kernel has `dummy`.
fn ethernet(netlink: &Netlink, name: &str, address: &str) -> IfIndex {
    let peer = format!("{name}-peer");
    ip(&["link", "add", name, "type", "veth", "peer", "name", &peer]);
    ip(&["link", "set", &peer, "up"]);
    ip(&["address", "add", address, "dev", name]);
    ip(&["link", "set", name, "up"]);
    index(netlink, name)
}

/// `ip -j ARGS` in the namespace of the calling thread.
fn ip(args: &[&str]) -> Value {
    json_of("ip", args)
}

/// `bridge -j ARGS` in the namespace of the calling thread.
fn bridge(args: &[&str]) -> Value {
    json_of("bridge", args)
}

fn json_of(program: &str, args: &[&str]) -> Value {
    let output = Command::new(program).args(["-j", "-d"]).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.trim_ascii().is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_slice(&output.stdout).unwrap()
}
