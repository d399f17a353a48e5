//! Where the kernel differs from the plan.

use std::net::SocketAddr;

use weft_proxy::{
    live::{Live, Verdict},
    plan::Endpoint,
};

use super::decide::{Decision, Fate};

/// One sentence a difference. `is_packet`: whether it was the packet path that decided, which alone can masquerade.
pub(super) fn findings(decision: &Decision<'_>, live: &Live, is_packet: bool) -> Vec<String> {
    let mut findings = live.problems.clone();
    let planned = planned(&decision.fate);
    if decision.at_socket && is_packet && matches!(planned, Verdict::Endpoints(_) | Verdict::Reject) {
        findings.push(
            "the kernel says nothing at the socket, where the plan has it decided: packets are served instead".into(),
        );
    }
    if planned != live.verdict {
        findings.push(match (&planned, &live.verdict) {
            (Verdict::Endpoints(planned), Verdict::Endpoints(found)) => endpoints(planned, found),
            _ => format!("the plan says {}, the kernel says {}", words(&planned), words(&live.verdict)),
        });
    } else if is_packet
        && !decision.at_socket
        && matches!(planned, Verdict::Endpoints(_))
        && decision.masquerade != live.masquerade
    {
        let word = |masquerade| if masquerade { "masqueraded" } else { "not masqueraded" };
        findings.push(format!(
            "the plan says that it is {}, the kernel says {}",
            word(decision.masquerade),
            word(live.masquerade)
        ));
    }
    findings
}

fn planned(fate: &Fate) -> Verdict {
    match fate {
        Fate::Untouched => Verdict::Untouched,
        Fate::Reject => Verdict::Reject,
        Fate::Drop => Verdict::Drop,
        Fate::Endpoints(endpoints) => {
            let mut endpoints: Vec<_> = endpoints.iter().map(at).collect();
            endpoints.sort_unstable();
            Verdict::Endpoints(endpoints)
        }
    }
}

pub(super) fn at(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port)
}

fn endpoints(planned: &[SocketAddr], found: &[SocketAddr]) -> String {
    let without = |list: &[SocketAddr], other: &[SocketAddr]| {
        let list: Vec<String> = list.iter().filter(|one| !other.contains(one)).map(ToString::to_string).collect();
        if list.is_empty() { "none".to_owned() } else { list.join(", ") }
    };
    let (missing, more) = (without(planned, found), without(found, planned));
    format!("the kernel has other endpoints than the plan: {missing} missing, {more} too many")
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Untouched => "nothing about it".to_owned(),
        Verdict::Endpoints(endpoints) => format!("{} endpoints", endpoints.len()),
        Verdict::Reject => "refused".to_owned(),
        Verdict::Drop => "dropped".to_owned(),
    }
}

#[cfg(test)]
mod tests;
