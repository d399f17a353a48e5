//! A place to attach.

use std::{
    os::fd::{AsFd, AsRawFd},
    process,
    sync::Mutex,
};

use anyhow::{Context, Result};
use serde_json::Value;
use weft_netlink::{Netlink, Netns};

/// A pod's namespace, used again and again.
pub(super) struct Pod {
    pub(super) number: usize,
    /// For plugins.
    pub(super) path: String,
    /// Of the last ADD of each plugin, for DEL.
    pub(super) result: Mutex<Value>,
    netns: Netns,
}

impl Pod {
    pub(super) fn new(number: usize) -> Result<Self> {
        let netns = Netns::create()?;
        netns.run(|| -> Result<()> {
            let netlink = Netlink::open()?;
            let loopback = netlink.link_by_name("lo")?.context("a namespace without lo")?;
            Ok(netlink.set_up(loopback.index)?)
        })??;
        let path = format!("/proc/{}/fd/{}", process::id(), netns.as_fd().as_raw_fd());
        Ok(Self { number, path, result: Mutex::new(Value::Null), netns })
    }

    /// Index of the other end of its `eth0`.
    pub(super) fn host_end(&self) -> Result<weft_netlink::IfIndex> {
        let link = self.netns.run(|| Netlink::open()?.link_by_name("eth0"))??.context("no eth0 in the pod")?;
        match link.kind {
            weft_netlink::LinkKind::Veth { peer: Some(peer) } => Ok(peer),
            _ => anyhow::bail!("eth0 is {:?}", link.kind),
        }
    }
}
