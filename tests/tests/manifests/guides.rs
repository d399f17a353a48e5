//! The shell blocks of the guides run as they are printed, one after the other, with the real `kubectl` at a test API server that
//! has flannel and kube-proxy. What else they call is only looked for in the guide of the program itself.

use std::{
    env, fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    api_server::ApiServer,
    render::{Tree, directory},
};

/// What kubeadm and flannel have put there.
const CLUSTER: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: kube-flannel}}
- {apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
- {apiVersion: v1, kind: Node, metadata: {name: n1}}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: kube-flannel-cfg, namespace: kube-flannel}
  data: {net-conf.json: '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'}
- apiVersion: apps/v1
  kind: DaemonSet
  metadata: {name: kube-flannel-ds, namespace: kube-flannel}
  spec: {template: {spec: {containers: [{name: kube-flannel, image: flannel}]}}}
- apiVersion: apps/v1
  kind: DaemonSet
  metadata: {name: kube-proxy, namespace: kube-system}
  spec: {template: {spec: {containers: [{name: kube-proxy, image: kube-proxy}]}}}
"#;

/// `kubectl` as the guides call it. What waits for pods is left out, for there is no kubelet; what the test server does not
/// read (protobuf, of which `create` makes use) is only made.
const KUBECTL: &str = r#"#!/bin/sh
case " $* " in
  *" rollout "* | *" exec "* | *" drain "* | *" uncordon "*) exit 0 ;;
  *" apply "*) set -- "$@" --validate=false ;;
  *" delete "*) set -- "$@" --wait=false ;;
  *" create "*) set -- "$@" --dry-run=client ;;
esac
exec "$REAL_KUBECTL" --server="http://$SERVER" "$@"
"#;

/// Programs whose calls change the machine.
const NOT_RUN: [&str; 8] = ["cargo", "ctr", "install", "kubeadm", "mv", "systemctl", "weft", "weft-cni"];

struct Operator {
    server: ApiServer,
    /// Where the commands are given; it has `manifests`.
    place: TempDir,
    _tree: Tree,
}

impl Operator {
    fn new() -> Result<Self> {
        let (server, place, tree) = (ApiServer::start()?, TempDir::new()?, Tree::copy()?);
        symlink(tree.path(), place.path().join("manifests"))?;
        let programs = place.path().join("bin");
        fs::create_dir(&programs)?;
        let scripts = NOT_RUN.map(|name| (name, "#!/bin/sh\n"));
        for (name, script) in scripts.into_iter().chain([("kubectl", KUBECTL)]) {
            fs::write(programs.join(name), script)?;
            fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755))?;
        }
        let mut kubectl = server.kubectl();
        let apply = kubectl.args(["apply", "--validate=false", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut apply = apply.spawn()?;
        apply.stdin.take().context("its input")?.write_all(CLUSTER.as_bytes())?;
        ensure!(apply.wait()?.success(), "flannel and kube-proxy cannot be put there");
        Ok(Self { server, place, _tree: tree })
    }

    /// Runs a block in one shell that ends with the first command that fails.
    fn run(&self, block: &str) -> Result<()> {
        let search = env::var("PATH")?;
        let kubectl = env::split_paths(&search).map(|path| path.join("kubectl")).find(|path| path.exists());
        let search = format!("{}:{search}", self.place.path().join("bin").display());
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", &block.replace("NODE", "n1").replace("POD", "weft-x")]).current_dir(self.place.path());
        shell.env("PATH", search).env("HOME", self.place.path()).env_remove("KUBECONFIG");
        let output =
            shell.env("REAL_KUBECTL", kubectl.context("kubectl")?).env("SERVER", &self.server.address).output()?;
        ensure!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// An object, or `null`.
    fn get(&self, arguments: &[&str]) -> Result<Value> {
        let output =
            self.server.kubectl().args(["get", "--ignore-not-found", "-o", "json"]).args(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}

/// The shell blocks of a document.
fn blocks(name: &str) -> Result<Vec<String>> {
    let path = directory().parent().unwrap_or(Path::new(".")).join("docs").join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    Ok(blocks.map(str::to_owned).collect())
}

#[test]
fn the_install_guide_can_be_followed() -> Result<()> {
    let operator = Operator::new()?;
    let blocks = blocks("install.md")?;
    blocks.iter().try_for_each(|block| operator.run(block))?;
    ensure!(blocks.len() >= 8, "only {} blocks", blocks.len());
    let kube_proxy = operator.get(&["daemonset", "kube-proxy", "-n", "kube-system"])?;
    ensure!(kube_proxy.is_null(), "kube-proxy is still there");
    ensure!(operator.get(&["daemonset", "weft", "-n", "kube-system"])?["kind"] == "DaemonSet");
    ensure!(operator.get(&["clusterrole", "weft-services"])?["kind"] == "ClusterRole");
    Ok(())
}

#[test]
fn the_migration_guide_can_be_followed() -> Result<()> {
    let operator = Operator::new()?;
    let weft = || operator.get(&["daemonset", "weft", "-n", "kube-system"]);
    let chosen = |daemon_set: &Value| daemon_set["spec"]["template"]["spec"]["nodeSelector"]["weft"] == "true";
    let mut was_chosen = false;
    for block in blocks("migrate.md")? {
        operator.run(&block)?;
        was_chosen |= chosen(&weft()?);
        if block.contains("leave-chosen-nodes.yaml") {
            for (namespace, name) in [("kube-flannel", "kube-flannel-ds"), ("kube-system", "kube-proxy")] {
                let old = operator.get(&["daemonset", name, "-n", namespace])?;
                ensure!(old.to_string().contains("leaving"), "{name} does not leave: {old}");
            }
        }
    }
    let weft = weft()?;
    ensure!(was_chosen && weft["kind"] == "DaemonSet" && !chosen(&weft), "{weft}");
    ensure!(operator.get(&["daemonset", "kube-flannel-ds", "-n", "kube-flannel"])?.is_null());
    ensure!(operator.get(&["node", "n1"])?["metadata"]["labels"]["weft"].is_null());
    Ok(())
}
