//! An operator with `kubectl`, and the Service of the guides: `my-service`, at 10.96.0.80.

use std::{fmt::Write as _, fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, OUTSIDE_V4, Place, Pod, Request, SlicePort};

/// A person at the host where the API server runs.
pub(crate) struct Operator<'a> {
    place: &'a Place,
    home: PathBuf,
}

impl<'a> Operator<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Result<Self> {
        let home = cluster.run().directory().join("operator");
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        Ok(Self { place: cluster.outside(), home })
    }

    /// What `kubectl` prints; it has to succeed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        // It keeps what it discovers under its home directory.
        let home = format!("HOME={}", self.home.display());
        let server = format!("--server=http://{OUTSIDE_V4}:8080");
        let mut words = vec!["--unset=KUBECONFIG", &home, "kubectl", &server];
        words.extend(arguments);
        self.place.run("env", &words)
    }

    /// `kubectl apply -f`.
    pub(crate) fn apply(&self, objects: &str) -> Result<()> {
        let file = self.home.join("objects.yaml");
        fs::write(&file, objects).with_context(|| format!("write {}", file.display()))?;
        // Older versions check fields by a schema, which the test server has none of.
        self.kubectl(&["apply", "--validate=false", "-f", &file.display().to_string()])?;
        Ok(())
    }
}

/// An endpoint of `my-service`, as its EndpointSlice tells it.
pub(crate) struct Endpoint {
    address: String,
    node: Option<String>,
    conditions: &'static str,
}

impl Endpoint {
    /// Somewhere outside the cluster, with nothing said about its condition.
    pub(crate) fn at(address: &dyn ToString) -> Self {
        Self { address: address.to_string(), node: None, conditions: "{}" }
    }

    /// A pod that passes its readiness probe.
    pub(crate) fn ready(pod: &Pod) -> Result<Self> {
        Self::of(pod, "{ready: true, serving: true, terminating: false}")
    }

    /// A pod that does not pass it, or not yet.
    pub(crate) fn unready(pod: &Pod) -> Result<Self> {
        Self::of(pod, "{ready: false, serving: false, terminating: false}")
    }

    /// A pod that was told to end, and still serves.
    pub(crate) fn terminating(pod: &Pod) -> Result<Self> {
        Self::of(pod, "{ready: false, serving: true, terminating: true}")
    }

    fn of(pod: &Pod, conditions: &'static str) -> Result<Self> {
        Ok(Self { address: pod.socket_v4(0)?.ip().to_string(), node: Some(pod.node().to_owned()), conditions })
    }
}

/// `my-service` with ports (name, protocol, port, targetPort, nodePort).
pub(crate) fn service(kind: &str, ports: &[(&str, &str, u16, &str, Option<u16>)]) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: my-service, namespace: default}}\n\
         spec:\n  {kind}\n  clusterIP: 10.96.0.80\n  clusterIPs: [10.96.0.80]\n  ports:\n"
    );
    for (name, protocol, port, target, node_port) in ports {
        let _ = write!(yaml, "  - {{name: {name}, protocol: {protocol}, port: {port}, targetPort: {target}");
        let _ = node_port.map(|node_port| write!(yaml, ", nodePort: {node_port}"));
        yaml += "}\n";
    }
    yaml
}

/// Its EndpointSlice.
pub(crate) fn slice(ports: &[SlicePort], endpoints: &[Endpoint]) -> String {
    let mut yaml = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                    metadata: {name: my-service-1, namespace: default, labels: {kubernetes.io/service-name: my-service}}\n\
                    addressType: IPv4\nports:\n"
        .to_owned();
    for port in ports {
        let _ = writeln!(yaml, "- {{name: {}, protocol: {}, port: {}}}", port.name, port.protocol, port.port);
    }
    yaml += "endpoints:\n";
    for Endpoint { address, node, conditions } in endpoints {
        let node = node.as_ref().map_or_else(String::new, |node| format!(", nodeName: {node}"));
        let _ = writeln!(yaml, "- {{addresses: [\"{address}\"], conditions: {conditions}{node}}}");
    }
    yaml
}

/// A port at its ClusterIP.
pub(crate) fn cluster_ip(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 80], port))
}

/// Fails unless exactly these servers answer, each as often as the others.
pub(crate) fn served_by(from: &Place, at: SocketAddr, names: &[&str]) -> Result<()> {
    let each = 4;
    let count = each * u64::try_from(names.len())?;
    let answers = from.request(&Request::tcp(at).count(count))?.all_good()?;
    let expected = names.iter().map(|name| ((*name).to_owned(), each)).collect();
    ensure!(answers.by_name == expected, "{from}: {} instead of {names:?}", answers.counts());
    Ok(())
}
