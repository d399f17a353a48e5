//! IPAM plugins that are not built in: a fake that notes how it is called, and Debian's.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use serde_json::{Value, json};

use crate::kit::{Node, Outcome, PLUGINS, Pod, addresses};

/// A node whose networks get their addresses from the fake plugin.
struct Faked {
    node: Node,
    files: PathBuf,
}

impl Faked {
    fn new() -> Self {
        let node = Node::v4();
        let files = node.directory().join("plugins");
        fs::create_dir(&files).unwrap();
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/attach/fake-ipam.sh"), files.join("fake")).unwrap();
        let faked = Self { node, files };
        faked.answer(
            "ADD",
            &json!({
                "cniVersion": "1.0.0",
                "ips": [{"address": "10.7.0.5/24", "gateway": "10.7.0.1"}],
                "routes": [{"dst": "10.0.0.0/8", "gw": null}, {"dst": "0.0.0.0/0", "gw": "10.7.0.1"}],
                "dns": {"nameservers": ["10.7.0.53"]},
            }),
        );
        faked
    }

    fn answer(&self, command: &str, answer: &Value) {
        fs::write(self.files.join(format!("answer.{command}")), answer.to_string()).unwrap();
    }

    fn fail(&self, command: &str) {
        fs::write(self.files.join(format!("fail.{command}")), "").unwrap();
    }

    /// What it was asked since the last time.
    fn calls(&self) -> Vec<String> {
        let path = self.files.join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        calls.lines().map(str::to_owned).collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.files.join(name)).unwrap()
    }

    fn config(&self, version: &str, members: Value) -> Value {
        let mut config =
            self.node.config_with(version, json!({"ipam": {"type": "fake", "ranges": "its own business"}}));
        config.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        config
    }

    fn path(&self) -> String {
        format!("{}:{PLUGINS}", self.files.display())
    }

    fn run(&self, command: &str, pod: &Pod, config: &Value) -> Outcome {
        self.node.run(command, pod, config, &[("CNI_PATH", &self.path())])
    }

    fn on_network(&self, command: &str, config: &Value) -> Outcome {
        let variables = [("CNI_COMMAND", command), ("CNI_PATH", &self.path())];
        self.node.exec(&variables, config.to_string().as_bytes())
    }
}

#[test]
fn a5_the_delegate_gets_our_environment_and_the_complete_configuration() {
    let (faked, pod) = (Faked::new(), Pod::new("p"));
    let config = faked.config("1.0.0", json!({"unknown": {"Key": [null]}, "args": {"cni": {"labels": []}}}));
    let args = [("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=x"), ("CNI_PATH", &faked.path())];
    let outcome = faked.node.run("ADD", &pod, &config, &args);
    let result = outcome.result();
    assert_eq!(faked.calls(), ["ADD"]);
    assert_eq!(faked.read("stdin.ADD"), config.to_string());
    let expected = format!(
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=x\nCNI_COMMAND=ADD\nCNI_CONTAINERID=p\nCNI_IFNAME=eth0\nCNI_NETNS={}\n\
         CNI_PATH={}\n",
        pod.path(),
        faked.path()
    );
    assert_eq!(faked.read("env.ADD"), expected);
    // R4.2
    assert!(outcome.stderr.contains("fake-ipam was asked to ADD"), "{outcome:?}");
    assert_eq!(result["ips"], json!([{"address": "10.7.0.5/24", "gateway": "10.7.0.1", "interface": 1}]));
    let routes = json!([{"dst": "10.0.0.0/8", "gw": "10.7.0.1"}, {"dst": "0.0.0.0/0", "gw": "10.7.0.1"}]);
    assert_eq!((&result["routes"], &result["dns"]), (&routes, &json!({"nameservers": ["10.7.0.53"]})));

    assert!(faked.run("CHECK", &pod, &faked.config("1.0.0", json!({"prevResult": result}))).success);
    assert!(faked.run("DEL", &pod, &config).success);
    assert_eq!(faked.calls(), ["CHECK", "DEL"]);
    assert!(faked.node.veths().is_empty() && !faked.node.store().exists());
}

