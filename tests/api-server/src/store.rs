//! The objects and the history of their changes.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// Where an object is: resource, namespace (empty for a cluster-wide one), name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    resource: String,
    namespace: String,
    name: String,
}

impl Address {
    pub(crate) fn cluster(resource: &str, name: &str) -> Self {
        Self::namespaced(resource, "", name)
    }

    /// Where an object belongs by its kind and metadata; `None` if one of them is missing.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let resource = format!("{}s", object["kind"].as_str()?.to_lowercase());
        let name = object["metadata"]["name"].as_str()?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        Some(Self::namespaced(&resource, if resource == "nodes" { "" } else { namespace }, name))
    }

    pub(crate) fn namespaced(resource: &str, namespace: &str, name: &str) -> Self {
        Self { resource: resource.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.resource, self.namespace, self.name)
    }
}

/// One change: the object before and after it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// All objects, and every change since the start: tests are short, so nothing is compacted.
#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeMap<Address, Value>,
    history: Vec<Change>,
}

impl Store {
    /// The resource version of the last change.
    pub(crate) fn newest(&self) -> u64 {
        self.history.last().map_or(0, |change| change.version)
    }

    /// All objects of a resource, sorted.
    pub(crate) fn list(&self, resource: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |(address, _)| address.resource == resource).map(|(_, object)| object)
    }

    pub(crate) fn get(&self, address: &Address) -> Option<&Value> {
        self.objects.get(address)
    }

    /// Changes after `version`.
    pub(crate) fn since(&self, version: u64) -> &[Change] {
        &self.history[self.history.partition_point(|change| change.version <= version)..]
    }

    /// Stores an object under its address, with the metadata the server owns.
    pub(crate) fn put(&mut self, address: Address, mut object: Value) -> &Value {
        let version = self.newest() + 1;
        let before = self.objects.get(&address).cloned();
        let metadata = object["metadata"].as_object().cloned().unwrap_or_default();
        let mut metadata = Value::Object(metadata);
        metadata["name"] = address.name.clone().into();
        if !address.namespace.is_empty() {
            metadata["namespace"] = address.namespace.clone().into();
        }
        metadata["resourceVersion"] = version.to_string().into();
        metadata["uid"] =
            before.as_ref().map_or_else(|| format!("uid-{version}").into(), |old| old["metadata"]["uid"].clone());
        object["metadata"] = metadata;
        self.record(version, &address.resource, before, Some(object.clone()));
        self.objects.entry(address).insert_entry(object).into_mut()
    }

    /// Removes an object and returns it.
    pub(crate) fn delete(&mut self, address: &Address) -> Option<Value> {
        let object = self.objects.remove(address)?;
        let version = self.newest() + 1;
        self.record(version, &address.resource, Some(object.clone()), None);
        Some(object)
    }

    fn record(&mut self, version: u64, resource: &str, before: Option<Value>, after: Option<Value>) {
        self.history.push(Change { version, resource: resource.to_owned(), before, after });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Address, Store};

    #[test]
    fn versions_grow_and_changes_are_kept() {
        let mut store = Store::default();
        let address = Address::namespaced("services", "default", "web");
        store.put(address.clone(), json!({"spec": {"a": 1}}));
        let stored = store.put(address.clone(), json!({"spec": {"a": 2}})).clone();
        assert_eq!(
            stored["metadata"],
            json!({"name": "web", "namespace": "default", "resourceVersion": "2", "uid": "uid-1"})
        );
        assert_eq!(store.since(1).len(), 1);
        assert!(store.delete(&address).is_some() && store.delete(&address).is_none());
        assert_eq!(store.newest(), 3);
        assert_eq!(store.list("services").count(), 0);
    }
}
