//! The API server: whether it answers, whether its clock and ours agree, and what it lets us do.

use std::{collections::BTreeSet, env, net::IpAddr, time::Duration};

use axum::http::{Request, Response, StatusCode, Uri, header};
use jiff::{Timestamp, fmt::rfc2822};
use kube::{Client, client::Body};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Context,
    finding::{Area, Finding},
};
use crate::{commands::client, config::SourceKind, source, status::ServiceStatus};

const AREA: Area = Area::Api;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Difference of the clocks from which it is told: leases and tokens live for minutes.
const SKEW: i64 = 30;

/// What the agent lists (manifests/rbac.yaml).
const LISTED: [(&str, &str); 3] = [
    ("services", "/api/v1/services?limit=1"),
    ("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices?limit=1"),
    ("nodes", "/api/v1/nodes?limit=1"),
];

const RBAC: &str = "apply manifests/rbac.yaml, and run this as the agent's service account";

/// All of them, and the other nodes' addresses if they were listed. Nothing where the objects come from elsewhere.
pub(super) fn check(context: &Context) -> (Vec<Finding>, Vec<(String, IpAddr)>) {
    let in_use = context.status.as_ref().and_then(|status| status.source.as_ref());
    let access = &context.outline.access;
    let asked = access.kubeconfig.is_some() || access.master.is_some();
    let elsewhere = match in_use {
        Some(source) => source.kind != "kube",
        None => matches!(context.outline.source, Some(SourceKind::Dir(_))),
    };
    if elsewhere && !asked {
        return (Vec::new(), Vec::new());
    }
    let mut others = Vec::new();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (vec![Finding::note(AREA, "api", format!("not asked: {error}"))], others),
    };
    let services = service_addresses(context);
    let findings = runtime.block_on(ask(context, services, &mut others));
    (findings, others)
}

/// `services`: addresses of the API server's own Service, as far as they are known without it.
async fn ask(context: &Context, mut services: BTreeSet<IpAddr>, others: &mut Vec<(String, IpAddr)>) -> Vec<Finding> {
    let (client, url) = match source::kube::connect(&context.outline.access, None).await {
        Ok(connected) => connected,
        Err(error) => {
            let note = Finding::note(AREA, "api", error.to_string());
            return vec![note.advise("give --kubeconfig, so that the API server can be looked at too")];
        }
    };
    let answer = get(&client, "/version").await;
    if answer.is_ok() {
        services.extend(own_service(&client).await);
    }
    // What the agent uses matters, if that is known.
    let in_use =
        context.status.as_ref().and_then(|status| status.source.as_ref()).map_or(&url, |source| &source.location);
    let mut findings: Vec<Finding> = last_resort(in_use, &services).into_iter().collect();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let advice = "traffic goes on; look at the network to the API server, its address, and the credentials";
            findings.push(Finding::problem(AREA, "api", format!("{url} does not answer: {error}"), advice));
            return findings;
        }
    };
    findings.push(Finding::ok(AREA, "api", format!("{url} answers")));
    let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    findings.push(clock(date, Timestamp::now()));
    for (resource, path) in LISTED {
        findings.push(match get(&client, path).await {
            Ok(answer) => listed(resource, answer.status()),
            Err(error) => Finding::problem(AREA, "rbac", format!("list {resource}: {error}"), RBAC),
        });
    }
    let nodes = list(&client, "/api/v1/nodes").await;
    if let Some(nodes) = &nodes {
        findings.push(pod_cidr(nodes, &context.node));
        findings.extend(shared_cidrs(nodes));
        others.extend(nodes.iter().filter(|node| name_of(node) != context.node).flat_map(addresses));
    }
    findings
}

