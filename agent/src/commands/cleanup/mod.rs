//! `weft cleanup --legacy`: removes what flannel and kube-proxy left on this node.
//!
//! What Weft has taken over from flannel stays: its tunnel, `subnet.env`, the chains. `weft cleanup` removes those.

mod flannel;
mod kube_proxy;
mod running;

use std::process::ExitCode;

use serde::Serialize;
use weft_netlink::{Netlink, NftQuery};

use super::{client, write_out};
use crate::{
    cli::{CleanupArgs, Output},
    privileges::{self, Capability},
    status::Status,
};

/// Something that is there and can be removed.
struct Leftover {
    /// What, as it is listed.
    what: String,
    remove: Box<dyn FnOnce() -> anyhow::Result<()>>,
}

impl Leftover {
    fn new(what: impl Into<String>, remove: impl FnOnce() -> anyhow::Result<()> + 'static) -> Self {
        Self { what: what.into(), remove: Box::new(remove) }
    }
}

/// What was done, or would be.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    /// Why nothing was removed.
    refused: Vec<String>,
    removed: Vec<String>,
    failed: Vec<String>,
}

/// Exit code 1 when it refuses, or something could not be removed.
pub(crate) fn main(args: &CleanupArgs) -> ExitCode {
    let missing = privileges::missing(&[Capability::NetAdmin]);
    let report = match missing.is_empty() {
        true => work(args).unwrap_or_else(|error| failure(args, format!("{error:#}"))),
        false => failure(args, missing.join("; ")),
    };
    let text = match args.legacy.output {
        Output::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
        Output::Table => render(&report),
    };
    let written = write_out(&text);
    if report.refused.is_empty() && report.failed.is_empty() { written } else { ExitCode::FAILURE }
}

fn failure(args: &CleanupArgs, error: String) -> Report {
    Report { dry_run: args.legacy.dry_run, refused: Vec::new(), removed: Vec::new(), failed: vec![error] }
}

fn work(args: &CleanupArgs) -> anyhow::Result<Report> {
    let netlink = Netlink::open()?;
    let links = netlink.links()?;
    let mut leftovers = flannel::find(&links, &args.agent.paths, taken_over(args));
    leftovers.extend(kube_proxy::find(&links)?);
    let mut refused = running::programs();
    refused.extend(flannel::attached(&links));
    if args.legacy.force {
        refused.clear();
    }
    let mut report = Report { refused, ..failure(args, String::new()) };
    report.failed.clear();
    if args.legacy.dry_run {
        report.removed = leftovers.into_iter().map(|leftover| leftover.what).collect();
        return Ok(report);
    }
    if !report.refused.is_empty() {
        return Ok(report);
    }
    // One that cannot be removed does not keep the others.
    for Leftover { what, remove } in leftovers {
        match remove() {
            Ok(()) => report.removed.push(what),
            Err(error) => report.failed.push(format!("{what}: {error:#}")),
        }
    }
    Ok(report)
}

/// Whether flannel's tunnel and files on this node are Weft's now. It need not run: its network outlives it.
fn taken_over(args: &CleanupArgs) -> bool {
    let paths = &args.agent.paths;
    let agent = client::get::<Status>(&paths.run_dir, "/status").is_ok_and(|status| status.overlay.is_some());
    let tables = NftQuery::open().and_then(|mut query| query.tables()).unwrap_or_default();
    agent
        || paths.cni_conf_dir.join("10-weft.conflist").exists()
        || tables.iter().any(|table| table == "inet weft-overlay")
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut lines = |prefix: &str, list: &[String]| {
        for line in list {
            text += &format!("{prefix}{line}\n");
        }
    };
    lines("refused: ", &report.refused);
    lines(if report.dry_run { "would remove " } else { "removed " }, &report.removed);
    lines("NOT removed: ", &report.failed);
    if !report.refused.is_empty() {
        text += "nothing is removed; take these off the node first, or add --force\n";
    } else if report.removed.is_empty() && report.failed.is_empty() {
        text += "nothing of flannel or kube-proxy is left\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_to_do() {
        let report = |refused: &[&str], removed: &[&str], dry_run| {
            let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            render(&Report { dry_run, refused: texts(refused), removed: texts(removed), failed: Vec::new() })
        };
        assert_eq!(report(&[], &[], false), "nothing of flannel or kube-proxy is left\n");
        assert_eq!(report(&[], &["device cni0"], true), "would remove device cni0\n");
        assert!(report(&["flanneld runs"], &[], false).ends_with("or add --force\n"));
    }
}
