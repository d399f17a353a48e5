//! Is it worth while to remove several pods' interfaces at one stroke?
//!
//! A removal waits for the kernel's readers (`synchronize_net`) under RTNL, so that removals wait for each other. One
//! request can remove a group of interfaces with a single wait; only somebody who hears of all the DELs, the agent,
//! could make it. This measures what there would be to gain.

use std::{process::Command, time::Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{AT_A_TIME, batch, calls, lane::Lane, pod::Pod};
use crate::figures::median;

/// A group number that nothing else has: `ip link` must not remove more than the pods' interfaces.
const GROUP: &str = "7777";

/// Milliseconds to remove [`AT_A_TIME`] pods.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Removal {
    /// One DEL after the other.
    pub(super) one_by_one_ms: f64,
    /// All DELs at once.
    pub(super) at_once_ms: f64,
    /// The interfaces by one request (`ip link delete group`), with nothing else of DEL.
    pub(super) one_request_ms: f64,
}

impl Removal {
    pub(super) fn median(removals: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(removals.iter().map(figure));
        Self {
            one_by_one_ms: of(|removal| removal.one_by_one_ms),
            at_once_ms: of(|removal| removal.at_once_ms),
            one_request_ms: of(|removal| removal.one_request_ms),
        }
    }
}

/// One round.
pub(super) fn measure(lane: &Lane, pods: &[Pod]) -> Result<Removal> {
    let add = || batch(&lane.node, pods, AT_A_TIME, &|pod| lane.add(pod));
    let del = |threads| -> Result<f64> {
        let removed = batch(&lane.node, pods, threads, &|pod| lane.del(pod))?;
        Ok(pods.len() as f64 / removed.rate * 1000.0)
    };
    add()?;
    let one_by_one_ms = del(1)?;
    add()?;
    let at_once_ms = del(AT_A_TIME)?;
    add()?;
    let mut group = String::new();
    for pod in pods {
        group += &format!("link set dev if{} group {GROUP}\n", pod.host_end()?);
    }
    let one_request_ms = lane.node.run(|| -> Result<f64> {
        calls::run(Command::new("ip").args(["-batch", "-"]), group.as_bytes())?;
        let start = Instant::now();
        calls::run(Command::new("ip").args(["link", "delete", "group", GROUP]), &[])?;
        let took = start.elapsed();
        let left = calls::run(Command::new("ip").args(["link", "show", "group", GROUP]), &[])?.stdout;
        ensure!(left.is_empty(), "still there: {}", String::from_utf8_lossy(&left));
        Ok(took.as_secs_f64() * 1000.0)
    })??;
    // The addresses.
    del(AT_A_TIME)?;
    Ok(Removal { one_by_one_ms, at_once_ms, one_request_ms })
}
