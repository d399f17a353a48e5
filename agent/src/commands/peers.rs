//! `weft peers`: the other nodes, as the pod network of this one sees them.

use std::process::ExitCode;

use weft_overlay::{PeerState, PeerStatus};

use super::{client, finish, table::Table};
use crate::{cli::QueryArgs, status::Status};

/// Exit code 1 when a peer is not up, or the agent cannot be asked.
pub(crate) fn peers(args: &QueryArgs) -> ExitCode {
    let asked = client::get::<Status>(&args.run_dir, "/status").map_err(|error| error.to_string());
    let peers = asked.and_then(|status| match status.overlay {
        Some(overlay) => Ok(overlay.peers),
        None => Err("the overlay component does not run on this node".to_owned()),
    });
    let all_up = peers.as_ref().is_ok_and(|peers| peers.iter().all(|peer| peer.state == PeerState::Up));
    let printed = finish(args.output, peers, |peers| table(peers));
    if all_up { printed } else { ExitCode::FAILURE }
}

fn table(peers: &[PeerStatus]) -> String {
    if peers.is_empty() {
        return "No peers: no other node has a lease.\n".to_owned();
    }
    let mut table = Table::new(["SUBNET", "NODE ADDRESS", "VTEP MAC", "STATE", "ERROR"]);
    for peer in peers {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let state = match peer.state {
            PeerState::Up => "up",
            PeerState::Failed => "FAILED",
        };
        let subnets = [Some(&peer.subnet), peer.subnet_v6.as_ref()].into_iter().flatten();
        let subnets: Vec<&str> = subnets.map(String::as_str).collect();
        let error = peer.error.clone().unwrap_or_default();
        table.row([subnets.join(","), text(&peer.public_ip), text(&peer.vtep_mac), state.to_owned(), error]);
    }
    table.render()
}
