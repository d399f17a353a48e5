//! Services, EndpointSlices and Nodes as large as those of a real cluster.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use serde_json::{Value, json};
use weft_tests::Cluster;

use crate::services::objects::{Catalogue, publish};

/// Subnets of the other nodes, a /24 each; the endpoints that no pod here is lie in the first of them.
const PEERS: u32 = u32::from_be_bytes([10, 192, 0, 0]);
/// Images in the status of a Node: as many as kubelet reports at most (`--node-status-max-images`).
const IMAGES: usize = 50;

/// What the API server has.
pub(super) struct Objects {
    catalogue: Catalogue,
    /// All but the own one.
    peers: u32,
}

impl Objects {
    pub(super) fn new(services: u32, nodes: u32, servers: [Vec<Ipv4Addr>; 2]) -> Self {
        Self { catalogue: Catalogue::new(services, servers), peers: nodes - 1 }
    }

    /// Starts the API server again with these objects and no others.
    pub(super) fn publish(&self, cluster: &mut Cluster) -> Result<()> {
        let mut objects = self.catalogue.objects();
        objects.iter_mut().for_each(dress);
        objects.push(node("n1", super::site::SUBNET, None));
        objects.extend((0..self.peers).map(|number| {
            let subnet = Ipv4Addr::from(PEERS + number * 256);
            node(&format!("peer-{number}"), subnet, Some(number))
        }));
        publish(cluster, objects)
    }

    /// Other nodes.
    pub(super) fn peers(&self) -> usize {
        self.peers as usize
    }

    /// Services and peers.
    pub(super) fn counts(&self) -> (u64, usize) {
        (self.catalogue.services().into(), self.peers())
    }

    /// The ClusterIP of the last Service.
    pub(super) fn last(&self) -> SocketAddr {
        self.catalogue.last()
    }

    /// Its EndpointSlice, with server 0 or 1 behind it.
    pub(super) fn last_slice(&self, server: usize) -> Value {
        let mut slice = self.catalogue.last_slice(server);
        dress(&mut slice);
        slice
    }
}

/// Adds what the API server and the controllers of a real cluster write into a Service or an EndpointSlice.
fn dress(object: &mut Value) {
    let is_slice = object["kind"] == "EndpointSlice";
    let metadata = &mut object["metadata"];
    metadata["generation"] = 3.into();
    if !is_slice {
        metadata["labels"] = json!({"app.kubernetes.io/name": metadata["name"], "app.kubernetes.io/part-of": "shop"});
        metadata["managedFields"] =
            managed("kubectl-client-side-apply", &["f:spec", "f:ports", "f:selector", "f:type"]);
        object["spec"]["sessionAffinity"] = "None".into();
        object["spec"]["internalTrafficPolicy"] = "Cluster".into();
        object["spec"]["ipFamilyPolicy"] = "SingleStack".into();
        object["status"] = json!({"loadBalancer": {}});
        return;
    }
    let service = metadata["labels"]["kubernetes.io/service-name"].clone();
    metadata["generateName"] = format!("{}-", service.as_str().unwrap_or_default()).into();
    metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io".into();
    metadata["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-21T06:00:00Z"});
    metadata["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Service", "name": service, "uid": UID, "controller": true, "blockOwnerDeletion": true,
    }]);
    metadata["managedFields"] =
        managed("kube-controller-manager", &["f:addressType", "f:endpoints", "f:metadata", "f:ports"]);
    for endpoint in object["endpoints"].as_array_mut().into_iter().flatten() {
        endpoint["zone"] = "eu-central-1a".into();
        endpoint["targetRef"] =
            json!({"kind": "Pod", "namespace": "default", "name": "web-5d4f8c7b9-x7k2p", "uid": UID});
    }
}

const UID: &str = "0f4b6a1e-7d0c-4a65-9a38-4f1b1e6f2c11";

/// Who wrote which field, as every object of a real server says.
fn managed(manager: &str, fields: &[&str]) -> Value {
    let fields: serde_json::Map<_, _> =
        fields.iter().map(|field| ((*field).to_owned(), json!({".": {}, "f:name": {}, "f:value": {}}))).collect();
    json!([{
        "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T06:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }])
}

/// A Node as kubelet keeps it; with flannel's annotations if it is a peer.
fn node(name: &str, subnet: Ipv4Addr, peer: Option<u32>) -> Value {
    let cidr = format!("{subnet}/24");
    let annotations = peer.map(|number| {
        let [.., high, low] = number.to_be_bytes();
        json!({
            "flannel.alpha.coreos.com/backend-data": format!(r#"{{"VNI":1,"VtepMAC":"02:00:00:00:{high:02x}:{low:02x}"}}"#),
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/public-ip": format!("172.31.{high}.{low}"),
            "node.alpha.kubernetes.io/ttl": "0",
            "volumes.kubernetes.io/controller-managed-attach-detach": "true",
        })
    });
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "KubeletReport", "message": "kubelet reports what it has found out",
            "lastHeartbeatTime": "2026-11-21T06:00:00Z", "lastTransitionTime": "2026-11-21T05:00:00Z",
        })
    };
    let image = |number: usize| {
        let name = format!("registry.example.com/shop/service-{number}");
        json!({"names": [format!("{name}@sha256:{}", "0123456789abcdef".repeat(4)), format!("{name}:v1.2.3")], "sizeBytes": 12_345_678})
    };
    let room = json!({"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi", "hugepages-2Mi": "0"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": annotations.unwrap_or_else(|| json!({})),
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "eu-central-1a"},
            "managedFields": managed("kubelet", &["f:metadata", "f:status", "f:conditions", "f:images", "f:nodeInfo"]),
        },
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": name}],
            "allocatable": room,
            "capacity": room,
            "conditions": [
                condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                condition("PIDPressure", "False"), condition("Ready", "True"),
            ],
            "images": (0..IMAGES).map(image).collect::<Vec<_>>(),
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian GNU/Linux 13", "containerRuntimeVersion": "containerd://2.1"},
        },
    })
}