async fn get(client: &Client, path: &str) -> Result<Response<Body>, String> {
    let request = Request::get(path).body(Body::empty()).map_err(|error| error.to_string())?;
    match timeout(PATIENCE, client.send(request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Addresses of the Service `kubernetes`, by the environment of a pod and by what the agent serves.
fn service_addresses(context: &Context) -> BTreeSet<IpAddr> {
    let of_pod = env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok());
    let path = "/services?service=default/kubernetes";
    let served = client::get::<Vec<ServiceStatus>>(&context.args.agent.paths.run_dir, path).unwrap_or_default();
    let frontends = served.into_iter().flat_map(|port| port.frontends);
    of_pod.into_iter().chain(frontends.filter_map(|frontend| frontend.address)).collect()
}

/// The same as the API server has it; listed, for that is what the agent may do.
async fn own_service(client: &Client) -> Vec<IpAddr> {
    let path = "/api/v1/namespaces/default/services?fieldSelector=metadata.name%3Dkubernetes";
    let Some(services) = list(client, path).await else { return Vec::new() };
    let ips = services.iter().flat_map(|service| service["spec"]["clusterIPs"].as_array().into_iter().flatten());
    ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

/// Weft must not need its own Services to reach the API server (design section 6). `services`: where its Service is.
fn last_resort(url: &str, services: &BTreeSet<IpAddr>) -> Option<Finding> {
    let url_read: Uri = url.parse().ok()?;
    let host = url_read.host()?.trim_matches(['[', ']']);
    // Names of Services need the cluster's DNS too, which is one of them.
    let is_service = match host.parse::<IpAddr>() {
        Ok(address) => services.contains(&address),
        Err(_) => host.starts_with("kubernetes.default"),
    };
    is_service.then(|| {
        Finding::warning(
            AREA,
            "api-address",
            format!("{url} is the Service's address: after a reboot nothing may be there that serves it"),
            "give the agent the server's own address: --kubeconfig (kube-proxy's kubeconfig.conf) or --master",
        )
    })
}

/// `date`: the header of an answer (RFC 9110, 5.6.7).
fn clock(date: Option<&str>, now: Timestamp) -> Finding {
    let theirs = date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    let Some(theirs) = theirs else {
        return Finding::note(AREA, "clock", "the API server does not tell the time");
    };
    let skew = now.as_second() - theirs.as_second();
    match skew.abs() {
        0..=SKEW => Finding::ok(AREA, "clock", format!("agrees with the API server's ({skew} s)")),
        _ => Finding::problem(
            AREA,
            "clock",
            format!("{} s {} the API server's", skew.abs(), if skew > 0 { "ahead of" } else { "behind" }),
            "set it right (chrony, systemd-timesyncd): certificates, tokens and leases go by it",
        ),
    }
}

fn listed(resource: &str, status: StatusCode) -> Finding {
    match status {
        status if status.is_success() => Finding::ok(AREA, "rbac", format!("may list {resource}")),
        StatusCode::UNAUTHORIZED => {
            let seen = format!("list {resource}: the API server does not know us (401)");
            Finding::problem(AREA, "rbac", seen, "look at the token or certificate of the kubeconfig")
        }
        status => Finding::problem(AREA, "rbac", format!("may not list {resource} ({status})"), RBAC),
    }
}

/// What a list has; `None` if it cannot be had, which is told elsewhere.
async fn list(client: &Client, path: &str) -> Option<Vec<Value>> {
    let answer = get(client, path).await.ok().filter(|answer| answer.status().is_success())?;
    let body = answer.into_body().collect_bytes().await.ok()?;
    let mut list: Value = serde_json::from_slice(&body).ok()?;
    match list["items"].take() {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// The addresses other nodes reach it at, with its name.
fn addresses(node: &Value) -> Vec<(String, IpAddr)> {
    let all = node["status"]["addresses"].as_array().into_iter().flatten();
    let internal = all.filter(|address| address["type"] == "InternalIP");
    let parsed = internal.filter_map(|address| address["address"].as_str()?.parse().ok());
    parsed.map(|address| (name_of(node).to_owned(), address)).collect()
}

fn name_of(node: &Value) -> &str {
    node["metadata"]["name"].as_str().unwrap_or_default()
}

fn cidrs(node: &Value) -> Vec<&str> {
    let all: Vec<&str> = node["spec"]["podCIDRs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if all.is_empty() { node["spec"]["podCIDR"].as_str().into_iter().collect() } else { all }
}

fn pod_cidr(nodes: &[Value], name: &str) -> Finding {
    let Some(node) = nodes.iter().find(|node| name_of(node) == name) else {
        let advice = "give the Node's name by --hostname-override (or $NODE_NAME), or let kubelet register it";
        return Finding::problem(AREA, "node", format!("there is no Node {name}"), advice);
    };
    match cidrs(node).as_slice() {
        [] => Finding::problem(
            AREA,
            "pod-cidr",
            format!("Node {name} has no podCIDR: with --subnet-manager=kube there is no pod network"),
            "give kube-controller-manager --allocate-node-cidrs and --cluster-cidr (kubeadm: --pod-network-cidr)",
        ),
        cidrs => Finding::ok(AREA, "pod-cidr", format!("Node {name} has {}", cidrs.join(", "))),
    }
}

fn shared_cidrs(nodes: &[Value]) -> Vec<Finding> {
    let all: Vec<(&str, &str)> =
        nodes.iter().flat_map(|node| cidrs(node).into_iter().map(|cidr| (cidr, name_of(node)))).collect();
    let mut sorted = all;
    sorted.sort_unstable();
    let twice = sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    twice
        .map(|pair| {
            let seen = format!("podCIDR {} belongs to {} and {}", pair[0].0, pair[0].1, pair[1].1);
            Finding::problem(AREA, "duplicate", seen, "delete one of these Nodes and let kubelet register it again")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::finding::Verdict, *};

    #[test]
    fn the_services_address_is_the_last_resort() {
        let services = ["10.96.0.1", "fd00::1"].map(|address| address.parse().unwrap()).into();
        for (url, warned) in [
            ("https://10.96.0.1:443/", true),
            ("https://10.96.0.1", true),
            ("https://[fd00:0::1]:443/", true),
            ("https://[fd00::1]", true),
            ("https://kubernetes.default.svc/", true),
            ("https://192.0.2.1:6443/", false),
            ("https://api.example.com:6443/", false),
        ] {
            assert_eq!(last_resort(url, &services).is_some(), warned, "{url}");
        }
        assert!(last_resort("https://10.96.0.1/", &BTreeSet::new()).is_none());
    }

    #[test]
    fn clocks_may_differ_by_seconds() {
        let now: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
        for (date, verdict) in [
            (Some("Sat, 21 Nov 2026 06:00:20 GMT"), Verdict::Ok),
            (Some("Sat, 21 Nov 2026 06:02:00 GMT"), Verdict::Problem),
            (Some("Sat, 21 Nov 2026 05:58:00 GMT"), Verdict::Problem),
            (Some("yesterday"), Verdict::Note),
            (None, Verdict::Note),
        ] {
            assert_eq!(clock(date, now).verdict, verdict, "{date:?}");
        }
        assert!(clock(Some("Sat, 21 Nov 2026 05:58:00 GMT"), now).seen.starts_with("120 s ahead"));
    }

    #[test]
    fn nodes_need_a_pod_cidr_of_their_own() {
        let node = |name: &str, cidr: &str| json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr}});
        let nodes = [node("a", "10.244.0.0/24"), json!({"metadata": {"name": "b"}}), node("c", "10.244.0.0/24")];
        assert_eq!(pod_cidr(&nodes, "a").verdict, Verdict::Ok);
        assert_eq!((pod_cidr(&nodes, "b").check, pod_cidr(&nodes, "b").verdict), ("pod-cidr", Verdict::Problem));
        assert_eq!((pod_cidr(&nodes, "x").check, pod_cidr(&nodes, "x").verdict), ("node", Verdict::Problem));
        let internal = json!({"metadata": {"name": "a"}, "status": {"addresses": [
            {"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "192.0.2.1"},
        ]}});
        assert_eq!(addresses(&internal), [("a".to_owned(), [192, 0, 2, 1].into())]);
        let twice = shared_cidrs(&nodes);
        assert!(twice.len() == 1 && twice[0].seen.ends_with("a and c"), "{twice:?}");
    }

    #[test]
    fn what_may_not_be_listed_is_told() {
        assert_eq!(listed("nodes", StatusCode::OK).verdict, Verdict::Ok);
        assert_eq!(listed("nodes", StatusCode::FORBIDDEN).verdict, Verdict::Problem);
        assert!(listed("nodes", StatusCode::UNAUTHORIZED).seen.contains("401"));
    }
}
