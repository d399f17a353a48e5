//! That the soak would see what is wrong, and does not see what is not.

use std::net::SocketAddr;

use fastrand::Rng;

use crate::{
    addresses::{Client, Frontend, backend},
    client,
    history::{Damage, History, Judgement, Observation, Outcome},
    objects::{Condition, Endpoint, Kind, Objects, Slice, Spec},
    truth::{Truth, Verdict},
};

/// Service 1: TCP, IPv4.
const SERVICE: u32 = 1;

fn objects(endpoints: &[(u16, bool, Condition)]) -> Objects {
    let mut objects = Objects::new(SERVICE, &mut Rng::with_seed(1));
    objects.spec = Some(Spec {
        kind: Kind::NodePort,
        internal_local: false,
        external_local: true,
        affinity: None,
        external_ip: false,
    });
    let endpoints = endpoints.iter().map(|&(host, local, condition)| Endpoint { host, local, condition }).collect();
    objects.slices = [Some(Slice { v6: false, port: 8080, endpoints }), None, None];
    objects
}

fn truth(endpoints: &[(u16, bool, Condition)]) -> Truth {
    Truth::of(SERVICE, &objects(endpoints))
}

fn at(host: u16) -> SocketAddr {
    SocketAddr::new(backend(host, false), 8080)
}

fn reached(host: u16, start: u64, end: u64) -> Observation {
    let outcome = Outcome::Reached(at(host));
    Observation { client: Client::Pod, service: SERVICE, frontend: Frontend::ClusterIp, v6: false, start, end, outcome }
}

fn failed(kind: &str, start: u64, end: u64) -> Observation {
    Observation { outcome: Outcome::Failed(kind.to_owned()), ..reached(0, start, end) }
}

#[test]
fn policies_and_conditions_decide() {
    use Condition::{Ready, Terminating, Unusable};
    let verdict = |endpoints: &[_], client, frontend| truth(endpoints).verdict(client, frontend, false);
    let only = |host| Verdict::Endpoints([at(host)].into());
    let both = [(2, false, Ready), (4, true, Terminating)];
    assert_eq!(verdict(&both, Client::Pod, Frontend::ClusterIp), only(2));
    // 4.4: a local endpoint that terminates comes before a remote one that is ready, where the policy is Local.
    assert_eq!(verdict(&both, Client::Outside, Frontend::NodePort), only(4));
    assert_eq!(verdict(&both, Client::Node, Frontend::NodePort), only(2));
    assert_eq!(verdict(&both, Client::Pod, Frontend::LoadBalancer), Verdict::Absent);
    assert_eq!(verdict(&[(2, false, Ready)], Client::Outside, Frontend::NodePort), Verdict::Drop);
    assert_eq!(verdict(&[(2, true, Unusable)], Client::Outside, Frontend::NodePort), Verdict::Reject);
}

#[test]
fn an_endpoint_may_be_met_while_it_may_be_in_the_kernel_and_no_longer() {
    let mut history = History::new((0..2).map(|_| truth(&[(2, true, Condition::Ready)])));
    history.announce(SERVICE, truth(&[(4, true, Condition::Ready)]), 1_000);
    let wrong = |judgement| matches!(judgement, Judgement::Wrong(_));
    assert!(wrong(history.judge(&reached(4, 900, 999))), "before it was written");
    assert_eq!(history.judge(&reached(4, 900, 1_000)), Judgement::Right);
    assert_eq!(history.judge(&reached(2, 5_000, 5_001)), Judgement::Right, "the agent may be slow");
    history.confirm(6_000);
    assert_eq!(history.judge(&reached(2, 6_000, 6_001)), Judgement::Right);
    assert!(wrong(history.judge(&reached(2, 6_001, 6_002))), "after the agent said that it is gone");
    assert!(wrong(history.judge(&failed("TimedOut", 2_000, 9_000))), "there was an endpoint all the time");
    history.excuse(Damage::FromOutside, 7_000);
    assert!(wrong(history.judge(&failed("TimedOut", 8_000, 9_000))), "a pod is not served by packets");
    history.excuse(Damage::AllPaths, 7_000);
    assert_eq!(history.judge(&failed("TimedOut", 8_000, 9_000)), Judgement::Excused);
    assert!(wrong(history.judge(&reached(2, 8_000, 9_000))), "nothing excuses a wrong endpoint");
    history.end_excuses(10_000);
    assert!(wrong(history.judge(&failed("TimedOut", 10_001, 10_002))));
}

#[test]
fn a_refusal_must_be_one() {
    let mut history = History::new((0..2).map(|_| truth(&[])));
    assert_eq!(history.judge(&failed("ConnectionRefused", 1, 2)), Judgement::Right);
    assert!(matches!(history.judge(&failed("TimedOut", 1, 2)), Judgement::Wrong(_)));
    history.announce(SERVICE, truth(&[(2, true, Condition::Ready)]), 2);
    assert_eq!(history.judge(&failed("TimedOut", 1, 2)), Judgement::Right, "just then it changed");
}

#[test]
fn the_same_seed_makes_the_same_changes() {
    let changes = |seed| {
        let mut rng = Rng::with_seed(seed);
        let mut objects = Objects::new(3, &mut rng);
        (0..200).map(|_| objects.change(&mut rng).map(|change| change.content)).collect::<Vec<_>>()
    };
    assert_eq!(changes(5), changes(5));
    assert_ne!(changes(5), changes(6));
}

#[test]
fn what_a_client_prints_is_read_back() {
    for seen in [reached(2, 17, 18), failed("TimedOut", 1_795_238_338_839_188, 1_795_238_346_843_628)] {
        let line = client::print(&seen);
        assert_eq!(client::parse(Client::Pod, line.trim_end()).unwrap(), seen);
    }
}
