//! Health, metrics and events of real agents, asked as kubelet, load balancers and Prometheus do.

use std::{fs, net::TcpListener, os::fd::AsFd};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Cluster, Node, OUTSIDE_V4, Request, eventually, secs};

use crate::fixture::{Serving, assert_exact, web_vip};

/// Status and body of `http://127.0.0.1:PORT/PATH` on the node, or of a host given.
fn get(node: &Node, url: &str) -> Result<(u16, String)> {
    let output = node.command("curl").args(["-sS", "-g", "-m", "5", "-w", "\n%{http_code}", url]).output()?;
    ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let (body, code) = text.rsplit_once('\n').context("curl writes the code")?;
    Ok((code.parse()?, body.to_owned()))
}

fn healthz(node: &Node, path: &str) -> Result<(u16, Value)> {
    let (code, body) = get(node, &format!("http://127.0.0.1:10256{path}"))?;
    Ok((code, serde_json::from_str(&body).unwrap_or_default()))
}

fn metrics(node: &Node) -> Result<String> {
    let (code, body) = get(node, "http://127.0.0.1:10249/metrics")?;
    ensure!(code == 200, "{code}: {body}");
    Ok(body)
}

/// The value of a series.
fn metric(text: &str, series: &str) -> Result<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.with_context(|| format!("no {series} in\n{text}"))?.parse().context("a number")
}

fn node_object(name: &str, taint: &str) -> String {
    let taints = if taint.is_empty() { String::new() } else { format!("[{{key: {taint}, effect: NoSchedule}}]") };
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec:\n  taints: {taints}\n")
}

#[test]
fn rule_11_1_health_follows_the_node_and_the_data_plane() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let node = cluster.node(1);
    let is = |path: &'static str, expected: u16| {
        eventually(secs(10), || {
            let (code, body) = healthz(node, path)?;
            ensure!(code == expected, "{path}: {code} {body}");
            Ok(body)
        })
    };
    // The kit's directory says nothing of the node.
    cluster.manifests().apply("node.yaml", &node_object("n1", ""))?;
    let (body, _) = is("/healthz", 200)?;
    ensure!(body["nodeEligible"] == true && body["healthy"] == true, "{body}");
    ensure!(body["status"]["IPv4"]["healthy"] == true && body["status"]["IPv6"]["healthy"] == true, "{body}");
    is("/readyz", 200)?;
    cluster.manifests().apply("node.yaml", &node_object("n1", "ToBeDeletedByClusterAutoscaler"))?;
    let (body, _) = is("/healthz", 503)?;
    ensure!(body["nodeEligible"] == false && body["healthy"] == true, "{body}");
    let (body, _) = is("/livez", 200)?;
    ensure!(body.get("nodeEligible").is_none(), "{body}");
    // A wildcard is both families, and from other hosts too.
    ensure!(get(node, "http://[::1]:10256/livez")?.0 == 200);
    ensure!(get(node, &format!("http://{}:10256/livez", node.v4()))?.0 == 200);
    ensure!(get(node, "http://127.0.0.1:10256/other")?.0 == 404);
    cluster.shutdown()
}

#[test]
fn health_is_of_the_data_plane_and_not_of_the_api_server() -> Result<()> {
    let mut serving = Serving::on(Cluster::builder().api_server())?;
    serving.cluster.manifests().apply("n1.yaml", &node_object("n1", ""))?;
    eventually(secs(10), || {
        let (code, body) = healthz(serving.cluster.node(1), "/healthz")?;
        ensure!(code == 200, "{code} {body}");
        Ok(())
    })?;
    serving.cluster.manifests_mut().kill_api_server()?;
    assert_exact(&serving.clients[0], &Request::tcp(web_vip()))?;
    for path in ["/healthz", "/livez", "/readyz"] {
        let (code, body) = healthz(serving.cluster.node(1), path)?;
        ensure!(code == 200, "{path}: {code} {body}");
    }
    serving.shutdown()
}

