//! `weft trace`: what becomes of a connection from one place to another, by the plan and by the kernel.
//!
//! `question` reads what is asked, `decide` says what the plan means for it, `weft_proxy::*::live` what the kernel would do,
//! `way` how packets get there; `compare` tells where plan and kernel differ. Only reads.

pub(crate) mod answer;
mod compare;
mod decide;
mod place;
mod question;
mod run;
mod way;

use std::{path::PathBuf, time::Duration};

use weft_overlay::OverlayStatus;
use weft_proxy::dataplane::Desired;

pub(crate) use decide::{Mode, Rules};
pub(crate) use question::{From, QuestionError, To, is_name};

use self::answer::{Answer, Asked};
use crate::services;

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    /// BPF file system of the socket programs.
    pub(crate) bpffs: PathBuf,
    /// cgroup2 directory they are attached to; `None`: the mounted root.
    pub(crate) cgroup_root: Option<PathBuf>,
    /// Where weft-cni keeps its reservations, a directory a network.
    pub(crate) networks: PathBuf,
    /// `--ip-masq`.
    pub(crate) ip_masq: bool,
}

/// What is planned at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// All Service ports.
    pub(crate) desired: Desired,
    /// How they are served.
    pub(crate) rules: Rules,
    /// What keeps the kernel from having them.
    pub(crate) error: Option<String>,
}

/// A question that cannot be answered, or the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// FROM or TO is nobody.
    #[error("{0}")]
    Unknown(String),
    /// FROM or TO is no name.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
    /// The kernel could not be asked.
    #[error("ask the kernel: {0}")]
    Kernel(String),
}

/// How often, and after what pause, a question is asked again whose answer has findings: the plan may have changed between
/// the look at it and the look at the kernel, and the pod network's repairs take a moment.
const AGAIN: u32 = 2;
const PAUSE: Duration = Duration::from_millis(150);

/// Most questions that are answered by one look at the plan.
const CHUNK: usize = 250;

/// Answers questions, in order. Reading the kernel is left to a thread of its own.
///
/// # Errors
/// The kernel cannot be asked, or the agent is stopping. What is wrong with one question is its answer.
pub(crate) async fn answer_all(
    services: &services::Handle,
    basis: &Basis,
    overlay: Option<OverlayStatus>,
    asked: Vec<Asked>,
) -> Result<Vec<Answer>, TraceError> {
    let mut answers = Vec::with_capacity(asked.len());
    for chunk in asked.chunks(CHUNK) {
        answers.extend(look(services, basis, overlay.clone(), chunk.to_vec()).await?);
    }
    for _ in 0..AGAIN {
        let doubtful: Vec<usize> = (0..answers.len()).filter(|index| has_findings(&answers[*index])).collect();
        if doubtful.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let again = doubtful.iter().map(|index| asked[*index].clone()).collect();
        let second = look(services, basis, overlay.clone(), again).await?;
        for (index, answer) in doubtful.into_iter().zip(second) {
            answers[index] = answer;
        }
    }
    Ok(answers)
}

fn has_findings(answer: &Answer) -> bool {
    matches!(answer, Answer::Trace(trace) if !trace.findings.is_empty())
}

async fn look(
    services: &services::Handle,
    basis: &Basis,
    overlay: Option<OverlayStatus>,
    asked: Vec<Asked>,
) -> Result<Vec<Answer>, TraceError> {
    let snapshot = services.snapshot().await.ok_or(TraceError::Stopping)?;
    let basis = basis.clone();
    let work = move || run::run(&basis, &snapshot, overlay.as_ref(), &asked);
    let answers = tokio::task::spawn_blocking(work).await.map_err(|error| TraceError::Kernel(error.to_string()))??;
    let answer = |answer: Result<_, TraceError>| match answer {
        Ok(trace) => Answer::Trace(Box::new(trace)),
        Err(error) => Answer::Error { error: error.to_string() },
    };
    Ok(answers.into_iter().map(answer).collect())
}
