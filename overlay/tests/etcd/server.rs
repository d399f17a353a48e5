//! A real etcd of one member, in a directory and a network namespace of its own.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use etcd_client::{Client, ConnectOptions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;
use weft_netlink::Netns;
use weft_overlay::{ClientCertificate, EtcdConfig, EtcdLeases};

/// Runs a test in a fresh network namespace. Its thread lives as long as the test, and every process it starts dies with
/// that thread, also when the test process is killed.
pub(crate) fn in_netns(test: impl AsyncFnOnce() + Send) {
    let netns = Netns::create().unwrap();
    let work = || {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    netns.run(work).unwrap();
}

/// What clients must show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Off,
    /// Clients check the server.
    Server,
    /// And the server checks clients.
    Both,
}

pub(crate) struct Etcd {
    directory: TempDir,
    tls: Tls,
    child: Child,
}

impl Etcd {
    pub(crate) async fn start(tls: Tls) -> Self {
        let directory = TempDir::with_prefix_in("weft-etcd-", "/dev/shm").unwrap();
        write_certificates(&directory);
        let child = spawn(&directory, tls);
        let etcd = Self { directory, tls, child };
        etcd.until_answering().await;
        etcd
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As seen by a node.
    pub(crate) fn config(&self) -> EtcdConfig {
        let certificate =
            ClientCertificate { certificate_file: self.path("client.crt"), key_file: self.path("client.key") };
        EtcdConfig {
            endpoints: vec![url(self.tls)],
            prefix: "/coreos.com/network".into(),
            ca_file: (self.tls != Tls::Off).then(|| self.path("ca.crt")),
            client_certificate: (self.tls == Tls::Both).then_some(certificate),
            user: None,
            renew_margin: Duration::from_secs(3600),
        }
    }

    pub(crate) fn leases(&self) -> EtcdLeases {
        EtcdLeases::new(self.config())
    }

    /// Somebody with `etcdctl`. Never over TLS: etcd listens in the clear too, for this.
    pub(crate) async fn operator(&self) -> Client {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
        Client::connect(["http://127.0.0.1:2381"], Some(options)).await.unwrap()
    }

    async fn until_answering(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = tokio::time::timeout(Duration::from_millis(300), async {
                self.operator().await.get("ready", None).await
            });
            match answer.await {
                Ok(Ok(_)) => return,
                last => assert!(Instant::now() < deadline, "etcd does not answer: {last:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.directory, self.tls);
        self.until_answering().await;
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn url(tls: Tls) -> String {
    if tls == Tls::Off { "http://127.0.0.1:2379".into() } else { "https://127.0.0.1:2379".into() }
}

fn spawn(directory: &TempDir, tls: Tls) -> Child {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let clients = format!("{},http://127.0.0.1:2381", url(tls));
    let data = path("data");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "etcd", "--name", "one", "--data-dir", &data]);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    command.args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"]);
    command.args(["--initial-cluster", "one=http://127.0.0.1:2380"]);
    // A single member need not wait long before it elects itself.
    command.args(["--heartbeat-interval", "20", "--election-timeout", "100"]);
    command.args(["--logger", "zap", "--log-level", "panic"]);
    if tls != Tls::Off {
        command.args(["--cert-file", &path("server.crt"), "--key-file", &path("server.key")]);
    }
    if tls == Tls::Both {
        command.args(["--client-cert-auth", "--trusted-ca-file", &path("ca.crt")]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// An authority, a server and a client of it, and an authority that nobody knows.
fn write_certificates(directory: &TempDir) {
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), Issuer::new(params, key))
    };
    let (ca, issuer) = authority("ca");
    write("ca.crt", ca);
    write("stranger.crt", authority("stranger").0);
    for name in ["server", "client"] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        // etcd is a client of itself, with the server's certificate.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        write(&format!("{name}.crt"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}
