//! `weft doctor`: looks for what keeps Weft from working on this node, before it is installed and in trouble.
//!
//! Changes nothing. Each part looks at one area; what it sees is judged by pure functions.

mod agent;
mod api;
mod cni;
mod configuration;
mod finding;
mod kernel;
mod leftovers;
mod paths;
mod ports;
mod sysctls;

use std::process::ExitCode;

use weft_overlay::OverlayStatus;

use super::{client, write_out};
use crate::{
    cli::{DoctorArgs, Output},
    config::Outline,
    status::Status,
};
use finding::{Finding, Verdict, render};

/// What the parts look at.
struct Context {
    args: DoctorArgs,
    /// What the flags and the files they name say.
    outline: Outline,
    /// Name of this node.
    node: String,
    /// What the agent says, if one answers.
    status: Option<Status>,
}

impl Context {
    /// `answer`: of the agent.
    fn new(args: DoctorArgs, answer: Option<Status>) -> Self {
        let outline = Outline::read(&args.agent);
        let configured = outline.node_name.clone().unwrap_or_default();
        let node = match (&args.agent.hostname_override, &answer) {
            (None, Some(status)) => status.node.clone(),
            _ => configured,
        };
        Self { args, outline, node, status: answer }
    }

    /// The pod network of the running agent.
    fn overlay(&self) -> Option<&OverlayStatus> {
        self.status.as_ref()?.overlay.as_ref()
    }

    /// Whether a component runs, or is to run where no agent does yet.
    fn wants(&self, component: &str) -> bool {
        match &self.status {
            Some(_) => self.runs(component),
            None => self.outline.components.names().iter().any(|name| name == component),
        }
    }

    /// Whether an agent runs with this component.
    fn runs(&self, component: &str) -> bool {
        self.status.as_ref().is_some_and(|status| status.components.iter().any(|name| name == component))
    }

    /// Whether an agent serves Services here.
    fn serves(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.proxy.is_some())
    }

    /// Names of the tunnels of the running agent.
    fn own_devices(&self) -> Vec<String> {
        let overlay = self.overlay();
        let v6 = overlay.and_then(|overlay| overlay.ipv6.as_ref()).and_then(|family| family.device.clone());
        overlay.and_then(|overlay| overlay.ipv4.device.clone()).into_iter().chain(v6).collect()
    }
}

/// Exit code 1 when there is a problem; notes and warnings are none.
pub(crate) fn main(args: &DoctorArgs) -> ExitCode {
    let findings = examine(args.clone());
    let text = match args.output {
        Output::Table => render(&findings),
        Output::Json => match serde_json::to_string_pretty(&findings) {
            Ok(json) => json + "\n",
            Err(error) => {
                eprintln!("weft doctor: {error}");
                return ExitCode::FAILURE;
            }
        },
    };
    let written = write_out(&text);
    let is_problem = |finding: &Finding| finding.verdict == Verdict::Problem;
    if findings.iter().any(is_problem) { ExitCode::FAILURE } else { written }
}

fn examine(args: DoctorArgs) -> Vec<Finding> {
    let answer = client::get::<Status>(&args.agent.paths.run_dir, "/status").map_err(|error| error.to_string());
    let (status, silence) = match answer {
        Ok(status) => (Some(status), String::new()),
        Err(why) => (None, why),
    };
    let context = Context::new(args, status);
    let mut findings = configuration::check(&context);
    findings.extend(kernel::check(&context));
    findings.extend(sysctls::check(&context));
    findings.extend(ports::check(&context));
    findings.extend(leftovers::check(&context));
    findings.extend(cni::check(&context));
    let (of_api, others) = api::check(&context);
    findings.extend(of_api);
    findings.extend(agent::check(context.status.as_ref().ok_or(silence.as_str())));
    findings.extend(paths::check(&context, &others));
    findings
}

#[cfg(test)]
impl Context {
    /// With these flags, on a node where no agent answers.
    fn without_agent(flags: &[&str]) -> Self {
        use crate::cli::{Command, parse_from};

        let words = ["weft", "doctor"].iter().chain(flags).map(Into::into);
        match parse_from(words).expect("flags are good").command {
            Command::Doctor(args) => Self::new(*args, None),
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_parts_and_mode_need_is_looked_at() {
        let checks = |flags: &[&str]| {
            let context = Context::without_agent(flags);
            let (kernel, cni) = (kernel::check(&context), cni::check(&context));
            kernel.iter().chain(&cni).map(|finding| finding.check).collect::<Vec<_>>()
        };
        let (all, services) = (checks(&[]), checks(&["--components=proxy", "--proxy-mode=nftables"]));
        for check in ["bpffs", "cgroup2", "vxlan", "configuration-order"] {
            assert!(all.contains(&check) && !services.contains(&check), "{check}: {all:?}, {services:?}");
        }
    }
}