#[test]
fn section_11_2_metrics_tell_what_happened() -> Result<()> {
    let serving = Serving::start()?;
    let node = serving.cluster.node(1);
    for (path, expected) in [("/healthz", "ok"), ("/healthz/ping", "ok"), ("/proxyMode", "ebpf")] {
        let answer = get(node, &format!("http://127.0.0.1:10249{path}"))?;
        ensure!(answer == (200, expected.to_owned()), "{path}: {answer:?}");
    }
    let (_, configz) = get(node, "http://127.0.0.1:10249/configz")?;
    let configz: Value = serde_json::from_str(&configz)?;
    ensure!(configz["kubeproxy.config.k8s.io"]["kind"] == "KubeProxyConfiguration", "{configz}");
    ensure!(configz["kubeproxy.config.k8s.io"]["hostnameOverride"] == "n1", "{configz}");
    assert_exact(&serving.clients[0], &Request::tcp(web_vip()).count(30))?;
    healthz(node, "/livez")?;
    let connections = "weft_service_connections_total{namespace=\"default\",name=\"web\",port=\"http\",protocol=\"TCP\",ip_family=\"IPv4\"}";
    let text = metrics(node)?;
    ensure!(metric(&text, connections)? >= 30.0, "{text}");
    ensure!(metric(&text, "weft_peers")? == 2.0 && metric(&text, "weft_peers_up")? == 2.0, "{text}");
    ensure!(metric(&text, "weft_component_ready{component=\"overlay\"}")? == 1.0);
    ensure!(metric(&text, "weft_service_ports")? == 2.0);
    ensure!(metric(&text, "weft_cni_add_duration_seconds_count{result=\"success\"}")? == 2.0, "{text}");
    ensure!(metric(&text, "kubeproxy_proxy_livez_total{code=\"200\"}")? >= 1.0);
    ensure!(metric(&text, "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}")? >= 1.0);
    ensure!(metric(&text, "kubeproxy_sync_proxy_rules_service_changes_total")? >= 2.0);
    ensure!(text.lines().any(|line| line.starts_with("weft_map_elements_used{map=")), "{text}");
    let memory = metric(&text, "process_resident_memory_bytes")?;
    ensure!(memory > 1e6, "{memory}");
    serving.shutdown()
}

#[test]
fn section_11_2_health_checks_and_pages_are_told_beside_the_metrics() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let node = cluster.node(1);
    let slis = || get(node, "http://127.0.0.1:10249/metrics/slis");
    healthz(node, "/readyz")?;
    get(node, "http://127.0.0.1:10249/healthz")?;
    let (_, text) = slis()?;
    for series in ["name=\"overlay\",type=\"readyz\"", "name=\"ping\",type=\"healthz\""] {
        ensure!(metric(&text, &format!("kubernetes_healthcheck{{{series}}}"))? == 1.0);
        ensure!(metric(&text, &format!("kubernetes_healthchecks_total{{{series},status=\"success\"}}"))? == 1.0);
    }
    let reset = node.command("curl").args(["-sS", "-X", "DELETE", "http://127.0.0.1:10249/metrics/slis"]).output()?;
    ensure!(reset.stdout == b"metrics reset\n", "{}", String::from_utf8_lossy(&reset.stdout));
    ensure!(!slis()?.1.contains("ping"), "{}", slis()?.1);

    let (_, text) = get(node, "http://127.0.0.1:10249/statusz")?;
    ensure!(text.contains("\nUp: 0 hr 0") && text.contains("/metrics/slis"), "{text}");
    let (_, text) = get(node, "http://127.0.0.1:10249/flagz")?;
    ensure!(text.contains("\nhostname-override=n1\n") && text.contains("\nproxy-mode=ebpf\n"), "{text}");
    let accept = "Accept: application/json;v=v1beta1;g=config.k8s.io;as=Statusz";
    let object = node.command("curl").args(["-sS", "-H", accept, "http://127.0.0.1:10249/statusz"]).output()?;
    let object: Value = serde_json::from_slice(&object.stdout)?;
    ensure!(object["kind"] == "Statusz" && object["uptimeSeconds"].as_u64().is_some(), "{object}");
    cluster.shutdown()
}

