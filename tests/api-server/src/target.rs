//! What a request is about: the parts of its path (Kubernetes API concepts, "Resource URIs").

use crate::store::Address;

/// A collection or one object of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `v1`, or group and version.
    pub(crate) api_version: String,
    /// Plural of the kind.
    pub(crate) resource: String,
    /// Empty for a cluster-wide object or a list of all namespaces.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    /// As `status`; empty for the object itself.
    pub(crate) subresource: String,
}

impl Target {
    /// Reads `/api/v1/...` and `/apis/GROUP/VERSION/...`; `None` if the path names no collection.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let api_version = match parts.next()? {
            "api" => parts.next()?.to_owned(),
            "apis" => format!("{}/{}", parts.next()?, parts.next()?),
            _ => return None,
        };
        let mut rest: Vec<&str> = parts.collect();
        // `/namespaces/x` is the Namespace itself, `/namespaces/x/services` what is in it.
        let mut namespace = "";
        if let ["namespaces", name, _, ..] = rest[..] {
            namespace = name;
            rest.drain(..2);
        }
        let (resource, name, subresource) = match rest[..] {
            [resource] => (resource, "", ""),
            [resource, name] => (resource, name, ""),
            [resource, name, subresource] => (resource, name, subresource),
            _ => return None,
        };
        let owned = str::to_owned;
        Some(Self {
            api_version,
            resource: owned(resource),
            namespace: owned(namespace),
            name: owned(name),
            subresource: owned(subresource),
        })
    }

    /// Where its object is stored.
    pub(crate) fn address(&self) -> Address {
        Address::namespaced(&self.resource, &self.namespace, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    fn parts(path: &str) -> Option<[String; 5]> {
        let target = Target::parse(path)?;
        Some([target.api_version, target.namespace, target.resource, target.name, target.subresource])
    }

    #[test]
    fn paths_name_collections_objects_and_subresources() {
        let is = |path: &str, expected: [&str; 5]| assert_eq!(parts(path), Some(expected.map(str::to_owned)), "{path}");
        is("/api/v1/services", ["v1", "", "services", "", ""]);
        is("/api/v1/nodes/n1/status", ["v1", "", "nodes", "n1", "status"]);
        is("/api/v1/namespaces", ["v1", "", "namespaces", "", ""]);
        is("/api/v1/namespaces/default", ["v1", "", "namespaces", "default", ""]);
        is("/api/v1/namespaces/a/services/web", ["v1", "a", "services", "web", ""]);
        is(
            "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices",
            ["discovery.k8s.io/v1", "a", "endpointslices", "", ""],
        );
        assert_eq!(parts("/api/v1"), None);
        assert_eq!(parts("/version"), None);
    }
}
