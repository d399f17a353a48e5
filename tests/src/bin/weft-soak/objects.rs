//! The Services of a soak and their EndpointSlices: how they read as manifests, and how they change at random.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::addresses::{BACKEND_PORTS, Frontend, TCP_HOSTS, UDP_HOSTS, backend, is_dual_stack, is_udp, node_port};

/// Namespace of all objects.
pub(crate) const NAMESPACE: &str = "soak";
/// The node that is soaked.
pub(crate) const NODE: &str = "n1";
/// Slices of a Service: two of IPv4, so that they have to be united, and one of IPv6.
const SLICES: [Slot; 3] =
    [Slot { v6: false, odd: false }, Slot { v6: false, odd: true }, Slot { v6: true, odd: false }];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    v6: bool,
    /// Whether it has the hosts of odd numbers: an endpoint is in one slice only.
    odd: bool,
}

/// A Service as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    pub(crate) affinity: Option<u32>,
    pub(crate) external_ip: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// What an endpoint says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Ready,
    Terminating,
    /// Neither ready nor serving.
    Unusable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: u16,
    pub(crate) local: bool,
    pub(crate) condition: Condition,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) v6: bool,
    pub(crate) port: u16,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// All objects of one Service.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    number: u32,
    /// `None` while it is deleted.
    pub(crate) spec: Option<Spec>,
    /// By slot; `None` where there is no such object.
    pub(crate) slices: [Option<Slice>; 3],
}

/// A file to write, or to remove.
#[derive(Debug)]
pub(crate) struct FileChange {
    pub(crate) file: String,
    pub(crate) content: Option<String>,
    /// For people.
    pub(crate) what: String,
}

impl Objects {
    pub(crate) fn new(number: u32, rng: &mut Rng) -> Self {
        let mut objects = Self { number, spec: Some(Spec::random(rng)), slices: [None, None, None] };
        objects.slices[0] = Some(objects.random_slice(SLICES[0], rng));
        if is_dual_stack(number) {
            objects.slices[2] = Some(objects.random_slice(SLICES[2], rng));
        }
        objects
    }

    /// Everything, as files.
    pub(crate) fn files(&self) -> impl Iterator<Item = FileChange> {
        (0..=SLICES.len()).filter_map(|object| {
            let change = self.file(object);
            change.content.is_some().then_some(change)
        })
    }

    /// Changes one object; what to write for it. `None`: the dice fell so that nothing differs.
    pub(crate) fn change(&mut self, rng: &mut Rng) -> Option<FileChange> {
        let before = (self.spec.clone(), self.slices.clone());
        // Endpoints change more often than Services do.
        let object = if rng.u32(..100) < 15 {
            self.change_spec(rng);
            SLICES.len()
        } else {
            let slot = if is_dual_stack(self.number) { rng.usize(..3) } else { rng.usize(..2) };
            self.change_slice(slot, rng);
            slot
        };
        (before != (self.spec.clone(), self.slices.clone())).then(|| self.file(object))
    }

    fn change_spec(&mut self, rng: &mut Rng) {
        let Some(spec) = &mut self.spec else {
            self.spec = Some(Spec::random(rng));
            return;
        };
        match rng.u32(..10) {
            0 => self.spec = None,
            1..3 => self.spec = Some(Spec::random(rng)),
            3 => spec.internal_local = !spec.internal_local,
            4 => spec.external_local = !spec.external_local,
            5 => spec.affinity = spec.affinity.is_none().then_some(AFFINITY_SECONDS),
            6 => spec.external_ip = !spec.external_ip,
            _ => spec.kind = Kind::random(rng),
        }
    }

    fn change_slice(&mut self, slot: usize, rng: &mut Rng) {
        let fresh = self.random_slice(SLICES[slot], rng);
        let Some(slice) = &mut self.slices[slot] else {
            self.slices[slot] = Some(fresh);
            return;
        };
        let endpoints = &mut slice.endpoints;
        let known = endpoints.len();
        match rng.u32(..100) {
            0..3 => self.slices[slot] = None,
            3..10 => *slice = fresh,
            10..12 => endpoints.clear(),
            12..20 if !is_udp(self.number) => slice.port = fresh.port,
            // As a rolling update does: one becomes unready, terminates, goes; another one comes.
            20..50 if known > 0 => endpoints[rng.usize(..known)].condition = Condition::random(rng),
            50..75 if known > 0 => drop(endpoints.swap_remove(rng.usize(..known))),
            _ => {
                let new = random_endpoint(self.number, SLICES[slot], rng);
                if known < 8 && endpoints.iter().all(|endpoint| endpoint.host != new.host) {
                    endpoints.push(new);
                }
            }
        }
    }

    fn random_slice(&self, slot: Slot, rng: &mut Rng) -> Slice {
        let mut seen = BTreeSet::new();
        let mut endpoints: Vec<_> = (0..rng.usize(..6)).map(|_| random_endpoint(self.number, slot, rng)).collect();
        endpoints.retain(|endpoint| seen.insert(endpoint.host));
        let port = if is_udp(self.number) { BACKEND_PORTS[0] } else { *rng.choice(&BACKEND_PORTS).expect("not empty") };
        Slice { v6: slot.v6, port, endpoints }
    }

