//! A pod: a network namespace that the real `weft-cni` connected.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    Place, Server,
    cluster::pick,
    cni::{Attachment, ConfList},
    run::delete_netns,
};

/// Port of a pod's server.
const SERVER_PORT: u16 = 8080;

/// A pod of a node. Dropping it calls DEL and removes its namespace.
#[derive(Debug)]
pub struct Pod {
    place: Place,
    node: String,
    netns_name: String,
    attachment: Option<Attachment>,
    addresses: Vec<IpAddr>,
}

impl Pod {
    pub(crate) fn add(
        place: Place,
        node: &Place,
        node_directory: &Path,
        netns_name: String,
        runtime_config: Value,
    ) -> Result<Self> {
        let conf = ConfList::read(&node_directory.join("cni-conf"))?.with_runtime_config(runtime_config);
        let mut pod =
            Self { place, node: node.label().to_owned(), netns_name, attachment: None, addresses: Vec::new() };
        let attachment = conf
            .add(node, &node_directory.join("cni-bin"), &pod.netns_name, pod.place.label(), pod.place.netns())
            .with_context(|| format!("ADD of pod {}", pod.place.label()))?;
        pod.addresses = attachment.addresses()?;
        pod.attachment = Some(attachment);
        Ok(pod)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.place.label()
    }

    /// Name of its node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its addresses, as `weft-cni` reported them.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// A port at its IPv4 address.
    ///
    /// # Errors
    /// It has none.
    pub fn socket_v4(&self, port: u16) -> Result<SocketAddr> {
        let address =
            pick(&self.addresses, false).with_context(|| format!("pod {} has no IPv4 address", self.name()))?;
        Ok(SocketAddr::new(address, port))
    }

    /// A port at its IPv6 address.
    ///
    /// # Errors
    /// It has none.
    pub fn socket_v6(&self, port: u16) -> Result<SocketAddr> {
        let address =
            pick(&self.addresses, true).with_context(|| format!("pod {} has no IPv6 address", self.name()))?;
        Ok(SocketAddr::new(address, port))
    }

    /// Starts a server on port 8080 that answers with the pod's name.
    ///
    /// # Errors
    /// The port is taken.
    pub fn serve(&self) -> Result<Server> {
        self.place.serve_as(self.name(), SERVER_PORT)
    }

    /// Calls DEL and removes the namespace, as dropping does, but tells what went wrong.
    ///
    /// # Errors
    /// DEL fails.
    pub fn remove(mut self) -> Result<()> {
        self.take_down()
    }

    /// Leaves it as it is.
    pub fn keep(mut self) {
        self.attachment = None;
        self.netns_name.clear();
    }

    fn take_down(&mut self) -> Result<()> {
        let name = std::mem::take(&mut self.netns_name);
        // Kept, or the whole run is gone already.
        if name.is_empty() || !self.place.netns().exists() {
            return Ok(());
        }
        let deleted = match self.attachment.take() {
            Some(attachment) => attachment.del(),
            None => Ok(()),
        };
        delete_netns(&name)?;
        deleted.with_context(|| format!("DEL of pod {}", self.place.label()))
    }
}

impl Deref for Pod {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            eprintln!("weft-tests: {error:#}");
        }
    }
}
