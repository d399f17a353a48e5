//! The agent's flags and the files they name, if the doctor was given any.

use super::{
    Context,
    finding::{Area, Finding},
};

const AREA: Area = Area::Configuration;
const CHECK: &str = "configuration";

/// All mistakes. Nothing is said without flags, for the agent will get some; nor of those that a running agent started with.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    if !context.args.agent.given.any() || context.status.is_some() {
        return Vec::new();
    }
    let advice = "the agent does not start with just these flags: correct it, or give all that the agent gets";
    let mistakes = context.outline.mistakes.iter();
    let mut findings: Vec<Finding> =
        mistakes.map(|mistake| Finding::warning(AREA, CHECK, mistake.to_string(), advice)).collect();
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, CHECK, "the flags, and the files they name, are good"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn mistakes_of_flags_are_told_and_no_flags_are_none() {
        let verdicts = |flags: &[&str]| {
            let found = check(&Context::without_agent(flags));
            found.iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&[]), []);
        assert_eq!(verdicts(&["--components=proxy"]), [Verdict::Ok]);
        assert_eq!(verdicts(&["--components=proxy", "--proxy-mode=ipvs", "--v=x"]), [Verdict::Warning; 2]);
    }
}