#[test]
fn section_17_network_programming_is_measured_once_from_the_time_in_the_slice() -> Result<()> {
    const COUNT: &str = "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}";
    const SUM: &str = "kubeproxy_network_programming_duration_seconds_sum{ip_family=\"IPv4\"}";
    let mut cluster = Cluster::builder().api_server().build()?;
    let slice = |address: &str, at: &str| -> Result<String> {
        let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ", "-d", at]).output()?;
        let at = String::from_utf8(date.stdout)?.trim().to_owned();
        Ok(format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata:\n  name: web-1\n  namespace: default\n  \
             labels: {{kubernetes.io/service-name: web}}\n  annotations: {{endpoints.kubernetes.io/last-change-trigger-time: \"{at}\"}}\n\
             ports: [{{port: 8080, protocol: TCP}}]\nendpoints: [{{addresses: [{address}]}}]\n"
        ))
    };
    let counted = |node: &Node, expected: f64| {
        eventually(secs(20), || {
            let count = metric(&metrics(node)?, COUNT).unwrap_or_default();
            ensure!(count == expected, "{count} of {expected}");
            Ok(())
        })
    };
    // Before the start; then now; and again after the API server was away, with a change in the meantime.
    cluster.manifests().apply("slice.yaml", &slice("10.244.9.1", "1 hour ago")?)?;
    cluster.manifests().apply("slice.yaml", &slice("10.244.9.2", "now")?)?;
    counted(cluster.node(1), 1.0)?;
    let seconds = metric(&metrics(cluster.node(1))?, SUM)?;
    ensure!(seconds < 20.0, "it took {seconds} s, it is said");
    let requests = format!("rest_client_requests_total{{code=\"200\",host=\"{OUTSIDE_V4}:8080\",method=\"GET\"}}");
    ensure!(metric(&metrics(cluster.node(1))?, &requests)? >= 3.0, "three kinds are listed and watched");
    cluster.manifests_mut().kill_api_server()?;
    cluster.manifests_mut().restart_api_server_from(1_000)?;
    cluster.manifests().apply("slice.yaml", &slice("10.244.9.3", "now")?)?;
    counted(cluster.node(1), 2.0)?;
    cluster.shutdown()
}

#[test]
fn a_port_in_use_is_tried_again_or_ends_the_agent() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let blocker = in_netns(node, || TcpListener::bind("0.0.0.0:10256").context("the health port"))?;
    let mut command = node.agent().command("agent");
    let output = command.args(node.agent().arguments_with(&[("--bind-address-hard-fail", "true")])).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {told}", output.status);
    ensure!(told.contains("cannot serve health at 0.0.0.0:10256"), "{told}");
    ensure!(told.contains("FailedToStartProxierHealthcheck"), "the event goes to the log: {told}");
    node.agent().start()?;
    node.agent().wait_ready(secs(30))?;
    let status = || -> Result<String> {
        let output = node.agent().command("status").arg("--run-dir").arg(node.directory().join("run")).output()?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let told = status()?;
    ensure!(told.contains("problem: cannot serve health at 0.0.0.0:10256"), "{told}");
    let log = node.agent().log_tail();
    ensure!(log.contains("FailedToStartProxierHealthcheck"), "there should be an event: {log}");
    drop(blocker);
    eventually(secs(20), || {
        let (code, body) = healthz(node, "/livez")?;
        ensure!(code == 200, "{code} {body}");
        Ok(())
    })?;
    ensure!(!status()?.contains("cannot serve"), "{}", status()?);
    cluster.shutdown()
}

#[test]
fn section_11_4_events_are_written_as_kube_proxy_writes_them() -> Result<()> {
    let cluster = Cluster::builder().api_server().build()?;
    let node = cluster.node(1);
    let kubeconfig: Value = serde_json::from_str(&fs::read_to_string(kubeconfig(node)?)?)?;
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str().context("a server")?.trim_end_matches('/');
    eventually(secs(20), || {
        let (code, body) = get(node, &format!("{server}/apis/events.k8s.io/v1/namespaces/default/events"))?;
        ensure!(code == 200, "{code} {body}");
        let events: Value = serde_json::from_str(&body)?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let starting = events.iter().find(|event| event["reason"] == "Starting").context("not there yet")?;
        ensure!(starting["action"] == "StartKubeProxy" && starting["type"] == "Normal", "{starting}");
        ensure!(starting["reportingController"] == "kube-proxy", "{starting}");
        ensure!(starting["regarding"]["kind"] == "Node" && starting["regarding"]["name"] == "n1", "{starting}");
        Ok(())
    })?;
    cluster.shutdown()
}

fn kubeconfig(node: &Node) -> Result<String> {
    let arguments = node.agent().arguments();
    arguments.iter().find_map(|flag| flag.strip_prefix("--kubeconfig=")).map(str::to_owned).context("--kubeconfig")
}

fn in_netns<T: Send>(node: &Node, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let netns = fs::File::open(node.netns())?;
    std::thread::scope(|scope| {
        let work = scope.spawn(move || {
            let _inside = weft_netlink::NetnsGuard::enter(&netns.as_fd())?;
            work()
        });
        work.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
    })
}

#[test]
fn rule_11_1_an_update_that_cannot_be_written_is_unhealthy_until_it_is() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let (programs, broken) = (node.directory().join("programs"), node.directory().join("broken"));
    fs::create_dir(&programs)?;
    let names = ["iptables", "iptables-nft", "iptables-legacy", "ip6tables", "ip6tables-nft", "ip6tables-legacy"];
    for program in names.map(|name| format!("{name}-restore")) {
        let path = programs.join(&program);
        let script = format!("#!/bin/sh\n[ -e {} ] && exit 1\nexec /usr/sbin/{program} \"$@\"\n", broken.display());
        fs::write(&path, script)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let search = format!("{}:{}", programs.display(), std::env::var("PATH")?);
    let mut agent = node.agent().command("agent");
    // Twice the period is the limit.
    let flags = [("--proxy-mode", "iptables"), ("--iptables-sync-period", "1s")];
    let mut agent = agent
        .args(node.agent().arguments_with(&flags))
        .env("PATH", search)
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let livez = |expected: u16| {
        eventually(secs(30), || {
            let (code, body) = healthz(node, "/livez")?;
            ensure!(code == expected, "{code} {body}");
            Ok(())
        })
    };
    let result = (|| -> Result<()> {
        node.agent().wait_ready(secs(30))?;
        livez(200)?;
        fs::write(&broken, "")?;
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: late}\nspec: {clusterIP: 10.96.0.99, ports: [{port: 80}]}\n";
        cluster.manifests().apply("late.yaml", service)?;
        livez(503)?;
        let failures = "kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"}";
        ensure!(metric(&metrics(node)?, failures)? >= 1.0);
        ensure!(healthz(node, "/readyz")?.0 == 503);
        fs::remove_file(&broken)?;
        livez(200)?;
        Ok(())
    })();
    agent.kill()?;
    agent.wait()?;
    result?;
    cluster.shutdown()
}
