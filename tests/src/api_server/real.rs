//! A real etcd and kube-apiserver, from a directory as `setup-envtest` fills it (`KUBEBUILDER_ASSETS`).

use std::{
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{Place, eventually, secs};

/// kube-apiserver's own default.
const PORT: u16 = 6443;
/// On the loopback of the outside host's network, which nobody else uses.
const ETCD: &str = "http://127.0.0.1:2379";
/// All addresses of Services in the tests, of both families.
const SERVICES: &str = "10.96.0.0/12,2001:db8:96::/112";
const TOKEN: &str = "weft-tests";
/// A kube-apiserver alone on a busy machine takes some ten seconds.
const UP_WITHIN: std::time::Duration = secs(120);

/// Both programs, and `kubectl`, through which tests change objects.
#[derive(Debug)]
pub(crate) struct Real {
    place: Place,
    assets: PathBuf,
    /// Keys, certificates, kubeconfig, logs and etcd's data.
    directory: PathBuf,
    address: SocketAddr,
    etcd: Child,
    /// `None` after it was killed.
    server: Option<Child>,
}

impl Real {
    /// Starts them and waits until the server answers and the namespace `default` is there.
    pub(crate) fn start(place: &Place, address: Ipv4Addr, assets: &Path, directory: &Path) -> Result<Self> {
        for program in ["etcd", "kube-apiserver", "kubectl"] {
            ensure!(
                assets.join(program).is_file(),
                "KUBEBUILDER_ASSETS: there is no {program} in {}",
                assets.display()
            );
        }
        fs::create_dir_all(directory)?;
        write_identity(directory)?;
        let mut etcd = place.command(assets.join("etcd"));
        etcd.arg("--data-dir").arg(directory.join("etcd")).arg("--unsafe-no-fsync");
        etcd.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
        let address = SocketAddr::from((address, PORT));
        let mut real = Self {
            place: place.clone(),
            assets: assets.to_owned(),
            directory: directory.to_owned(),
            address,
            etcd: spawn(etcd, &directory.join("etcd.log"))?,
            server: None,
        };
        real.restart()?;
        Ok(real)
    }

    /// For agents and `kubectl`: TLS with the certificate that the server made for itself, and a bearer token.
    pub(crate) fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": self.directory.join("apiserver.crt"),
            }}],
            "users": [{"name": "weft", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "weft"}}],
            "current-context": "test",
        })
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the API server does not run")?;
        end(&mut server)
    }

    /// Starts the server, again with what etcd has.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let mut command = self.place.command(self.assets.join("kube-apiserver"));
        command.args(arguments(&self.directory, self.address));
        self.server = Some(spawn(command, &self.directory.join("kube-apiserver.log"))?);
        fs::write(self.directory.join("kubeconfig"), self.kubeconfig().to_string())?;
        eventually(UP_WITHIN, || self.kubectl(&["get", "namespace", "default"], "")).with_context(|| {
            let log = fs::read_to_string(self.directory.join("kube-apiserver.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!(
                "kube-apiserver does not come up; its log ends:\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            )
        })?;
        Ok(())
    }

    /// Server-side apply, of the status too if there is one.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=weft-tests", "--filename=-"];
        self.kubectl(&apply, &object.to_string())?;
        if !object["status"].is_null() {
            self.kubectl(&[&apply[..], &["--subresource=status"]].concat(), &object.to_string())?;
        }
        Ok(())
    }

    pub(crate) fn delete(&self, object: &Value) -> Result<()> {
        self.kubectl(&["delete", "--wait=false", "--filename=-"], &object.to_string()).map(drop)
    }

    pub(crate) fn get(&self, object: &Value) -> Result<Value> {
        let text = self.kubectl(&["get", "--output=json", "--filename=-"], &object.to_string())?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// `kubectl`, with something on its standard input.
    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.place.command(self.assets.join("kubectl"));
        command.arg("--kubeconfig").arg(self.directory.join("kubeconfig")).args(arguments);
        // Discovery is cached below HOME otherwise, and would be another cluster's.
        command.arg("--cache-dir").arg(self.directory.join("kubectl-cache"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("standard input of kubectl")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for child in self.server.iter_mut().chain([&mut self.etcd]) {
            let _ = end(child);
        }
    }
}

/// What a kube-apiserver 1.20 to 1.36 needs, and nothing that one of them does not know.
fn arguments(directory: &Path, address: SocketAddr) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    [
        ("etcd-servers", ETCD.to_owned()),
        // With no certificate in there it makes one, for the advertised address.
        ("cert-dir", directory.display().to_string()),
        ("bind-address", address.ip().to_string()),
        ("advertise-address", address.ip().to_string()),
        ("secure-port", address.port().to_string()),
        ("service-cluster-ip-range", SERVICES.to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
        ("service-account-key-file", file("service-account.key")),
        ("service-account-signing-key-file", file("service-account.key")),
        ("authorization-mode", "RBAC".to_owned()),
        ("token-auth-file", file("tokens.csv")),
        // No controller makes service accounts here, which pods would wait for.
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
        // Objects of the tests may be privileged.
        ("allow-privileged", "true".to_owned()),
    ]
    .map(|(name, value)| format!("--{name}={value}"))
    .into()
}

/// The key that signs service accounts, and the token of tests and agents.
fn write_identity(directory: &Path) -> Result<()> {
    let key = directory.join("service-account.key");
    let mut openssl = Command::new("openssl");
    openssl.args(["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out"]).arg(&key);
    let output = openssl.output().context("start openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    // token, user, uid, groups; this group may do everything, in every version.
    fs::write(directory.join("tokens.csv"), format!("{TOKEN},weft-tests,1,\"system:masters\"\n"))?;
    Ok(())
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("start {command:?}"))
}

fn end(child: &mut Child) -> Result<()> {
    child.kill().context("kill a server")?;
    child.wait().context("wait for a server")?;
    Ok(())
}
