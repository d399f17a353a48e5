//! The objects and the history of their changes.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Deref,
    sync::Arc,
};

use serde_json::Value;

use crate::kinds;

/// Changes that are remembered. Who asks for older ones has to list again (410), as etcd compacts a real server's.
const HISTORY: usize = 10_000;

/// RFC 3339, to the second, as the API writes times.
const SECONDS: &str = "%Y-%m-%dT%H:%M:%SZ";

/// Where an object is: resource, namespace (empty for a cluster-wide one), name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    resource: String,
    namespace: String,
    name: String,
}

impl Address {
    /// Where an object belongs by its kind and metadata; `None` if one of them is missing.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let kind = kinds::by_name(object["kind"].as_str()?)?;
        let name = object["metadata"]["name"].as_str()?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        Some(Self::namespaced(kind.plural, if kind.namespaced { namespace } else { "" }, name))
    }

    pub(crate) fn namespaced(resource: &str, namespace: &str, name: &str) -> Self {
        Self { resource: resource.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {:?}", self.resource, self.name),
            namespace => write!(f, "{} {:?} in namespace {namespace}", self.resource, self.name),
        }
    }
}

/// An object as it is stored, with its text: many clients list it, and a real server writes it only once too.
#[derive(Debug)]
pub(crate) struct Stored {
    object: Value,
    text: String,
}

impl Stored {
    fn new(object: Value) -> Self {
        Self { text: object.to_string(), object }
    }

    /// In JSON.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Deref for Stored {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.object
    }
}

/// One change: the object before and after it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: String,
    pub(crate) before: Option<Arc<Stored>>,
    pub(crate) after: Option<Arc<Stored>>,
}

/// All objects, and the last changes.
#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeMap<Address, Arc<Stored>>,
    history: VecDeque<Change>,
    newest: u64,
    /// Versions at or after this one can still be watched from.
    oldest: u64,
}

impl Store {
    /// An empty store whose versions begin after `version`.
    pub(crate) fn starting_at(version: u64) -> Self {
        Self { newest: version, oldest: version, ..Self::default() }
    }

    /// The resource version of the last change.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// All objects of a resource, sorted.
    pub(crate) fn list(&self, resource: &str) -> impl Iterator<Item = &Arc<Stored>> {
        self.objects.iter().filter(move |(address, _)| address.resource == resource).map(|(_, object)| object)
    }

    pub(crate) fn get(&self, address: &Address) -> Option<&Arc<Stored>> {
        self.objects.get(address)
    }

    /// Changes after `version`; `None` if they are forgotten, or of another server's time.
    pub(crate) fn since(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        let first = self.history.partition_point(|change| change.version <= version);
        (self.oldest..=self.newest).contains(&version).then(|| self.history.range(first..))
    }

    /// Stores an object under its address, with the metadata the server owns.
    pub(crate) fn put(&mut self, address: Address, mut object: Value) -> Arc<Stored> {
        let version = self.newest + 1;
        let before = self.objects.get(&address).cloned();
        let metadata = object["metadata"].as_object().cloned().unwrap_or_default();
        let mut metadata = Value::Object(metadata);
        metadata["name"] = address.name.clone().into();
        if !address.namespace.is_empty() {
            metadata["namespace"] = address.namespace.clone().into();
        }
        metadata["resourceVersion"] = version.to_string().into();
        let first = |field: &str, value: String| match &before {
            Some(old) => old["metadata"][field].clone(),
            None => value.into(),
        };
        metadata["uid"] = first("uid", format!("uid-{version}"));
        metadata["creationTimestamp"] =
            first("creationTimestamp", jiff::Timestamp::now().strftime(SECONDS).to_string());
        object["metadata"] = metadata;
        let stored = Arc::new(Stored::new(object));
        self.record(version, &address.resource, before, Some(Arc::clone(&stored)));
        self.objects.insert(address, Arc::clone(&stored));
        stored
    }

    /// Removes an object and returns it.
    pub(crate) fn delete(&mut self, address: &Address) -> Option<Arc<Stored>> {
        let object = self.objects.remove(address)?;
        let version = self.newest + 1;
        self.record(version, &address.resource, Some(Arc::clone(&object)), None);
        Some(object)
    }

    fn record(&mut self, version: u64, resource: &str, before: Option<Arc<Stored>>, after: Option<Arc<Stored>>) {
        self.newest = version;
        self.history.push_back(Change { version, resource: resource.to_owned(), before, after });
        if self.history.len() > HISTORY {
            self.oldest = self.history.pop_front().map_or(0, |change| change.version);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Address, HISTORY, Store};

    #[test]
    fn versions_grow_and_changes_are_kept() {
        let mut store = Store::starting_at(40);
        let address = Address::namespaced("services", "default", "web");
        let created = store.put(address.clone(), json!({"spec": {"a": 1}}))["metadata"]["creationTimestamp"].clone();
        let stored = store.put(address.clone(), json!({"spec": {"a": 2}}));
        assert_eq!(serde_json::from_str::<serde_json::Value>(stored.text()).ok().as_ref(), Some(&**stored));
        let expected = json!({
            "name": "web", "namespace": "default", "resourceVersion": "42", "uid": "uid-41", "creationTimestamp": created,
        });
        assert_eq!(stored["metadata"], expected);
        assert_eq!(store.since(41).map(Iterator::count), Some(1));
        assert!(store.delete(&address).is_some() && store.delete(&address).is_none());
        assert_eq!(store.newest(), 43);
        assert_eq!(store.list("services").count(), 0);
    }

    #[test]
    fn versions_of_another_time_and_forgotten_ones_are_gone() {
        let mut store = Store::starting_at(7);
        assert!(store.since(6).is_none() && store.since(8).is_none() && store.since(7).is_some());
        let address = Address::namespaced("services", "default", "web");
        for number in 0..=HISTORY {
            store.put(address.clone(), json!({"spec": {"number": number}}));
        }
        assert!(store.since(7).is_none());
        assert_eq!(store.since(8).map(Iterator::count), Some(HISTORY));
    }
}
