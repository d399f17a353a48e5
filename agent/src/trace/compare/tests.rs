use weft_proxy::live::Live;

use super::*;

fn decision(fate: Fate, masquerade: bool) -> Decision<'static> {
    Decision { frontend: None, rule: String::new(), fate, masquerade, at_socket: false }
}

fn endpoints(addresses: &[&str]) -> Fate {
    let endpoint = |address: &&str| Endpoint { address: address.parse().unwrap(), port: 80, local: false };
    Fate::Endpoints(addresses.iter().map(endpoint).collect())
}

fn live(verdict: Verdict, masquerade: bool) -> Live {
    Live { verdict, next: None, masquerade, steps: Vec::new(), problems: Vec::new() }
}

fn at(addresses: &[&str]) -> Verdict {
    Verdict::Endpoints(addresses.iter().map(|address| format!("{address}:80").parse().unwrap()).collect())
}

#[test]
fn what_is_as_planned_is_no_finding() {
    for (fate, verdict) in [
        (Fate::Untouched, Verdict::Untouched),
        (Fate::Reject, Verdict::Reject),
        (Fate::Drop, Verdict::Drop),
        // The order of a plan is not that of the kernel.
        (endpoints(&["10.0.0.2", "10.0.0.1"]), at(&["10.0.0.1", "10.0.0.2"])),
    ] {
        assert_eq!(findings(&decision(fate, false), &live(verdict, false), true), [""; 0]);
    }
}

#[test]
fn differences_are_told_in_words() {
    let table = [
        (endpoints(&["10.0.0.1"]), Verdict::Untouched, "the plan says 1 endpoints, the kernel says nothing about it"),
        (Fate::Drop, Verdict::Reject, "the plan says dropped, the kernel says refused"),
        (
            endpoints(&["10.0.0.1", "10.0.0.2"]),
            at(&["10.0.0.1", "10.0.0.3"]),
            "the kernel has other endpoints than the plan: 10.0.0.2:80 missing, 10.0.0.3:80 too many",
        ),
    ];
    for (fate, verdict, text) in table {
        assert_eq!(findings(&decision(fate, false), &live(verdict, false), true), [text]);
    }
}

#[test]
fn masquerading_counts_where_packets_decide() {
    let (planned, found) = (decision(endpoints(&["10.0.0.1"]), true), live(at(&["10.0.0.1"]), false));
    assert_eq!(findings(&planned, &found, true).len(), 1);
    assert_eq!(findings(&planned, &found, false), [""; 0]);
    let damaged = Live { problems: vec!["chain x is not there".to_owned()], ..found };
    assert_eq!(findings(&planned, &damaged, false), ["chain x is not there"], "whatever the plan is");
}

#[test]
fn a_socket_that_knows_nothing_is_found_though_packets_are_served() {
    let planned = Decision { at_socket: true, ..decision(endpoints(&["10.0.0.1"]), false) };
    let found = live(at(&["10.0.0.1"]), true);
    assert_eq!(findings(&planned, &found, true).len(), 1);
    assert_eq!(findings(&planned, &found, false), [""; 0]);
}
