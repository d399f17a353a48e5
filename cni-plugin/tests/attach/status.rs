//! STATUS tells what is missing, and what to do about it.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::kit::{Node, Outcome, PLUGIN, Pod};

fn status(node: &Node) -> Outcome {
    node.on_network("STATUS", &node.config("1.1.0"))
}

#[test]
fn s1_a_ready_node_answers_nothing_and_nothing_changes() {
    let node = Node::dual_stack();
    let outcome = status(&node);
    assert!(outcome.success && outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:?}");
    assert!(!node.store().exists());
    node.add(&Pod::new("p")).result();
    assert!(status(&node).success);
}

#[test]
fn s2_without_a_subnet_file_no_pod_can_be_added() {
    let node = Node::v4();
    let file = node.directory().join("subnet.env");
    fs::write(&file, "FLANNEL_SUBNET=nonsense\n").unwrap();
    let (code, message) = status(&node).error();
    assert!(code == 50 && message.contains("FLANNEL_SUBNET"), "{message}");
    fs::remove_file(&file).unwrap();
    let outcome = status(&node);
    let (code, message) = outcome.error();
    assert!(code == 50 && message.contains("subnet.env does not exist"), "{message}");
    assert!(outcome.stdout.contains("weft agent writes it"), "{outcome:?}");
}

#[test]
fn s2_a_full_pool_is_said_to_be_full() {
    let node = Node::new("FLANNEL_SUBNET=10.244.1.1/30\n");
    assert!(status(&node).success);
    let pod = Pod::new("only");
    node.add(&pod).result();
    let (code, message) = status(&node).error();
    assert!(code == 50 && message.contains("no IP addresses available"), "{message}");
    assert!(node.del(&pod).success);
    assert!(status(&node).success);
}

#[test]
fn s2_the_directory_of_addresses_must_be_writable() {
    let node = Node::v4();
    let directory = node.directory().join("networks");
    fs::write(&directory, "a file").unwrap();
    let (code, message) = status(&node).error();
    assert!(code == 50 && message.contains("networks is not a directory"), "{message}");
    fs::remove_file(&directory).unwrap();
    // Root may write anywhere but here.
    let config = node.config_with("1.1.0", json!({"dataDir": "/proc/sys/net"}));
    let outcome = node.on_network("STATUS", &config);
    assert_eq!(outcome.error().0, 50);
}

#[test]
fn s2_51_when_the_overlay_is_gone() {
    let node = Node::v4();
    let run = |words: &[&str]| {
        let status = node.netns.run(|| Command::new("ip").args(words).status().unwrap()).unwrap();
        assert!(status.success());
    };
    let config = node.config_with("1.1.0", json!({"overlayDevice": "flannel.1"}));
    let (code, message) = node.on_network("STATUS", &config).error();
    assert!(code == 51 && message.contains("flannel.1 of the overlay is gone"), "{message}");
    run(&["link", "add", "flannel.1", "type", "bridge"]);
    let (code, message) = node.on_network("STATUS", &config).error();
    assert!(code == 51 && message.contains("is down"), "{message}");
    run(&["link", "set", "flannel.1", "up"]);
    assert!(node.on_network("STATUS", &config).success);
}

#[test]
fn s2_an_invalid_configuration_is_50() {
    let node = Node::v4();
    for ipam in [json!({}), json!({"type": "host-local", "subnet": "10.1.0.1/24"})] {
        let outcome = node.on_network("STATUS", &node.config_with("1.1.0", json!({"ipam": ipam})));
        assert_eq!(outcome.error().0, 50, "{ipam}");
    }
}

/// Host ports that may be asked for and cannot be had: in a mount namespace without the programs.
#[test]
fn s2_host_ports_that_cannot_be_mapped() {
    let node = Node::v4();
    let config = node.directory().join("config.json");
    let members = json!({"backend": "iptables", "capabilities": {"portMappings": true}});
    fs::write(&config, node.config_with("1.1.0", members).to_string()).unwrap();
    let hidden = format!("mount -t tmpfs none /usr/sbin && exec {PLUGIN} <{}", config.display());
    let shown = format!("exec {PLUGIN} <{}", config.display());
    let status = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).env("CNI_COMMAND", "STATUS").env("CNI_PATH", "/x");
        node.netns.run(|| command.output().unwrap()).unwrap()
    };
    assert!(status(&shown).status.success(), "{:?}", status(&shown));
    let output = status(&hidden);
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 50, "{output:?}");
    assert_eq!(error["msg"], "host ports cannot be mapped: iptables-save is not installed");
}