#[test]
fn a11_dns_of_the_configuration_overrides_the_ipams() {
    let (faked, pod) = (Faked::new(), Pod::new("p"));
    let config = faked.config("1.0.0", json!({"dns": {"search": ["x"]}}));
    assert_eq!(faked.run("ADD", &pod, &config).result()["dns"], json!({"search": ["x"]}));
}

#[test]
fn a11_dns_of_resolv_conf() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let file = node.directory().join("resolv.conf");
    let config = node.config_with("1.0.0", json!({"ipam": {"type": "host-local", "resolvConf": file}}));
    assert_eq!(node.run("ADD", &pod, &config, &[]).error().0, 5);
    assert!(node.reserved().is_empty());
    fs::write(&file, "nameserver 192.0.2.53\noptions ndots:5\n").unwrap();
    let result = node.run("ADD", &pod, &config, &[]).result();
    assert_eq!(result["dns"], json!({"nameservers": ["192.0.2.53"], "options": ["ndots:5"]}));
}

#[test]
fn r4_2_the_delegates_error_is_passed_on_after_its_del() {
    let (faked, pod) = (Faked::new(), Pod::new("p"));
    faked.answer("ADD", &json!({"cniVersion": "1.0.0", "code": 117, "msg": "no more", "details": "of them"}));
    faked.fail("ADD");
    let outcome = faked.run("ADD", &pod, &faked.config("0.4.0", json!({})));
    assert_eq!(
        outcome.json(),
        json!({"cniVersion": "0.4.0", "code": 117, "msg": "no more", "details": "of them"}),
        "{outcome:?}"
    );
    assert!(!outcome.success);
    assert_eq!(faked.calls(), ["ADD", "DEL"]);
    assert!(faked.node.veths().is_empty());
}

#[test]
fn a5_answers_that_make_no_interface_are_undone() {
    for (answer, code) in [
        (json!({"cniVersion": "1.0.0", "ips": []}), 102),
        (json!({"cniVersion": "1.0.0", "ips": null}), 102),
        (json!({"ips": [{"address": "10.7.0.5/24"}]}), 7),
        (json!({"ips": [{"address": "10.7.0.5/24", "gateway": "fd00::1"}]}), 7),
        (json!({"ips": 7}), 6),
        (json!("nonsense"), 6),
        // The interface fails after the addresses were given.
        (
            json!({"ips": [{"address": "10.7.0.5/24", "gateway": "10.7.0.1"}], "routes": [{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]}),
            101,
        ),
    ] {
        let (faked, pod) = (Faked::new(), Pod::new("p"));
        faked.answer("ADD", &answer);
        let outcome = faked.run("ADD", &pod, &faked.config("1.0.0", json!({})));
        assert_eq!(outcome.error().0, code, "{answer}");
        assert_eq!(faked.calls(), ["ADD", "DEL"], "{answer}");
        assert!(faked.node.veths().is_empty(), "{answer}");
    }
}

#[test]
fn d3_the_interface_goes_even_if_the_delegate_fails() {
    let (faked, pod) = (Faked::new(), Pod::new("p"));
    let config = faked.config("1.0.0", json!({}));
    faked.run("ADD", &pod, &config).result();
    faked.fail("DEL");
    let (code, message) = faked.run("DEL", &pod, &config).error();
    assert!(code == 103 && message.contains("\"fake\" failed at DEL"), "{message}");
    assert!(faked.node.veths().is_empty());
}

#[test]
fn c1_g2_s1_check_gc_and_status_are_forwarded_with_their_errors() {
    let (faked, pod) = (Faked::new(), Pod::new("p"));
    let result = faked.run("ADD", &pod, &faked.config("1.1.0", json!({}))).result();
    faked.calls();
    let check = faked.config("1.1.0", json!({"prevResult": result}));
    let gc = faked.config("1.1.0", json!({"cni.dev/valid-attachments": []}));
    let status = faked.config("1.1.0", json!({}));
    assert!(faked.run("CHECK", &pod, &check).success);
    assert!(faked.on_network("STATUS", &status).success);
    for (command, code) in [("CHECK", 120), ("GC", 121), ("STATUS", 51)] {
        faked.answer(command, &json!({"code": code, "msg": command}));
        faked.fail(command);
    }
    assert_eq!(faked.run("CHECK", &pod, &check).error(), (120, "CHECK".into()));
    assert_eq!(faked.on_network("STATUS", &status).error(), (51, "STATUS".into()));
    assert_eq!(faked.on_network("GC", &gc).error(), (121, "GC".into()));
    assert_eq!(faked.read("stdin.GC"), gc.to_string());
    assert!(faked.node.veths().is_empty());
    // Other codes make no sense to who asks for a status.
    faked.answer("STATUS", &json!({"code": 7, "msg": "broken"}));
    assert_eq!(faked.on_network("STATUS", &status).error(), (50, "broken".into()));
    assert_eq!(faked.calls(), ["CHECK", "STATUS", "CHECK", "STATUS", "GC", "STATUS"]);
}

#[test]
fn r1_1_a_delegate_that_is_not_there_is_an_error() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    for (name, code) in [("nosuch", 103), ("../bin/sh", 7)] {
        let config = node.config_with("1.1.0", json!({"ipam": {"type": name}}));
        assert_eq!(node.run("ADD", &pod, &config, &[]).error().0, code);
        assert!(node.veths().is_empty());
        assert_eq!(node.on_network("STATUS", &config).error().0, 50);
    }
}

