//! The agent as its image runs it: in a container of the host's network, with what the DaemonSet of `manifests/` allows it.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use k8s_cri::v1::{
    Capability, ContainerConfig, LinuxContainerConfig, LinuxContainerSecurityContext, Mount, NamespaceOption,
    SecurityProfile, security_profile::ProfileType,
};
use serde_json::Value;
use weft_tests::{Request, eventually, secs};

use crate::{
    cri::{NODE_NAMESPACE, POD_NAMESPACE, PodSpec, Sandbox, container},
    fixture::{Fixture, PORT, with_image},
    image::WEFT_IMAGE,
};

/// Where the container has the node's cgroup: at `/sys/fs/cgroup` it has its own.
const CGROUP: &str = "/host/cgroup";
/// Where it has the node's `/proc/sys/net` to write to: its own is read-only.
const SYSCTLS: &str = "/host/proc/sys/net";

#[test]
fn the_agent_of_the_image_serves_the_node_and_is_replaced_under_running_pods() -> Result<()> {
    with_image(|fixture| {
        // Some machines have it on in every new network.
        forwarding(fixture, &["-qw", "net.ipv4.ip_forward=0"])?;
        let (agent, agent_container) = run_agent(fixture)?;
        eventually(secs(30), || {
            let now = forwarding(fixture, &["-n", "net.ipv4.ip_forward"])?;
            ensure!(now.trim() == "1", "the agent cannot write kernel parameters");
            Ok(())
        })?;
        packet_filters(fixture, &agent_container)?;
        let plugin = fixture.node().directory().join("cni-bin/weft-cni");
        let installed = std::fs::symlink_metadata(&plugin)?;
        ensure!(installed.is_file() && installed.permissions().mode() & 0o111 == 0o111, "{installed:?}");

        let (near, container) = fixture.serving_pod(&PodSpec::named("near"))?;
        let far = fixture.cluster.node(2).pod("far")?;
        let _server = far.serve()?;
        far.request(&Request::tcp(near.socket(PORT)?).count(3))?.all_good()?;
        fixture.serve_web(&far, &near)?;
        fixture.balanced(&container)?;

        // As kubelet does it for a new image: the old pod goes, the new one comes, and the data plane stays.
        fixture.cri.stop_pod(&agent)?;
        ensure!(fixture.node().agent().status().is_err(), "the old agent still answers");
        fixture.balanced(&container).context("without an agent")?;
        fixture.cri.remove_pod(&agent)?;
        let (agent, _) = run_agent(fixture)?;
        fixture.balanced(&container).context("with the new agent")?;

        fixture.remove(&near)?;
        fixture.nothing_left_but(1)?;
        fixture.cri.stop_pod(&agent)?;
        fixture.cri.remove_pod(&agent)
    })
}

/// sysctl(8) in the node's network.
fn forwarding(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &fixture.cluster.run().netns(fixture.node().name()), "sysctl"]).args(arguments);
    let output = command.output().context("start ip")?;
    ensure!(output.status.success(), "sysctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// That the image's programs have all they load: nft for its JSON output, iptables its extensions.
fn packet_filters(fixture: &Fixture, container: &str) -> Result<()> {
    let run = |line: &str| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        fixture.cri.exec(container, &words)
    };
    ensure!(run("nft --json list tables")?.contains("weft-proxy"), "nft does not see the agent's table");
    let rule = "OUTPUT -p tcp -m statistic --mode nth --every 2 --packet 0 -m comment --comment probe -j MARK --set-xmark 0x1/0x1";
    for program in ["iptables", "ip6tables", "iptables-nft"] {
        run(&format!("{program} -t mangle -A {rule}"))?;
        ensure!(run(&format!("{program}-save -t mangle"))?.contains("probe"), "{program} lost a rule");
        run(&format!("{program} -t mangle -D {rule}"))?;
    }
    // Not every kernel has its tables.
    ensure!(run("iptables-legacy --version")?.contains("legacy"), "iptables-legacy is another program");
    Ok(())
}

/// Makes the agent's pod, and waits until it is ready and knows the other node. Returns its container too.
fn run_agent(fixture: &Fixture) -> Result<(Sandbox, String)> {
    let pod = fixture.cri.run_pod(&PodSpec {
        host_network: true,
        log_directory: fixture.node().directory().display().to_string(),
        ..PodSpec::named("weft")
    })?;
    let container = fixture.cri.run_container(&pod, agent(fixture)?)?;
    eventually(secs(60), || {
        let status = fixture.node().agent().status()?;
        let peers = status.overlay.as_ref().map_or(0, |overlay| overlay.peers_up());
        ensure!(status.ready && peers == 1, "{status:?}");
        Ok(())
    })?;
    eventually(secs(30), || fixture.cri.network_ready())?;
    Ok((pod, container))
}

/// The container of the DaemonSet, with a root file system that cannot be written.
fn agent(fixture: &Fixture) -> Result<ContainerConfig> {
    let node = fixture.node();
    let run = fixture.cluster.run().directory();
    let cgroup = node.cgroup();
    let arguments = node.agent().arguments_with(&[("--cgroup-root", CGROUP)]);
    Ok(ContainerConfig {
        args: std::iter::once("agent".to_owned()).chain(arguments).collect(),
        // The files of a node of the test, at the same place: the conflist names them to the runtime.
        mounts: vec![
            mount(&run, &run.display().to_string()),
            mount(cgroup, CGROUP),
            mount(Path::new("/proc/sys/net"), SYSCTLS),
        ],
        linux: Some(LinuxContainerConfig {
            security_context: Some(security_context()?),
            ..LinuxContainerConfig::default()
        }),
        // Where a failure looks for it.
        log_path: "agent.log".to_owned(),
        ..container("agent", WEFT_IMAGE, &[])
    })
}

/// The DaemonSet's, in the words of CRI, as kubelet says it.
fn security_context() -> Result<LinuxContainerSecurityContext> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/base/daemonset.yaml");
    let daemon_set: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
    let context = &daemon_set["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    ensure!(context["privileged"] == false && context["readOnlyRootFilesystem"] == true, "{context}");
    ensure!(context["seccompProfile"]["type"] == "RuntimeDefault", "{context}");
    ensure!(context["appArmorProfile"]["type"] == "Unconfined", "{context}");
    let names = |field: &str| -> Vec<String> {
        let list = context["capabilities"][field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let profile = |kind: ProfileType| Some(SecurityProfile { profile_type: kind.into(), ..SecurityProfile::default() });
    Ok(LinuxContainerSecurityContext {
        namespace_options: Some(NamespaceOption {
            network: NODE_NAMESPACE,
            // To find the network namespaces of clients whose UDP sockets have to be closed.
            pid: NODE_NAMESPACE,
            ipc: POD_NAMESPACE,
            ..NamespaceOption::default()
        }),
        capabilities: Some(Capability {
            add_capabilities: names("add"),
            drop_capabilities: names("drop"),
            ..Capability::default()
        }),
        seccomp: profile(ProfileType::RuntimeDefault),
        apparmor: profile(ProfileType::Unconfined),
        readonly_rootfs: true,
        // Kubelet names them to the runtime, which has no others of its own.
        readonly_paths: ["bus", "fs", "irq", "sys", "sysrq-trigger"].map(|name| format!("/proc/{name}")).to_vec(),
        ..LinuxContainerSecurityContext::default()
    })
}

fn mount(host: &Path, container: &str) -> Mount {
    Mount { host_path: host.display().to_string(), container_path: container.to_owned(), ..Mount::default() }
}
