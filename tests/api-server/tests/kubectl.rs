//! The real `kubectl` at the test API server: what an operator does by hand in a test cluster works.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}, {name: https, port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.1.2]}]
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.1.0/24}
"#;

struct Operator {
    server: Child,
    address: String,
    home: TempDir,
}

impl Operator {
    fn start() -> Self {
        // It dies with the test's thread, also when the test process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_weft-test-apiserver")]);
        let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { server, address, home: TempDir::new().unwrap() }
    }

    /// What `kubectl` prints; it has to succeed.
    fn kubectl(&self, arguments: &[&str]) -> String {
        // It keeps what it discovers under its home directory.
        let mut command = Command::new("kubectl");
        command.env("HOME", self.home.path()).env_remove("KUBECONFIG");
        command.arg(format!("--server=http://{}", self.address)).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn apply(&self, objects: &str) -> String {
        let file = self.home.path().join("objects.yaml");
        fs::write(&file, objects).unwrap();
        // Older versions check fields by a schema, which the test server has none of.
        self.kubectl(&["apply", "--validate=false", "-f", file.to_str().unwrap()])
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn objects_are_applied_shown_changed_and_deleted() {
    let operator = Operator::start();
    let created = operator.apply(OBJECTS);
    assert_eq!(created, "service/web created\nendpointslice.discovery.k8s.io/web-1 created\nnode/n1 created\n");

    let all = operator.kubectl(&["get", "svc,endpointslices,nodes", "--all-namespaces", "-o", "name"]);
    assert_eq!(all, "service/web\nendpointslice.discovery.k8s.io/web-1\nnode/n1\n");
    assert_eq!(operator.kubectl(&["get", "svc", "-n", "other", "-o", "name"]), "");

    let changed = operator.apply(&OBJECTS.replace("port: 443", "port: 8443"));
    assert_eq!(changed, "service/web configured\nendpointslice.discovery.k8s.io/web-1 unchanged\nnode/n1 unchanged\n");
    assert_eq!(operator.kubectl(&["get", "svc", "web", "-o", "jsonpath={.spec.ports[*].port}"]), "80 8443");

    operator.kubectl(&["annotate", "node", "n1", "example.com/a=b"]);
    let annotated = operator.kubectl(&["get", "node", "n1", "-o", "jsonpath={.metadata.annotations.example\\.com/a}"]);
    assert_eq!(annotated, "b");
    operator.kubectl(&["label", "svc", "web", "service.kubernetes.io/service-proxy-name=other"]);

    assert_eq!(operator.kubectl(&["delete", "svc", "web", "--wait=false"]), "service \"web\" deleted\n");
    assert_eq!(operator.kubectl(&["get", "svc", "-o", "name"]), "");
}
