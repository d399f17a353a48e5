//! The API server of a cluster: the small one of `tests/api-server`, or a real one.

mod real;
mod small;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use serde_json::Value;

use self::{real::Real, small::Small};
use crate::{Binaries, Place};

/// One of the two.
#[derive(Debug)]
pub(crate) enum ApiServer {
    /// In memory, and in trouble on demand.
    Small(Small),
    /// kube-apiserver and etcd.
    Real(Real),
}

impl ApiServer {
    /// The real one from `assets`, whose files go to `directory`; or the small one.
    pub(crate) fn start(
        place: &Place,
        address: Ipv4Addr,
        binaries: &Binaries,
        assets: Option<&Path>,
        directory: &Path,
    ) -> Result<Self> {
        match assets {
            Some(assets) => Real::start(place, address, assets, directory).map(Self::Real),
            None => Small::start(place, address, binaries).map(Self::Small),
        }
    }

    /// The way to it, for agents.
    pub(crate) fn kubeconfig(&self) -> Value {
        match self {
            Self::Small(small) => small.kubeconfig(),
            Self::Real(real) => real.kubeconfig(),
        }
    }

    /// Kills it; agents keep what they have.
    ///
    /// # Errors
    /// It is not running.
    pub(crate) fn kill(&mut self) -> Result<()> {
        match self {
            Self::Small(small) => small.kill(),
            Self::Real(real) => real.kill(),
        }
    }

    /// Starts it again with all objects: the small one with those in `manifests`, and versions that count from 1 again.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) fn restart_with_objects(&mut self, manifests: &Path) -> Result<()> {
        match self {
            Self::Small(small) => small.restart(&["--load", &manifests.display().to_string(), "--first-version", "1"]),
            Self::Real(real) => real.restart(),
        }
    }

    /// Starts it again, with these flags of the small one.
    ///
    /// # Errors
    /// It does not come up, or is a real one.
    pub(crate) fn restart(&mut self, flags: &[&str]) -> Result<()> {
        match self {
            Self::Small(small) => small.restart(flags),
            Self::Real(_) => bail!(ONLY_SMALL),
        }
    }

    /// Makes it misbehave; `{}` ends that.
    pub(crate) fn set_faults(&self, faults: &Value) -> Result<()> {
        match self {
            Self::Small(small) => small.set_faults(faults),
            Self::Real(_) => bail!(ONLY_SMALL),
        }
    }

    /// Creates or replaces an object by server-side apply.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        match self {
            Self::Small(small) => small.apply(object),
            Self::Real(real) => real.apply(object),
        }
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, object: &Value) -> Result<()> {
        match self {
            Self::Small(small) => small.delete(object),
            Self::Real(real) => real.delete(object),
        }
    }

    /// An object as the server has it, by kind and name.
    pub(crate) fn get(&self, object: &Value) -> Result<Value> {
        match self {
            Self::Small(small) => small.get(object),
            Self::Real(real) => real.get(object),
        }
    }
}

const ONLY_SMALL: &str = "a real API server cannot do that: build the cluster with small_api_server()";

/// `KUBEBUILDER_ASSETS`: the directory of a real server's programs.
pub(crate) fn assets() -> Option<PathBuf> {
    std::env::var_os("KUBEBUILDER_ASSETS").filter(|path| !path.is_empty()).map(PathBuf::from)
}
