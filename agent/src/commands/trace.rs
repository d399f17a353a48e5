//! `weft trace`: asks the agent what becomes of connections, and prints the answers.

use std::{fmt::Write, fs, io::Read, path::Path, process::ExitCode};

use super::{client, finish};
use crate::{
    cli::{Output, TraceArgs},
    trace::{
        From, QuestionError, To,
        answer::{Answer, Asked, EndpointTrace, Party, Trace, TraceVerdict},
    },
};

/// Exit code 1 when there are findings or the agent cannot be asked, 2 when a question makes no sense.
pub(crate) fn trace(args: &TraceArgs) -> ExitCode {
    let asked = match questions(args) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("weft trace: {problem}");
            return ExitCode::from(2);
        }
    };
    let body = serde_json::to_vec(&asked).expect("text is JSON");
    let answers: Result<Vec<Answer>, String> =
        client::post(&args.query.run_dir, "/trace", body).map_err(|error| error.to_string());
    let is_good = |answer: &Answer| matches!(answer, Answer::Trace(trace) if trace.findings.is_empty());
    let all_good = answers.as_ref().is_ok_and(|answers| answers.iter().all(is_good));
    let printed = match (args.batch.is_some(), answers) {
        (true, answers) => finish(args.query.output, answers, |answers| lines(&asked, answers)),
        (false, Err(problem)) => finish::<Trace>(Output::Table, Err(problem), |_| String::new()),
        (false, Ok(mut answers)) => match answers.pop() {
            Some(Answer::Trace(trace)) => finish(args.query.output, Ok(*trace), paragraphs),
            Some(Answer::Error { error }) => finish::<Trace>(Output::Table, Err(error), |_| String::new()),
            None => finish::<Trace>(Output::Table, Err("the agent gave no answer".to_owned()), |_| String::new()),
        },
    };
    if all_good { printed } else { ExitCode::FAILURE }
}

fn questions(args: &TraceArgs) -> Result<Vec<Asked>, String> {
    let asked = match (&args.batch, &args.from, &args.to) {
        (Some(path), _, _) => batch(path)?,
        (None, Some(from), Some(to)) => vec![Asked { from: from.clone(), to: to.clone() }],
        _ => return Err("FROM and TO are needed, or --batch".to_owned()),
    };
    let check = |asked: &Asked| -> Result<(), QuestionError> {
        asked.from.parse::<From>()?;
        asked.to.parse::<To>().map(drop)
    };
    asked.iter().try_for_each(check).map_err(|error| error.to_string())?;
    Ok(asked)
}

fn batch(path: &Path) -> Result<Vec<Asked>, String> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|error| format!("read {}: {error}", path.display()))?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let questions = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [from, to] = words[..] else {
            return Err(format!("{}:{number}: {line:?} is not FROM TO", path.display()));
        };
        Ok(Asked { from: from.to_owned(), to: to.to_owned() })
    });
    questions.collect()
}

/// A line a question, for many.
fn lines(asked: &[Asked], answers: &[Answer]) -> String {
    let mut text = String::new();
    for (asked, answer) in asked.iter().zip(answers) {
        let said = match answer {
            Answer::Trace(trace) => {
                let findings: String = trace.findings.iter().map(|finding| format!("; FINDING: {finding}")).collect();
                format!("{}{findings}", headline(trace))
            }
            Answer::Error { error } => format!("ERROR: {error}"),
        };
        let _ = writeln!(text, "{} -> {}: {said}", asked.from, asked.to);
    }
    text
}

fn headline(trace: &Trace) -> String {
    let by = &trace.decided_by;
    match trace.verdict {
        TraceVerdict::Untouched => "no Service is concerned".to_owned(),
        TraceVerdict::Reject => format!("refused by {by}"),
        TraceVerdict::Drop => format!("dropped by {by}"),
        TraceVerdict::Endpoints => {
            let list: Vec<String> = trace.endpoints.iter().map(place).collect();
            let next = trace.next.as_ref().map(|next| format!("; next {}:{}", next.address, next.port));
            format!("one of {} by {by}{}", list.join(", "), next.unwrap_or_default())
        }
    }
}

fn paragraphs(trace: &Trace) -> String {
    let mut text = String::new();
    let mut line = |name: &str, said: &str| {
        let _ = writeln!(text, "{name:<9} {said}");
    };
    line("From", &party(&trace.from));
    line("To", &party(&trace.to));
    match &trace.frontend {
        Some(frontend) => {
            let port = if frontend.port.is_empty() { String::new() } else { format!(":{}", frontend.port) };
            let affinity = frontend.affinity_seconds.map(|seconds| format!(", session affinity {seconds} s"));
            let affinity = affinity.unwrap_or_default();
            line("Frontend", &format!("{} of Service {}{port}{affinity}", frontend.kind, frontend.service));
        }
        None => line("Frontend", "none"),
    }
    line("Rule", &trace.rule);
    line("Verdict", &headline(trace));
    if let Some(next) = &trace.next {
        line("Next", &format!("{}, {}", std::net::SocketAddr::new(next.address, next.port), next.why));
    }
    for endpoint in &trace.endpoints {
        let masqueraded = match &endpoint.masqueraded {
            Some(by) => format!("masqueraded ({by})"),
            None => "keeps its source address".to_owned(),
        };
        line("Way", &format!("{}: {}, {masqueraded}", place(endpoint), way(endpoint)));
    }
    for step in &trace.steps {
        line("Kernel", step);
    }
    for note in &trace.notes {
        line("Note", note);
    }
    for finding in &trace.findings {
        line("FINDING", finding);
    }
    if trace.findings.is_empty() {
        line("Findings", "none: the kernel does what was planned");
    }
    text
}

fn party(party: &Party) -> String {
    let mut text = party.kind.clone();
    for part in [&party.name, &party.address.map(|address| address.to_string())].into_iter().flatten() {
        let _ = write!(text, " {part}");
    }
    if let (Some(port), Some(protocol)) = (party.port, party.protocol) {
        let _ = write!(text, " port {port}/{}", protocol.lowercase());
    }
    if let Some(interface) = &party.interface {
        let _ = write!(text, ", comes in by {interface}");
    }
    text
}

fn place(endpoint: &EndpointTrace) -> String {
    let at = match endpoint.port {
        Some(port) => std::net::SocketAddr::new(endpoint.address, port).to_string(),
        None => endpoint.address.to_string(),
    };
    match &endpoint.pod {
        Some(pod) => format!("{at} ({pod})"),
        None => at,
    }
}

fn way(endpoint: &EndpointTrace) -> String {
    let way = &endpoint.way;
    let device = way.device.as_deref().unwrap_or("-");
    let gateway = way.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    match way.kind.as_str() {
        "local" => "this node itself".to_owned(),
        "none" => "no route".to_owned(),
        "pod" => format!("a pod of this node behind {device}"),
        "vxlan" => {
            let mac = way.mac.as_deref().unwrap_or("?");
            let peer = way.peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string());
            format!("{device}{gateway}, VTEP {mac} at {peer}")
        }
        _ => format!("{device}{gateway}"),
    }
}
