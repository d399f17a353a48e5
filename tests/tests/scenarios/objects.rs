//! Services, as a scenario describes them, and as Kubernetes objects.

use serde_json::{Value, json};

use crate::world::Addresses;
pub(crate) use crate::{
    at::At,
    slices::{Endpoint, Server, Slice, slice},
};

/// Address family of one instance of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// As `ipFamilies` and `addressType` spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    name: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) number: u16,
    target: u16,
}

/// A value that holds addresses of the Service.
type Addressed = fn(&At) -> Value;

/// A Service: ClusterIP, both families, port 80 to 8080 by TCP, no endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) ports: Vec<Port>,
    node_ports: bool,
    slices: Vec<Slice>,
    fields: Vec<(&'static str, Value)>,
    addressed: Vec<(&'static str, Addressed)>,
}

pub(crate) fn service() -> Service {
    let port = Port { name: "main", protocol: "TCP", number: 80, target: 8080 };
    Service { ports: vec![port], node_ports: false, slices: Vec::new(), fields: Vec::new(), addressed: Vec::new() }
}

impl Service {
    /// Endpoints, in a slice of their own.
    pub(crate) fn on<E: Into<Endpoint>>(self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.slice(slice(endpoints))
    }

    pub(crate) fn slice(mut self, slice: Slice) -> Self {
        self.slices.push(slice);
        self
    }

    /// Its only port is one of UDP.
    pub(crate) fn udp(mut self) -> Self {
        self.ports[0].protocol = "UDP";
        self
    }

    /// One more port.
    pub(crate) fn port(mut self, name: &'static str, protocol: &'static str, number: u16, target: u16) -> Self {
        self.ports.push(Port { name, protocol, number, target });
        self
    }

    /// Type NodePort: a NodePort for each port.
    pub(crate) fn node_port(mut self) -> Self {
        self.node_ports = true;
        self.set("/spec/type", json!("NodePort"))
    }

    /// An external IP.
    pub(crate) fn external_ip(self) -> Self {
        self.set_at("/spec/externalIPs", |at| json!(at.both(At::external)))
    }

    /// Type LoadBalancer, without NodePorts, with an address of each family.
    pub(crate) fn load_balancer(self) -> Self {
        self.set("/spec/type", json!("LoadBalancer")).set_at("/status/loadBalancer/ingress", |at| {
            at.both(At::load_balancer).map(|ip| json!({ "ip": ip })).into()
        })
    }

    pub(crate) fn external_local(self) -> Self {
        self.set("/spec/externalTrafficPolicy", json!("Local"))
    }

    pub(crate) fn internal_local(self) -> Self {
        self.set("/spec/internalTrafficPolicy", json!("Local"))
    }

    pub(crate) fn affinity(self, seconds: u32) -> Self {
        self.set("/spec/sessionAffinity", json!("ClientIP"))
            .set("/spec/sessionAffinityConfig/clientIP/timeoutSeconds", json!(seconds))
    }

    pub(crate) fn source_ranges(self, ranges: &[&str]) -> Self {
        self.set("/spec/loadBalancerSourceRanges", json!(ranges))
    }

    /// Sets a field, by JSON pointer; null removes it.
    pub(crate) fn set(mut self, pointer: &'static str, value: Value) -> Self {
        self.fields.push((pointer, value));
        self
    }

    /// The same for a value that holds the Service's own addresses.
    pub(crate) fn set_at(mut self, pointer: &'static str, value: Addressed) -> Self {
        self.addressed.push((pointer, value));
        self
    }

    /// The objects.
    pub(crate) fn objects(&self, at: &At, addresses: &Addresses) -> Vec<Value> {
        let (namespace, name) = (at.namespace(), at.name());
        let ports = self.ports.iter().enumerate().map(|(index, port)| {
            let mut object = json!({
                "name": port.name, "protocol": port.protocol, "port": port.number, "targetPort": port.target,
            });
            if self.node_ports {
                object["nodePort"] = at.node_port(index).into();
            }
            object
        });
        let ips = at.both(At::cluster_ip);
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": ["IPv4", "IPv6"],
                "ports": ports.collect::<Vec<_>>(),
            },
        });
        self.fields.iter().for_each(|(pointer, value)| set(&mut service, pointer, value.clone()));
        self.addressed.iter().for_each(|(pointer, value)| set(&mut service, pointer, value(at)));
        let slices = self.slices.iter().enumerate().flat_map(|(number, slice)| {
            Family::BOTH.map(|family| self.slice_object(slice, number, family, at, addresses))
        });
        std::iter::once(service).chain(slices).collect()
    }

    fn slice_object(&self, slice: &Slice, number: usize, family: Family, at: &At, addresses: &Addresses) -> Value {
        let ports = self
            .ports
            .iter()
            .map(|port| json!({"name": port.name, "protocol": port.protocol, "port": port.target}))
            .collect();
        let mut object = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": at.namespace(),
                "name": format!("{}-{number}-{}", at.name(), family.name().to_lowercase()),
                "labels": {"kubernetes.io/service-name": at.name()},
            },
            "addressType": family.name(),
            "ports": slice.ports.clone().unwrap_or(Value::Array(ports)),
            "endpoints": slice.endpoints.iter().map(|endpoint| endpoint.object(family, addresses)).collect::<Vec<_>>(),
        });
        slice.fields.iter().for_each(|(pointer, value)| set(&mut object, pointer, value.clone()));
        object
    }
}

/// Sets a field by JSON pointer, making the objects on the way; null removes it.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parents, field) = pointer.rsplit_once('/').expect("a JSON pointer");
    // RFC 6901: ~1 is a slash.
    let unescaped = |name: &str| name.replace("~1", "/");
    let parent = parents.split('/').skip(1).fold(object, |object, name| match name.parse::<usize>() {
        Ok(index) => &mut object[index],
        Err(_) => &mut object[unescaped(name)],
    });
    if value.is_null() {
        parent.as_object_mut().expect("an object").remove(&unescaped(field));
    } else {
        parent[unescaped(field)] = value;
    }
}
