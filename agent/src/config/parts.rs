//! The small values of the configuration, each with its parser and the message for what it does not accept.

use std::path::PathBuf;

/// Which parts of the agent run (`--components`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Components {
    /// Pod network.
    pub(crate) overlay: bool,
    /// Services.
    pub(crate) proxy: bool,
    /// CNI configuration.
    pub(crate) cni: bool,
}

impl Components {
    /// Every part.
    pub(crate) const ALL: Self = Self { overlay: true, proxy: true, cni: true };

    /// Reads a comma list.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let mut components = Self::default();
        for name in super::comma_list(list) {
            match name.as_str() {
                "overlay" => components.overlay = true,
                "proxy" => components.proxy = true,
                "cni" => components.cni = true,
                other => return Err(format!("{other:?} is no component; there are overlay, proxy and cni")),
            }
        }
        match components {
            Self { overlay: false, proxy: false, cni: false } => Err("names no component".to_owned()),
            Self { overlay: false, cni: true, .. } => {
                Err("cni needs overlay, which knows the node's pod subnet".to_owned())
            }
            _ => Ok(components),
        }
    }

    /// Names of those that run.
    pub(crate) fn names(self) -> Vec<String> {
        let all = [(self.overlay, "overlay"), (self.proxy, "proxy"), (self.cni, "cni")];
        all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()).collect()
    }
}

/// Where Services, EndpointSlices and the Node come from (`--source`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// Manifests in a directory.
    Dir(PathBuf),
    /// The Kubernetes API.
    Kube(KubeAccess),
}

/// How to reach the API server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KubeAccess {
    /// kubeconfig file; `None`: in-cluster configuration.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// URL that overrides the kubeconfig's.
    pub(crate) master: Option<String>,
    /// Whether lists that have lost most objects at once are believed.
    pub(crate) trust_empty_lists: bool,
}

impl SourceKind {
    /// Reads `kube` or `dir:PATH`.
    pub(crate) fn parse(text: &str, access: KubeAccess) -> Result<Self, String> {
        match (text, text.strip_prefix("dir:")) {
            ("kube", _) => Ok(Self::Kube(access)),
            (_, Some(path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            _ => Err("must be kube or dir:PATH".to_owned()),
        }
    }
}
