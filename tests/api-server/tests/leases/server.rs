//! The API server, and what everyone asks of it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use weft_overlay::{
    AnnotationPrefix, KubeLeaseConfig, KubeLeases, LeaseAttributes, LeaseRequest, LeaseSnapshot, NetConf, SubnetSource,
    VtepData,
};

/// What n1 is told of the network.
const DUAL_STACK: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48"}"#;

/// The API server, and an operator with `kubectl`.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    pub(crate) nodes: Api<DynamicObject>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::at("127.0.0.1:0", None)
    }

    pub(crate) fn at(listen: &str, load: Option<&str>) -> Self {
        // It dies with the test's thread, also when the test process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_weft-test-apiserver"), "--listen", listen]);
        command.args(load.iter().flat_map(|directory| ["--load", directory]));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        let nodes = Api::all_with(client(&address), &ApiResource::erase::<NodeKind>(&()));
        Self { child, address, nodes }
    }

    pub(crate) fn leases(&self) -> KubeLeases {
        KubeLeases::new(client(&self.address), config())
    }

    /// Makes or replaces a Node.
    pub(crate) async fn apply(&self, name: &str, mut node: Value) {
        node["apiVersion"] = "v1".into();
        node["kind"] = "Node".into();
        node["metadata"]["name"] = name.into();
        self.nodes.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(node)).await.unwrap();
    }

    /// Makes or replaces the Node of a peer that flannel or Weft runs on.
    pub(crate) async fn peer(&self, number: u8, annotations: &[(&str, &str)]) {
        let mut all = json!({"flannel.alpha.coreos.com/kube-subnet-manager": "true"});
        for (key, value) in annotations {
            all[format!("flannel.alpha.coreos.com/{key}")] = (*value).into();
        }
        let cidrs = [format!("10.244.{number}.0/24"), format!("fd44:0:0:{number:x}::/64")];
        self.apply(&format!("n{number}"), json!({"metadata": {"annotations": all}, "spec": {"podCIDRs": cidrs}})).await;
    }

    pub(crate) async fn get(&self, name: &str) -> Value {
        serde_json::to_value(self.nodes.get(name).await.unwrap()).unwrap()
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.nodes.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `Node` for a dynamic client.
struct NodeKind;

impl kube::Resource for NodeKind {
    type DynamicType = ();
    type Scope = kube::core::ClusterResourceScope;
    fn kind(_: &()) -> std::borrow::Cow<'_, str> {
        "Node".into()
    }
    fn group(_: &()) -> std::borrow::Cow<'_, str> {
        "".into()
    }
    fn version(_: &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }
    fn plural(_: &()) -> std::borrow::Cow<'_, str> {
        "nodes".into()
    }
    fn meta(&self) -> &kube::core::ObjectMeta {
        unreachable!()
    }
    fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
        unreachable!()
    }
}

pub(crate) fn client(address: &str) -> Client {
    Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

pub(crate) fn config() -> KubeLeaseConfig {
    KubeLeaseConfig {
        node_name: "n1".into(),
        annotation_prefix: AnnotationPrefix::default(),
        set_network_unavailable: true,
        trust_empty_lists: false,
        known_nodes: None,
    }
}

/// What n1 asks for.
pub(crate) fn request() -> LeaseRequest {
    let attributes = LeaseAttributes {
        public_ip: Some([10, 99, 0, 2].into()),
        public_ipv6: Some("fd99::2".parse().unwrap()),
        backend_type: "vxlan".into(),
        backend_data: Some(VtepData { vni: 1, mac: "22:6d:8f:ee:7c:b1".parse().unwrap() }),
        backend_v6_data: Some(VtepData { vni: 1, mac: "26:92:df:da:5c:03".parse().unwrap() }),
    };
    let net_conf = NetConf::parse(DUAL_STACK, SubnetSource::Assigned).unwrap();
    LeaseRequest { node_name: "n1".into(), net_conf, attributes, preferred: None }
}

pub(crate) fn own_node() -> Value {
    json!({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd44:0:0:1::/64"]}})
}

pub(crate) async fn until(
    snapshots: &mut watch::Receiver<Option<Arc<LeaseSnapshot>>>,
    wanted: impl Fn(&LeaseSnapshot) -> bool,
) -> Arc<LeaseSnapshot> {
    let wait = snapshots.wait_for(|snapshot| snapshot.as_deref().is_some_and(&wanted));
    let found = tokio::time::timeout(Duration::from_secs(20), wait).await.map(|found| found.unwrap().clone().unwrap());
    found.unwrap_or_else(|_| panic!("never saw it; last: {:?}", snapshots.borrow()))
}
