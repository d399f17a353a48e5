//! What goes in and what comes out.

use serde_json::json;
use weft_netlink::Netns;

use crate::kit::{Node, Pod};

#[test]
fn r1_5_without_a_command_it_introduces_itself_on_stderr() {
    let outcome = Node::v4().exec(&[], b"");
    assert!(outcome.success && outcome.stdout.is_empty());
    assert!(outcome.stderr.contains("CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0"), "{}", outcome.stderr);
}

#[test]
fn r2_3_version_echoes_the_requests_and_lists_all() {
    let all = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (stdin, echoed) in [
        (&b"{\"cniVersion\":\"0.4.0\"}"[..], "0.4.0"),
        (b"{\"cniVersion\":\"7.0.0\"}", "1.1.0"),
        (b"", "1.1.0"),
        (b"garbage", "1.1.0"),
    ] {
        let outcome = Node::v4().exec(&[("CNI_COMMAND", "VERSION")], stdin);
        assert_eq!(outcome.result(), json!({"cniVersion": echoed, "supportedVersions": all}));
    }
}

#[test]
fn r1_6_mistakes_are_reported_in_order() {
    let node = Node::v4();
    let complete = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "x"),
        ("CNI_NETNS", "/nonexistent"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let code = |variables: &[(&str, &str)], stdin: &str| node.exec(variables, stdin.as_bytes()).error().0;
    assert_eq!(code(&complete[..1], "not read"), 4);
    assert_eq!(code(&complete, "no JSON"), 6);
    assert_eq!(code(&complete, "{}"), 7);
    assert_eq!(code(&complete, r#"{"name":"n","cniVersion":"3.0.0"}"#), 1);
    assert_eq!(code(&complete, r#"{"name":"n","cniVersion":"1.0.0"}"#), 101);
}

#[test]
fn r4_1_errors_carry_the_version_of_the_configuration() {
    let node = Node::v4();
    let outcome = node.run("ADD", &Pod::new("p"), &node.config("0.4.0"), &[("CNI_NETNS", "/nonexistent")]);
    outcome.error();
    assert_eq!(outcome.json()["cniVersion"], "0.4.0");
}

#[test]
fn r2_2_commands_need_their_version() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    for (command, too_old) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
        let (code, message) = node.run(command, &pod, &node.config(too_old), &[]).error();
        assert_eq!((code, message), (1, format!("config version does not allow {command}")));
    }
}

#[test]
fn r2_4_and_r3_results_have_the_shape_of_their_version() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (node, pod) = (Node::dual_stack(), Pod::new("p"));
        let result = node.run("ADD", &pod, &node.config(version), &[]).result();
        assert_eq!(result["cniVersion"], version);
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces.len(), 2);
        let host = node.netlink().link_by_name(interfaces[0]["name"].as_str().unwrap()).unwrap().unwrap();
        assert_eq!((interfaces[0]["mac"].as_str(), host.mtu), (host.mac.map(|m| m.to_string()).as_deref(), 1430));
        assert!(interfaces[0].get("sandbox").is_none());
        let eth0 = pod.netlink().link_by_name("eth0").unwrap().unwrap();
        assert_eq!((&interfaces[1]["name"], &interfaces[1]["sandbox"]), (&json!("eth0"), &json!(pod.path())));
        assert_eq!((interfaces[1]["mac"].as_str(), eth0.mtu), (eth0.mac.map(|m| m.to_string()).as_deref(), 1430));
        assert_eq!(interfaces[1].get("mtu").is_some(), version == "1.1.0");
        let ips = &result["ips"];
        assert_eq!((&ips[0]["address"], &ips[0]["gateway"]), (&json!("10.244.1.2/24"), &json!("10.244.1.1")));
        assert_eq!((&ips[1]["address"], &ips[1]["gateway"]), (&json!("fd44:0:0:1::2/64"), &json!("fd44:0:0:1::1")));
        assert_eq!((&ips[0]["interface"], &ips[1]["interface"]), (&json!(1), &json!(1)));
        assert_eq!(ips[0].get("version").is_some(), !version.starts_with('1'));
        assert_eq!(
            result["routes"],
            json!([{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}, {"dst": "::/0", "gw": "fd44:0:0:1::1"}])
        );
    }
}

