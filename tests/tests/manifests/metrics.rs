//! Rules and dashboard ask for metrics that there are, with labels that they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde_json::Value;

use crate::render::{Tree, directory, objects, only};

/// What Prometheus itself adds, and what `pod-monitor.yaml` does.
const TARGET_LABELS: &[&str] = &["job", "node"];

/// Labels of each metric, by the table of `docs/metrics.md`; those of a histogram's series by their names.
fn documented() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = fs::read_to_string(directory().parent().context("the repository")?.join("docs/metrics.md"))?;
    let quoted = Regex::new("`([a-z_]+)`")?;
    let mut metrics = BTreeMap::from([("up".to_owned(), BTreeSet::new())]);
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels: BTreeSet<String> = quoted.captures_iter(cells[3]).map(|found| found[1].to_owned()).collect();
        let name = cells[1].trim_matches('`').to_owned();
        if cells[2] == "histogram" {
            let with_le: BTreeSet<String> = labels.iter().cloned().chain(["le".to_owned()]).collect();
            metrics.insert(format!("{name}_bucket"), with_le);
            metrics.insert(format!("{name}_sum"), labels.clone());
            metrics.insert(format!("{name}_count"), labels);
        } else {
            metrics.insert(name, labels);
        }
    }
    ensure!(metrics.len() > 40, "docs/metrics.md has no table of metrics any more");
    Ok(metrics)
}

/// Metrics that an expression asks for, and labels that it selects, groups by, or shows.
fn check(expression: &str, metrics: &BTreeMap<String, BTreeSet<String>>) -> Result<()> {
    let metric = Regex::new(r"\b(?:weft|kubeproxy|process)_[a-z_]+\b|\bup\b")?;
    let label = Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*""#)?;
    let by = Regex::new(r"\bby \(([^)]*)\)")?;
    let mut known: BTreeSet<&str> = TARGET_LABELS.iter().copied().collect();
    let mut asked = 0;
    for found in metric.find_iter(expression) {
        let labels = metrics.get(found.as_str()).with_context(|| format!("there is no {}", found.as_str()))?;
        known.extend(labels.iter().map(String::as_str));
        asked += 1;
    }
    ensure!(asked > 0, "it asks for no metric");
    let selected = label.captures_iter(expression).map(|found| found[1].to_owned());
    let grouped: Vec<String> = by
        .captures_iter(expression)
        .flat_map(|found| found[1].split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    for label in selected.chain(grouped) {
        ensure!(known.contains(label.as_str()), "no metric in it has the label {label}");
    }
    balanced(expression)
}

fn balanced(expression: &str) -> Result<()> {
    let mut open = Vec::new();
    for found in expression.chars() {
        match found {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' => ensure!(open.pop() == Some(found), "{found} closes nothing"),
            _ => {}
        }
    }
    ensure!(open.is_empty(), "{open:?} is missing");
    Ok(())
}

#[test]
fn alerts_ask_for_metrics_that_there_are() -> Result<()> {
    let metrics = documented()?;
    let all = objects(&Tree::copy()?.monitoring())?;
    let shown = Regex::new(r"\$labels\.([a-z_]+)")?;
    let mut names = BTreeSet::new();
    for rule in only(&all, "PrometheusRule")?["spec"]["groups"][0]["rules"].as_array().context("rules")? {
        let name = rule["alert"].as_str().context("alert")?;
        ensure!(names.insert(name), "{name} is there twice");
        let expression = rule["expr"].as_str().context("expr")?;
        check(expression, &metrics).with_context(|| format!("{name}: {expression}"))?;
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["warning", "critical"].contains(&severity), "{name}: severity {severity:?}");
        for field in ["summary", "description"] {
            let text = rule["annotations"][field].as_str().with_context(|| format!("{name}: {field}"))?;
            for label in shown.captures_iter(text) {
                let has = |metric: &str| metrics.get(metric).is_some_and(|labels| labels.contains(&label[1]));
                let metric = metrics.keys().find(|metric| expression.contains(metric.as_str()) && has(metric));
                ensure!(TARGET_LABELS.contains(&&label[1]) || metric.is_some(), "{name}: {field} shows {}", &label[1]);
            }
        }
    }
    Ok(())
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() -> Result<()> {
    let metrics = documented()?;
    let all = objects(&Tree::copy()?.monitoring())?;
    let map = only(&all, "ConfigMap")?;
    ensure!(map["metadata"]["labels"]["grafana_dashboard"] == "1", "Grafana's sidecar looks for the label");
    let dashboard: Value = serde_json::from_str(map["data"]["weft.json"].as_str().context("weft.json")?)?;
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        ensure!(ids.insert(panel["id"].as_u64()), "{} has the id of another", panel["title"]);
        ensure!(!panel["description"].as_str().unwrap_or_default().is_empty(), "{} says nothing", panel["title"]);
        for target in panel["targets"].as_array().context("targets")? {
            let expression = target["expr"].as_str().context("expr")?;
            check(expression, &metrics).with_context(|| format!("{}: {expression}", panel["title"]))?;
        }
    }
    Ok(())
}

#[test]
fn the_monitor_finds_the_pods() -> Result<()> {
    let all = objects(&Tree::copy()?.monitoring())?;
    let spec = &only(&all, "PodMonitor")?["spec"];
    let pod = crate::flags::Pod::of("kubeadm")?;
    let ports = pod.container()["ports"].as_array().context("ports")?;
    ensure!(ports.iter().any(|port| port["name"] == spec["podMetricsEndpoints"][0]["port"]));
    let overlay = crate::render::overlay("kubeadm")?;
    let labels = &only(&overlay, "DaemonSet")?["spec"]["template"]["metadata"]["labels"];
    ensure!(spec["selector"]["matchLabels"] == *labels, "{labels}");
    Ok(())
}

#[test]
fn unknown_metrics_and_labels_are_found() -> Result<()> {
    let metrics = documented()?;
    for wrong in [
        "weft_peer > 0",
        "weft_peers{nodes=\"n1\"} > 0",
        "sum by (map) (weft_peers)",
        "rate(weft_cni_add_duration_seconds[5m])",
        "sum(weft_peers",
        "1 > 0",
    ] {
        assert!(check(wrong, &metrics).is_err(), "{wrong}");
    }
    Ok(())
}
