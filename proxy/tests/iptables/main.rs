//! The iptables data plane in a real kernel, in both variants: a client outside, a node, pods, and real connections.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod affinity;
mod forward;
#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
#[path = "../support/killed.rs"]
mod killed;
#[path = "../support/node.rs"]
#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
mod node;
mod rules;
#[path = "../support/mod.rs"]
#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
mod support;
mod takeover;
mod traffic;

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use node::Node;
use weft_proxy::{
    iptables::{Iptables, Variant},
    plan::{LocalTraffic, PacketSettings},
};

const BOTH: [Variant; 2] = [Variant::Nft, Variant::Legacy];

fn settings() -> PacketSettings {
    let (v4, v6) = (Some("10.244.0.0/16".parse().unwrap()), Some("fd44::/64".parse().unwrap()));
    PacketSettings { local_traffic: LocalTraffic::Cidrs { v4, v6 }, ..PacketSettings::default() }
}

fn plane(variant: Variant) -> Iptables {
    Iptables::with_variant(settings(), variant).unwrap()
}

fn node_with(variant: Variant) -> Node<Iptables> {
    Node::new(plane(variant))
}

fn suffix(variant: Variant) -> &'static str {
    match variant {
        Variant::Nft => "nft",
        Variant::Legacy => "legacy",
    }
}

impl Node<Iptables> {
    /// All rules of both families, without counters and comments of the program.
    fn rules(&self, variant: Variant) -> String {
        let save = |base: &str| self.run(&format!("{base}-{}-save", suffix(variant)), "");
        let text = save("iptables") + &save("ip6tables");
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| match line.split_once(" [") {
            Some((chain, _)) => chain,
            None => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Runs a program on the node and returns what it prints.
    fn run(&self, program: &str, arguments: &str) -> String {
        let command = || Command::new(program).args(arguments.split_whitespace()).output().unwrap();
        let output = self.net.node.run(command).unwrap();
        assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn iptables(&self, variant: Variant, arguments: &str) -> String {
        self.run(&format!("iptables-{}", suffix(variant)), arguments)
    }

    /// The plane looks at large tables less often, so this may take a moment.
    fn notices_within_a_second(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.is_intact() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }
}