#[test]
fn r2_4_the_oldest_versions_have_ip4_and_ip6() {
    let (node, pod) = (Node::dual_stack(), Pod::new("p"));
    let result = node.run("ADD", &pod, &node.config("0.2.0"), &[]).result();
    assert_eq!((&result["ip4"]["ip"], &result["ip6"]["ip"]), (&json!("10.244.1.2/24"), &json!("fd44:0:0:1::2/64")));
}

#[test]
fn r1_10_the_own_namespace_is_refused_before_anything_is_done() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let own = [("CNI_NETNS", "/proc/self/ns/net")];
    let outcome = node.run("ADD", &pod, &node.config("1.0.0"), &own);
    assert_eq!(outcome.error(), (8, "plugin's netns and netns from CNI_NETNS should not be the same".into()));
    assert!(node.reserved().is_empty() && node.veths().is_empty());

    // D5: nothing of the host is deleted, yet the address is released.
    node.add(&pod).result();
    assert_eq!(node.run("DEL", &pod, &node.config("1.0.0"), &own).error().0, 8);
    assert!(node.reserved().is_empty());
    assert_eq!(node.veths().len(), 1);
}

#[test]
fn r1_10_unless_the_runtime_insists() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let own = [("CNI_NETNS", "/proc/self/ns/net"), ("CNI_NETNS_OVERRIDE", "true")];
    node.run("ADD", &pod, &node.config("1.0.0"), &own).result();
    node.run("DEL", &pod, &node.config("1.0.0"), &own);
    assert!(node.reserved().is_empty() && node.veths().is_empty());
}

#[test]
fn a6_mac_and_address_can_be_asked_for() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = json!({"mac": "02:11:22:33:44:55"});
    let args = "K8S_POD_NAME=web;IP=10.244.1.77;IgnoreUnknown=1";
    let result = node.run("ADD", &pod, &config, &[("CNI_ARGS", args)]).result();
    assert_eq!(result["ips"][0]["address"], "10.244.1.77/24");
    assert_eq!(result["interfaces"][1]["mac"], "02:11:22:33:44:55");
    assert_eq!(pod.netlink().link_by_name("eth0").unwrap().unwrap().mac.unwrap().to_string(), "02:11:22:33:44:55");
}

#[test]
fn a3_a_path_that_is_no_namespace_is_an_error_without_traces() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    for path in ["/nonexistent/netns", "/etc/passwd", "/proc/self/ns/uts"] {
        node.run("ADD", &pod, &node.config("1.0.0"), &[("CNI_NETNS", path)]).error();
        assert!(node.reserved().is_empty() && node.veths().is_empty(), "{path}");
    }
    assert!(Netns::open(pod.path()).is_ok());
}

/// Keys in containerd's and in CRI-O's spelling, nulls where lists are meant, and things that are not for us.
#[test]
fn r1_8_section_6_what_runtimes_pass() {
    for capabilities in [
        json!({"ipRanges": [[{"Subnet": "10.5.0.0/24", "RangeStart": "10.5.0.7"}]], "dns": {"Servers": ["10.5.0.53"],
            "Searches": null, "Options": null}, "aliases": null, "cgroupPath": "/x", "mac": ""}),
        json!({"ipRanges": [[{"subnet": "10.5.0.0/24", "rangeStart": "10.5.0.7"}]], "dns": {"servers": ["10.5.0.53"]},
            "ips": null, "deviceID": "0000:00:00.0", "io.kubernetes.cri.pod-annotations": {"a": "b"}}),
    ] {
        let (node, pod) = (Node::v4(), Pod::new("p"));
        let config = node.config_with("1.0.0", json!({"runtimeConfig": capabilities, "capabilities": {"ips": true}}));
        let args = "K8S_POD_INFRA_CONTAINER_ID=p;IgnoreUnknown=1;K8S_POD_NAMESPACE=default";
        let result = node.run("ADD", &pod, &config, &[("CNI_ARGS", args)]).result();
        assert_eq!(
            (&result["ips"][0]["address"], &result["ips"][0]["gateway"]),
            (&json!("10.5.0.7/24"), &json!("10.5.0.1"))
        );
        assert_eq!(result["dns"], json!({"nameservers": ["10.5.0.53"]}));
    }
}

