//! EndpointSlices and who is in them, as a scenario describes them.

use serde_json::{Value, json};

use crate::{objects::Family, world::Addresses};

/// A process that answers: in a pod of node n1 (a1, a2), in a pod of n2 (b1, b2), or on the host network of n1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Server {
    A1,
    A2,
    B1,
    B2,
    N1,
}

impl Server {
    pub(crate) const ALL: [Self; 5] = [Self::A1, Self::A2, Self::B1, Self::B2, Self::N1];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::A1 => "a1",
            Self::A2 => "a2",
            Self::B1 => "b1",
            Self::B2 => "b2",
            Self::N1 => "n1",
        }
    }

    pub(crate) const fn node(self) -> &'static str {
        match self {
            Self::A1 | Self::A2 | Self::N1 => "n1",
            Self::B1 | Self::B2 => "n2",
        }
    }

    /// As an endpoint: `conditions` as given, for example `{"ready": false}`.
    pub(crate) fn is(self, conditions: &Value) -> Endpoint {
        Endpoint { fields: json!({ "conditions": conditions }), ..self.into() }
    }

    /// Not ready, but still serving while it ends.
    pub(crate) fn terminating(self) -> Endpoint {
        self.is(&json!({"ready": false, "serving": true, "terminating": true}))
    }

    pub(crate) fn not_ready(self) -> Endpoint {
        self.is(&json!({"ready": false, "serving": false, "terminating": false}))
    }

    /// With a hint for zones.
    pub(crate) fn for_zones(self, zones: &[&str]) -> Endpoint {
        let zones: Vec<_> = zones.iter().map(|name| json!({ "name": name })).collect();
        Endpoint { fields: json!({ "conditions": {"ready": true}, "hints": {"forZones": zones} }), ..self.into() }
    }

    /// With a hint for nodes.
    pub(crate) fn for_nodes(self, nodes: &[&str]) -> Endpoint {
        let nodes: Vec<_> = nodes.iter().map(|name| json!({ "name": name })).collect();
        Endpoint { fields: json!({ "conditions": {"ready": true}, "hints": {"forNodes": nodes} }), ..self.into() }
    }
}

/// An endpoint of a slice.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    server: Server,
    /// With a second address, this one's.
    also: Option<Server>,
    /// Everything but address and node name.
    fields: Value,
}

impl From<Server> for Endpoint {
    fn from(server: Server) -> Self {
        Self { server, also: None, fields: json!({"conditions": {"ready": true}}) }
    }
}

impl Endpoint {
    /// Sets or replaces a field of the endpoint.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.fields[field] = value;
        self
    }

    /// With another server's address as second one.
    pub(crate) fn also(self, server: Server) -> Self {
        Self { also: Some(server), ..self }
    }

    pub(crate) fn object(&self, family: Family, addresses: &Addresses) -> Value {
        let servers = std::iter::once(self.server).chain(self.also);
        let ips: Vec<_> = servers.map(|server| addresses.of(server, family)).collect();
        let mut object = json!({"addresses": ips, "nodeName": self.server.node()});
        let fields = self.fields.as_object().into_iter().flatten();
        for (name, value) in fields {
            object[name] = value.clone();
        }
        object
    }
}

/// A slice, made once for each family.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) endpoints: Vec<Endpoint>,
    /// Other ports than the Service's.
    pub(crate) ports: Option<Value>,
    pub(crate) fields: Vec<(&'static str, Value)>,
}

/// A slice of these endpoints, with the Service's ports.
pub(crate) fn slice<E: Into<Endpoint>>(endpoints: impl IntoIterator<Item = E>) -> Slice {
    Slice { endpoints: endpoints.into_iter().map(Into::into).collect(), ports: None, fields: Vec::new() }
}

impl Slice {
    /// Other ports than the Service's.
    pub(crate) fn ports(mut self, ports: Value) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Sets a field, by JSON pointer; null removes it.
    pub(crate) fn set(mut self, pointer: &'static str, value: Value) -> Self {
        self.fields.push((pointer, value));
        self
    }
}