    fn file(&self, object: usize) -> FileChange {
        let name = name(self.number);
        match self.slices.get(object) {
            None => FileChange {
                file: format!("{name}.json"),
                content: self.spec.as_ref().map(|spec| spec.manifest(self.number).to_string()),
                what: format!("Service {NAMESPACE}/{name} {:?}", self.spec),
            },
            Some(slice) => FileChange {
                file: format!("{name}-{object}.json"),
                content: slice.as_ref().map(|slice| slice.manifest(self.number, object).to_string()),
                what: format!("EndpointSlice {NAMESPACE}/{name}-{object} {slice:?}"),
            },
        }
    }
}

/// Long enough that it never runs out in a soak: then time would be part of the state.
const AFFINITY_SECONDS: u32 = 86_400;

pub(crate) fn name(number: u32) -> String {
    format!("s{number:04}")
}

fn random_endpoint(service: u32, slot: Slot, rng: &mut Rng) -> Endpoint {
    let hosts = if is_udp(service) { UDP_HOSTS } else { TCP_HOSTS };
    let host = rng.u16(1..hosts / 2) * 2 + u16::from(slot.odd);
    Endpoint { host, local: rng.bool(), condition: Condition::random(rng) }
}

impl Condition {
    fn random(rng: &mut Rng) -> Self {
        match rng.u32(..10) {
            0 => Self::Unusable,
            1..3 => Self::Terminating,
            _ => Self::Ready,
        }
    }

    fn manifest(self) -> Value {
        match self {
            Self::Ready => json!({"ready": true}),
            Self::Terminating => json!({"ready": false, "serving": true, "terminating": true}),
            Self::Unusable => json!({"ready": false, "serving": false}),
        }
    }
}

impl Kind {
    fn random(rng: &mut Rng) -> Self {
        match rng.u32(..4) {
            0 | 1 => Self::ClusterIp,
            2 => Self::NodePort,
            _ => Self::LoadBalancer,
        }
    }
}

impl Spec {
    fn random(rng: &mut Rng) -> Self {
        Self {
            kind: Kind::random(rng),
            internal_local: rng.u32(..10) == 0,
            external_local: rng.u32(..4) == 0,
            affinity: (rng.u32(..10) == 0).then_some(AFFINITY_SECONDS),
            external_ip: rng.u32(..5) == 0,
        }
    }

    fn manifest(&self, number: u32) -> Value {
        let families: &[bool] = if is_dual_stack(number) { &[false, true] } else { &[false] };
        let ips = |frontend: Frontend| -> Vec<String> {
            families.iter().map(|&v6| frontend.ip(number, v6).to_string()).collect()
        };
        let policy = |local: bool| if local { "Local" } else { "Cluster" };
        let protocol = if is_udp(number) { "UDP" } else { "TCP" };
        let mut port = json!({"name": "main", "protocol": protocol, "port": 80});
        if self.kind != Kind::ClusterIp {
            port["nodePort"] = node_port(number).into();
        }
        let mut spec = json!({
            "type": match self.kind {
                Kind::ClusterIp => "ClusterIP",
                Kind::NodePort => "NodePort",
                Kind::LoadBalancer => "LoadBalancer",
            },
            "clusterIP": Frontend::ClusterIp.ip(number, false).to_string(),
            "clusterIPs": ips(Frontend::ClusterIp),
            "ipFamilies": families.iter().map(|&v6| if v6 { "IPv6" } else { "IPv4" }).collect::<Vec<_>>(),
            "ports": [port],
            "internalTrafficPolicy": policy(self.internal_local),
            "externalTrafficPolicy": policy(self.external_local),
        });
        if self.external_ip {
            spec["externalIPs"] = ips(Frontend::ExternalIp).into();
        }
        if let Some(seconds) = self.affinity {
            spec["sessionAffinity"] = "ClientIP".into();
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
        }
        let ingress: Vec<_> = match self.kind {
            Kind::LoadBalancer => ips(Frontend::LoadBalancer).into_iter().map(|ip| json!({"ip": ip})).collect(),
            _ => Vec::new(),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name(number), "namespace": NAMESPACE},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}},
        })
    }
}

impl Slice {
    fn manifest(&self, number: u32, object: usize) -> Value {
        let protocol = if is_udp(number) { "UDP" } else { "TCP" };
        let endpoints: Vec<_> = self
            .endpoints
            .iter()
            .map(|endpoint| {
                json!({
                    "addresses": [backend(endpoint.host, self.v6).to_string()],
                    "nodeName": if endpoint.local { NODE } else { "elsewhere" },
                    "conditions": endpoint.condition.manifest(),
                })
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{object}", name(number)),
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": name(number)},
            },
            "addressType": if self.v6 { "IPv6" } else { "IPv4" },
            "ports": [{"name": "main", "protocol": protocol, "port": self.port}],
            "endpoints": endpoints,
        })
    }
}
