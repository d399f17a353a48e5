use weft_proxy::model::{IpFamily, Protocol};

use super::{duration, services, status};
use crate::status::{
    ConfigStatus, EndpointStatus, FrontendStatus, ProxyStatus, RejectedObject, ServerStatus, ServiceStatus,
    SourceStatus, Status, Verdict,
};

fn service(name: &str, endpoints: &[(&str, u64)], internal: Verdict) -> ServiceStatus {
    let endpoint = |(address, connections): &(&str, u64)| EndpointStatus {
        address: address.parse().unwrap(),
        port: 8080,
        local: *address == "10.244.1.2",
        connections: *connections,
    };
    ServiceStatus {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        port: "http".to_owned(),
        protocol: Protocol::Tcp,
        family: IpFamily::V4,
        frontends: vec![
            FrontendStatus { kind: "ClusterIP".to_owned(), address: Some([10, 96, 0, 10].into()), port: 80 },
            FrontendStatus { kind: "NodePort".to_owned(), address: None, port: 30080 },
        ],
        internal,
        external: internal,
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

#[test]
fn services_are_a_line_an_endpoint() {
    let list = [
        service("web", &[("10.244.1.2", 200), ("10.244.2.2", 200), ("10.244.3.2", 199)], Verdict::Endpoints),
        service("gone", &[], Verdict::Reject),
    ];
    assert_eq!(
        services(&list),
        "\
SERVICE                 FRONTENDS                 ENDPOINTS                CONNECTIONS
default/web:http TCP    ClusterIP 10.96.0.10:80   10.244.1.2:8080 (here)   200
                        NodePort 30080            10.244.2.2:8080          200
                                                  10.244.3.2:8080          199
default/gone:http TCP   ClusterIP 10.96.0.10:80   none: refused
                        NodePort 30080
"
    );
}

#[test]
fn a_problem_is_seen_in_the_status() {
    let node = Status {
        configuration: ConfigStatus::default(),
        node: "n1".to_owned(),
        version: "0.1.0".to_owned(),
        ready: false,
        uptime_seconds: 75,
        components: vec!["proxy".to_owned()],
        servers: vec![ServerStatus {
            name: "health".to_owned(),
            address: "0.0.0.0:10256".to_owned(),
            error: Some("cannot serve health".to_owned()),
        }],
        overlay: None,
        proxy: Some(ProxyStatus {
            mode: "ebpf".to_owned(),
            last_error: Some("nft is missing".to_owned()),
            ..ProxyStatus::default()
        }),
        source: Some(SourceStatus {
            kind: "dir".to_owned(),
            location: "/etc/weft".to_owned(),
            synced: true,
            rejected: vec![RejectedObject { object: "web.yaml".to_owned(), reason: "web.yaml:3: oops".to_owned() }],
            warnings: vec!["Service: the API server lost 9 of 10".to_owned()],
        }),
    };
    let text = status(&node);
    for expected in [
        "Node n1: NOT READY",
        "up 1m15s",
        "problem: cannot serve health",
        "NOT IN SYNC, data plane ebpf",
        "problem: nft is missing",
        "skipped web.yaml: web.yaml:3: oops",
        "warning: Service: the API server lost 9 of 10",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn durations_are_short() {
    let shown = [5, 75, 3_700, 100_000].map(duration);
    assert_eq!(shown, ["5s", "1m15s", "1h1m", "1d3h"]);
}
