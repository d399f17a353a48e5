//! Rules of a kube-proxy that ran on this node before: removed, or left alone and reported. On a thread of its own, for all of
//! iptables has to be listed, which takes seconds on a large node.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use tracing::{info, warn};
use weft_proxy::kube_proxy::{self, KubeProxyRules};

/// What is left of a kube-proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Takeover {
    remove: bool,
    left: Arc<Mutex<Vec<String>>>,
}

impl Takeover {
    /// `remove`: `--take-over-kube-proxy`.
    pub(crate) fn new(remove: bool) -> Self {
        Self { remove, left: Arc::default() }
    }

    /// To be called once, when the data planes carry everything.
    pub(crate) fn start(&self) {
        let takeover = self.clone();
        let started = thread::Builder::new().name("takeover".to_owned()).spawn(move || takeover.run());
        if let Err(error) = started {
            warn!(%error, "cannot look for the rules of a kube-proxy");
        }
    }

    /// What was found and left alone.
    pub(crate) fn left(&self) -> Vec<String> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn run(&self) {
        let names = |rules: &[KubeProxyRules]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
        if self.remove {
            match kube_proxy::remove() {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => info!(removed = names(&removed).join(", "), "took over from a kube-proxy"),
                Err(error) => warn!(%error, "cannot remove all rules of a kube-proxy"),
            }
        }
        match kube_proxy::find() {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                let left = names(&left);
                let hint = "stop it, and remove them with --take-over-kube-proxy or kube-proxy --cleanup";
                warn!(rules = left.join(", "), hint, "a kube-proxy left rules on this node; new connections are ours");
                *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
            }
            Err(error) => warn!(%error, "cannot look for the rules of a kube-proxy"),
        }
    }
}
