//! A client process that makes many requests at once: no process has to start for each of them.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{Answers, Background, Place, Request};

/// The answer to one question of an [`Asker`]; a line of JSON on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Number of the question.
    pub id: u64,
    /// Who answered.
    pub answers: Answers,
}

type Waiting = Arc<Mutex<HashMap<u64, Sender<Answers>>>>;

/// A client process in one place, for any number of threads; dropping it kills it.
#[derive(Debug)]
pub struct Asker {
    place: Place,
    _process: Background,
    questions: Mutex<(u64, ChildStdin)>,
    waiting: Waiting,
}

impl Asker {
    pub(crate) fn start(place: &Place) -> Result<Self> {
        let mut process = place.background(&["ask".to_owned()])?;
        let (stdin, stdout) = process.pipes()?;
        let waiting = Waiting::default();
        thread::spawn({
            let waiting = Arc::clone(&waiting);
            move || deliver(BufReader::new(stdout), &waiting)
        });
        Ok(Self { place: place.clone(), _process: process, questions: Mutex::new((0, stdin)), waiting })
    }

    /// Makes requests and waits for the answers, as [`Place::request`] does.
    ///
    /// # Errors
    /// The client has ended.
    pub fn ask(&self, request: &Request) -> Result<Answers> {
        let (sender, answer) = channel();
        {
            let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
            questions.0 += 1;
            let id = questions.0;
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
            let words = request.arguments()[1..].join(" ");
            writeln!(questions.1, "{id} {words}").with_context(|| format!("ask the client in {}", self.place))?;
        }
        answer.recv().with_context(|| format!("the client in {} has ended", self.place))
    }
}

/// Hands every answer to who waits for it; at the end of the process nobody has to wait any longer.
fn deliver(stdout: BufReader<ChildStdout>, waiting: &Waiting) {
    let waiting = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    for line in stdout.lines() {
        let Some(asked) = line.ok().and_then(|line| serde_json::from_str::<Asked>(&line).ok()) else { break };
        if let Some(sender) = waiting().remove(&asked.id) {
            let _ = sender.send(asked.answers);
        }
    }
    waiting().clear();
}
