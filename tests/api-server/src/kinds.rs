//! The kinds that discovery names, so that `kubectl` finds them. Paths of other kinds are served all the same.

/// One kind of object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// `v1`, or group and version.
    pub(crate) api_version: &'static str,
    /// `kind` of its objects.
    pub(crate) kind: &'static str,
    /// Its name in paths.
    pub(crate) plural: &'static str,
    /// What `kubectl` takes instead of the plural.
    pub(crate) short: &'static str,
    /// Whether its objects are in namespaces.
    pub(crate) namespaced: bool,
}

const fn kind(
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    namespaced: bool,
) -> Kind {
    Kind { api_version, kind, plural, short, namespaced }
}

/// All kinds, by group.
pub(crate) const KINDS: &[Kind] = &[
    kind("v1", "Namespace", "namespaces", "ns", false),
    kind("v1", "Node", "nodes", "no", false),
    kind("v1", "Service", "services", "svc", true),
    kind("v1", "Pod", "pods", "po", true),
    kind("v1", "ConfigMap", "configmaps", "cm", true),
    kind("v1", "Secret", "secrets", "", true),
    kind("v1", "ServiceAccount", "serviceaccounts", "sa", true),
    kind("v1", "Event", "events", "ev", true),
    kind("apps/v1", "DaemonSet", "daemonsets", "ds", true),
    kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", "", true),
    kind("events.k8s.io/v1", "Event", "events", "ev", true),
    kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", "pmon", true),
    kind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules", "promrule", true),
    kind("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", "", false),
    kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", "", false),
    kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", "", false),
];

impl Kind {
    /// The API group; empty for the core one.
    pub(crate) fn group(&self) -> &'static str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The version without its group.
    pub(crate) fn version(&self) -> &'static str {
        self.api_version.split_once('/').map_or(self.api_version, |(_, version)| version)
    }
}

/// The kind with this plural.
pub(crate) fn by_plural(plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.plural == plural)
}

/// The kind that an object says it is of.
pub(crate) fn by_name(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.kind == name)
}
