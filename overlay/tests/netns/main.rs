//! The overlay in real network namespaces with real packets; iproute2 and nft are the second opinion.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backends;
mod bridge;
mod bypass;
mod cluster;
mod come_and_go;
mod defects;
mod diagnose;
mod exchange;
mod flannel_peer;
mod interfaces;
mod leases;
mod lifetime;
mod mixed;
mod options;
mod packet_rules;
mod reach;
mod repairs;
mod sabotage;

use std::{net::IpAddr, time::Duration};

use weft_overlay::{CleanupConfig, LeaseManager, NetConf, SubnetSource};

use crate::cluster::{DUAL_STACK, Node, until};

/// How long is waited for somebody else's change to be put right. That it takes less than a second is what `sabotage` tests;
/// the rest is for a machine that is busy with other tests.
const REPAIR: Duration = Duration::from_secs(4);

fn vtep(number: u8) -> IpAddr {
    [10, 244, number, 0].into()
}

fn vtep_v6(number: u16) -> IpAddr {
    [0xfd44, 0, 0, number, 0, 0, 0, 0].into()
}

/// Waits until a command in the node prints `text`.
#[track_caller]
fn until_shows(node: &Node, command: &str, text: &str) {
    until(REPAIR, || match node.run(command) {
        shown if shown.contains(text) => Ok(()),
        shown => Err(format!("{command}: no {text:?} in {shown}")),
    });
}

fn weft_cleanup(node: &Node) -> Vec<String> {
    let net_conf = NetConf::parse(DUAL_STACK, SubnetSource::Allocated).unwrap();
    let config =
        CleanupConfig { net_conf, subnet_file: node.subnet_file.clone(), node_name: format!("n{}", node.number) };
    let leases = node.leases();
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(weft_overlay::cleanup(&config, Some(&leases as &dyn LeaseManager)))
    };
    node.netns.run(work).unwrap().unwrap()
}
