//! What a check found, and how findings are shown.

use std::fmt::Write;

use serde::Serialize;

/// What a finding is about; findings are shown in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Area {
    /// Flags and files of the agent.
    Configuration,
    /// What the kernel can, and what this process may.
    Kernel,
    /// Parameters of the kernel.
    Sysctls,
    /// Ports somebody listens at.
    Ports,
    /// What other networks left.
    Leftovers,
    /// Directories and files of CNI.
    Cni,
    /// The API server.
    Api,
    /// The agent of this node.
    Agent,
    /// The ways to the other nodes.
    Paths,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Worth to be known; nothing needs to be done.
    Note,
    /// Works now, but will not under some circumstances.
    Warning,
    /// Something does not work.
    Problem,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) area: Area,
    /// Name of the check, for programs.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    /// What was seen.
    pub(crate) seen: String,
    /// What to do about it; `None`: nothing.
    pub(crate) advice: Option<String>,
}

impl Finding {
    /// All is well.
    pub(crate) fn ok(area: Area, check: &'static str, seen: impl Into<String>) -> Self {
        Self { area, check, verdict: Verdict::Ok, seen: seen.into(), advice: None }
    }

    /// Something to be known.
    pub(crate) fn note(area: Area, check: &'static str, seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::ok(area, check, seen) }
    }

    /// Something that may go wrong, and what to do.
    pub(crate) fn warning(area: Area, check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, advice: Some(advice.into()), ..Self::ok(area, check, seen) }
    }

    /// Something that is wrong, and what to do.
    pub(crate) fn problem(area: Area, check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, advice: Some(advice.into()), ..Self::ok(area, check, seen) }
    }

    /// The same with something to do about it.
    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// The text for people: a group an area, what is well in few words, a count at the end.
pub(crate) fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut area = None;
    for finding in findings {
        if area.replace(finding.area) != Some(finding.area) {
            let _ = writeln!(text, "{}", title(finding.area));
        }
        let mark = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Warning => "WARNING",
            Verdict::Problem => "PROBLEM",
        };
        let _ = writeln!(text, "  {mark:<8} {}: {}", finding.check, finding.seen);
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "  {:<8} -> {advice}", "");
        }
    }
    let count = |verdict, what: &str| {
        let count = findings.iter().filter(|finding| finding.verdict == verdict).count();
        format!("{count} {what}{}", if count == 1 { "" } else { "s" })
    };
    let _ = writeln!(text, "{}, {}", count(Verdict::Problem, "problem"), count(Verdict::Warning, "warning"));
    text
}

fn title(area: Area) -> &'static str {
    match area {
        Area::Configuration => "Configuration",
        Area::Kernel => "Kernel",
        Area::Sysctls => "Kernel parameters",
        Area::Ports => "Ports",
        Area::Leftovers => "Other networks on this node",
        Area::Cni => "CNI",
        Area::Api => "API server",
        Area::Agent => "Agent",
        Area::Paths => "Paths to the other nodes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_grouped_with_what_to_do() {
        let findings = [
            Finding::ok(Area::Kernel, "version", "6.12.1"),
            Finding::problem(Area::Kernel, "cgroup2", "not mounted", "mount it"),
            Finding::warning(Area::Ports, "port", "taken", "free it"),
        ];
        let expected = "\
Kernel
  ok       version: 6.12.1
  PROBLEM  cgroup2: not mounted
           -> mount it
Ports
  WARNING  port: taken
           -> free it
1 problem, 1 warning
";
        assert_eq!(render(&findings), expected);
        let json = serde_json::to_value(&findings[1]).unwrap();
        assert_eq!(json["verdict"], "problem");
        assert_eq!(json["area"], "kernel");
    }
}