#[test]
fn a5_debians_static() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let ipam = json!({"type": "static", "addresses": [
        {"address": "10.8.0.5/24", "gateway": "10.8.0.1"}, {"address": "fd08::5/64", "gateway": "fd08::1"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], "dns": {"nameservers": ["10.8.0.53"]}});
    for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0"] {
        let config = node.config_with(version, json!({"ipam": ipam}));
        let result = node.run("ADD", &pod, &config, &[]).result();
        if version == "0.2.0" {
            assert_eq!(result["ip6"]["ip"], "fd08::5/64");
        } else {
            assert_eq!(addresses(&result), ["10.8.0.5", "fd08::5"]);
            assert_eq!(result["dns"], json!({"nameservers": ["10.8.0.53"]}));
        }
        if version >= "0.4.0" {
            let config = node.config_with(version, json!({"ipam": ipam, "prevResult": result}));
            let outcome = node.run("CHECK", &pod, &config, &[]);
            assert!(outcome.success, "{outcome:?}");
        }
        assert!(node.run("DEL", &pod, &config, &[]).success);
        assert!(node.veths().is_empty());
    }
    let config = node.config_with("1.0.0", json!({"ipam": {"type": "static", "addresses": []}}));
    assert!(!node.run("ADD", &pod, &config, &[]).success);
}

/// The same directory, by turns with Debian's host-local under another name and with ours.
#[test]
fn section_7_debians_host_local_and_ours_share_a_directory() {
    let node = Node::v4();
    let plugins = node.directory().join("plugins");
    fs::create_dir(&plugins).unwrap();
    symlink(format!("{PLUGINS}/host-local"), plugins.join("debians")).unwrap();
    let path = plugins.display().to_string();
    let config = |kind: &str| {
        let data = node.directory().join("networks");
        node.config_with(
            "1.0.0",
            json!({"ipam": {"type": kind, "subnet": "10.244.1.0/24", "dataDir": data,
            "routes": [{"dst": "0.0.0.0/0"}]}}),
        )
    };
    let run = |command: &str, pod: &Pod, kind: &str| node.run(command, pod, &config(kind), &[("CNI_PATH", &path)]);
    let pods: Vec<_> = (0..4).map(|n| Pod::new(&format!("p{n}"))).collect();
    let kinds = ["debians", "host-local", "debians", "host-local"];
    for (n, (pod, kind)) in pods.iter().zip(kinds).enumerate() {
        assert_eq!(addresses(&run("ADD", pod, kind).result()), [format!("10.244.1.{}", n + 2)]);
    }
    // Each removes, and checks, what the other made.
    for (pod, kind) in pods.iter().zip(["host-local", "debians", "host-local", "debians"]) {
        assert!(run("DEL", pod, kind).success);
    }
    assert!(node.reserved().is_empty() && node.veths().is_empty());
}
