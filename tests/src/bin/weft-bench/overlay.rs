//! The pod network: Weft's VXLAN and host-gw against the bare underlay and against a device made by hand as flannel makes it.
//!
//! From pod to pod, with pods made by hand and alike. Each path has two nodes of its own, which carry what such nodes carry:
//! Weft's rules, flannel's iptables rules, nothing but routes.

mod agent;
mod by_hand;
mod lane;
pub(crate) mod peers;
mod report;

use anyhow::Result;
use weft_tests::{Cluster, secs};

pub(crate) use self::report::Report;
use self::{
    agent::{Leases, Overlay, start_etcd},
    lane::Lane,
    report::{Row, limits},
};
use crate::figures::{median, millis};

const VXLAN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
const HOST_GW: &str = r#"{"Network":"10.245.0.0/16","Backend":{"Type":"host-gw"}}"#;

/// One MTU for all pods: the larger packets of plain routes would hide what the tunnel costs a packet.
const MTU: u32 = 1450;

/// Builds the nodes and measures.
pub(crate) fn measure(quick: bool) -> Result<Report> {
    let (rounds, time) = if quick { (3, secs(1)) } else { (7, secs(4)) };
    let cluster = Cluster::builder().nodes(9).alone().without_agents().build()?;
    let directory = cluster.run().directory().join("bench");
    let agents = [(1, VXLAN, "vxlan"), (2, VXLAN, "vxlan"), (3, HOST_GW, "host-gw"), (4, HOST_GW, "host-gw")];
    let agents = agents.map(|(number, conf, name)| {
        let directory = directory.join(name);
        Overlay::start(cluster.node(number), conf, &Leases::Dir(directory.join("leases")), &directory)
    });
    let agents = agents.into_iter().collect::<Result<Vec<_>>>()?;
    let nodes = |a: usize, b: usize| [cluster.node(a), cluster.node(b)];
    by_hand::flannel_style(cluster.node(5), 5, cluster.node(6), 6)?;
    by_hand::flannel_style(cluster.node(6), 6, cluster.node(5), 5)?;
    by_hand::routes_alone(cluster.node(7), cluster.node(8), 8)?;
    by_hand::routes_alone(cluster.node(8), cluster.node(7), 7)?;
    let weft = [[agents[0].pod()?, agents[1].pod()?], [agents[2].pod()?, agents[3].pod()?]];
    let lanes = [
        Lane::between_pods("flannel-style vxlan", nodes(5, 6), [[10, 244, 5, 5], [10, 244, 6, 5]], MTU)?,
        Lane::between_pods("Weft vxlan", nodes(1, 2), weft[0], MTU)?,
        Lane::between_pods("Weft host-gw", nodes(3, 4), weft[1], MTU)?,
        Lane::between_pods("routes alone", nodes(7, 8), [[10, 244, 7, 5], [10, 244, 8, 5]], MTU)?,
        Lane::between_nodes("underlay, no pods", nodes(7, 8))?,
    ];
    let mut samples = vec![Vec::new(); lanes.len()];
    println!("{rounds} rounds of {time:?} for each figure and path");
    for round in 0..rounds {
        // Whatever drifts on the machine favours each as often as the others.
        for position in 0..lanes.len() {
            let lane = (position + round) % lanes.len();
            samples[lane].push(lanes[lane].measure(time)?);
        }
    }
    let rows = lanes.iter().zip(&samples).map(|(lane, own)| Row::of(lane.name, own, &samples[0])).collect();
    drop((lanes, agents));

    let cost = peers::measure(cluster.node(9), &directory.join("large"))?;
    let ready = |leases: &Leases| -> Result<f64> {
        let start = |_| Ok(millis(Overlay::start(cluster.node(8), VXLAN, leases, &directory.join("few"))?.ready));
        let times = (0..2 * rounds).map(start).collect::<Result<Vec<_>>>()?;
        Ok(median(times.into_iter()))
    };
    let ready_dir = ready(&Leases::Dir(directory.join("few/leases")))?;
    let etcd = start_etcd(&cluster)?;
    let ready_etcd = ready(&Leases::Etcd)?;
    drop(etcd);
    cluster.shutdown()?;
    Ok(Report { rows, limits: limits(ready_dir, ready_etcd, &cost) })
}
