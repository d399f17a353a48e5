//! Health-check node ports (kube-proxy.md 11.3), asked by a host outside with curl.

use anyhow::{Result, ensure};
use weft_tests::{Cluster, Place, eventually, secs};

use crate::single::Single;

const LOAD_BALANCER: &str = "  type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 32000\n  \
                             clusterIPs: [10.96.0.10, \"2001:db8:96::10\"]\n  ipFamilies: [IPv4, IPv6]\n";

/// Status code and body.
fn ask(from: &Place, url: &str) -> Result<(String, String)> {
    let answer =
        from.run("curl", &["-sS", "-m", "2", "-w", "\n%{http_code} %header{x-load-balancing-endpoint-weight}", url])?;
    let (body, code) = answer.rsplit_once('\n').unwrap_or_default();
    Ok((code.to_owned(), body.to_owned()))
}

fn eventually_says(from: &Place, url: &str, expected: &str) -> Result<()> {
    eventually(secs(10), || {
        let (code, body) = ask(from, url)?;
        ensure!(code == expected, "{url}: {code}: {body}");
        Ok(())
    })?;
    Ok(())
}

fn eventually_closed(from: &Place, url: &str) -> Result<()> {
    eventually(secs(10), || {
        let answer = ask(from, url);
        ensure!(answer.is_err(), "{url}: {answer:?}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn rule_11_3_load_balancers_learn_whether_the_node_has_endpoints() -> Result<()> {
    let single = Single::start(Cluster::builder().dual_stack(), 2)?;
    let (outside, host) = (single.cluster.outside(), single.node());
    single.apply_web(LOAD_BALANCER, ", nodePort: 30080")?;
    let v4 = format!("http://{}:32000/healthz", host.v4());
    let v6 = format!("http://[{}]:32000/", host.v6());
    for url in [&v4, &v6] {
        eventually_says(outside, url, "200 2")?;
    }
    let expected = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\
                    \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
    ensure!(ask(outside, &v4)?.1 == expected, "{:?}", ask(outside, &v4)?);
    single.set_endpoints(0)?;
    eventually_says(outside, &v4, "503 0")?;
    single.set_endpoints(1)?;
    eventually_says(outside, &v4, "200 1")?;

    // Another port, then none.
    single.apply_web(&LOAD_BALANCER.replace("32000", "32001"), ", nodePort: 30080")?;
    eventually_says(outside, &v4.replace("32000", "32001"), "200 1")?;
    eventually_closed(outside, &v4)?;
    single.apply_web("  type: NodePort\n  clusterIPs: [10.96.0.10]\n", ", nodePort: 30080")?;
    eventually_closed(outside, &v4.replace("32000", "32001"))?;
    single.shutdown()
}

#[test]
fn rules_6_8_and_11_3_ports_are_at_the_node_port_addresses_and_one_in_use_is_reported() -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--nodeport-addresses", "192.0.2.0/25"), 1)?;
    let (outside, host) = (single.cluster.outside(), single.node());
    host.run("ip", &["address", "add", "192.0.2.201/24", "dev", "eth0"])?;
    let taken = host.serve_as("somebody", 32001)?;
    let spec = "  type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 32000\n";
    single.apply_web(spec, ", nodePort: 30080")?;
    let other =
        crate::single::web(&spec.replace("32000", "32001"), ", nodePort: 30081").replace("name: web", "name: other");
    single.cluster.manifests().apply("other.yaml", &other.replace("10.96.0.10", "10.96.0.11"))?;
    eventually_says(outside, &format!("http://{}:32000/", host.v4()), "200 1")?;
    eventually_closed(outside, "http://192.0.2.201:32000/")?;
    let checks = || anyhow::Ok(host.agent().status()?.proxy.map(|proxy| proxy.health_checks).unwrap_or_default());
    eventually(secs(10), || {
        let checks = checks()?;
        let error = checks.iter().find(|check| check.service == "default/other").and_then(|check| check.error.clone());
        ensure!(error.as_ref().is_some_and(|error| error.contains("in use")), "{checks:?}");
        Ok(())
    })?;
    let status = host.agent().status()?;
    ensure!(status.ready, "Services go on: {status:?}");
    // It is tried again.
    drop(taken);
    eventually_says(outside, &format!("http://{}:32001/", host.v4()), "503 0")?;
    single.shutdown()
}

#[test]
fn rule_9_14_iptables_mode_lets_health_checks_in_whatever_the_policy() -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--proxy-mode", "iptables"), 1)?;
    let (outside, host) = (single.cluster.outside(), single.node());
    let _server = host.serve_as("host", 32009)?;
    host.run("iptables", &["-P", "INPUT", "DROP"])?;
    let spec = "  type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 32000\n";
    single.apply_web(spec, ", nodePort: 30080")?;
    eventually_says(outside, &format!("http://{}:32000/", host.v4()), "200 1")?;
    crate::single::fails(outside, host.socket_v4(32009), &["TimedOut", "WouldBlock"])?;
    single.shutdown()
}