#[test]
fn section_6_mac_precedence_and_ips_union() {
    let (node, pod) = (Node::dual_stack(), Pod::new("p"));
    let config = node.config_with(
        "1.0.0",
        json!({"args": {"cni": {"mac": "02:00:00:00:00:02", "ips": ["fd44:0:0:1::99"]}}, "runtimeConfig": {"mac": ""}}),
    );
    let args = [("CNI_ARGS", "MAC=02:00:00:00:00:01;IP=10.244.1.99")];
    let result = node.run("ADD", &pod, &config, &args).result();
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:02");
    assert_eq!(crate::kit::addresses(&result), ["10.244.1.99", "fd44:0:0:1::99"]);
    let (code, _) = node.run("ADD", &Pod::new("q"), &node.config("1.0.0"), &[("CNI_ARGS", "A=1")]).error();
    assert_eq!(code, 4);
}

/// An almost empty environment is what every test here runs in; this adds an odd umask and an inherited descriptor.
#[test]
fn r1_9_an_odd_umask_does_not_matter() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let config = node.directory().join("config.json");
    std::fs::write(&config, node.config("1.0.0").to_string()).unwrap();
    let script = format!("umask 0777; exec 7</dev/null; exec {} <{}", crate::kit::PLUGIN, config.display());
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script]).env_clear().envs([
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "p"),
        ("CNI_NETNS", &pod.path()),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/x"),
    ]);
    let output = node.netns.run(|| command.output().unwrap()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(node.reserved(), ["10.244.1.2"]);
    assert!(node.del(&pod).success);
    assert!(node.reserved().is_empty());
}

/// Far more than a pipe holds, so it comes in pieces; what other plugins and runtimes put there is not for us.
#[test]
fn r1_7_standard_input_is_read_to_its_end() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let labels: Vec<_> = (0..20_000).map(|n| json!({"key": format!("k{n}"), "value": null})).collect();
    let config = node.config_with(
        "1.0.0",
        json!({"args": {"cni": {"labels": labels}}, "capabilities": {"x": true}, "cni.dev/other": {}, "snat": true}),
    );
    assert!(config.to_string().len() > 256 * 1024);
    node.run("ADD", &pod, &config, &[]).result();
    assert!(node.run("DEL", &pod, &config, &[]).success);
}

/// Runtimes that validate plugins may send nothing and keep the pipe open.
#[test]
fn r1_6_version_does_not_wait_for_the_end_of_standard_input() {
    let mut command = std::process::Command::new(crate::kit::PLUGIN);
    command.env_clear().env("CNI_COMMAND", "VERSION");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let open = child.stdin.take();
    assert!(child.wait_with_output().unwrap().status.success());
    drop(open);
}

/// Containerd and kubelet look at exit codes, libcni at the one JSON document.
#[test]
fn r1_1_r1_3_one_document_and_an_exit_code() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let one_document = |text: &str| serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>().count();
    let added = node.add(&pod);
    assert!(added.success && one_document(&added.stdout) == 1, "{added:?}");
    let again = node.add(&pod);
    assert!(!again.success && one_document(&again.stdout) == 1, "{again:?}");
    assert!(node.del(&pod).stdout.is_empty());
}
