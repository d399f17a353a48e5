//! Takes what the clients see, and compares it with the history.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Receiver},
    thread::{self, JoinHandle},
};

use serde::Serialize;

use crate::{
    addresses::Client,
    history::{History, Judgement, Observation, Outcome},
};

/// Wrong answers told in full.
const TOLD: usize = 20;

/// What the clients of one place met.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// An endpoint answered, one that was allowed to.
    pub(crate) reached: u64,
    /// Failed, as it should: refused, dropped, or no such Service.
    pub(crate) failed_rightly: u64,
    /// Failed while somebody else's damage was not repaired.
    pub(crate) excused: u64,
    /// Neither.
    pub(crate) wrong: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) tallies: BTreeMap<Client, Tally>,
    pub(crate) wrong: Vec<String>,
}

impl Verdicts {
    pub(crate) fn attempts(&self) -> u64 {
        self.tallies.values().map(|t| t.reached + t.failed_rightly + t.excused + t.wrong).sum()
    }
}

/// What driver and judge share.
#[derive(Clone)]
pub(crate) struct Court {
    history: Arc<Mutex<History>>,
    verdicts: Arc<Mutex<Verdicts>>,
}

impl Court {
    pub(crate) fn new(history: History) -> Self {
        Self { history: Arc::new(Mutex::new(history)), verdicts: Arc::default() }
    }

    /// Judges until the last client is gone.
    ///
    /// Every attempt is written to `trace` too.
    pub(crate) fn judge(&self, seen: Receiver<Observation>, trace: Option<File>) -> JoinHandle<()> {
        let court = self.clone();
        let mut trace = trace.map(BufWriter::new);
        thread::spawn(move || {
            for observation in seen {
                let judgement = court.take(&observation);
                if let Some(trace) = &mut trace {
                    let _ = writeln!(trace, "{observation:?} {judgement:?}");
                }
            }
        })
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn verdicts(&self) -> Verdicts {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, seen: &Observation) -> Judgement {
        let judgement = self.history().judge(seen);
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = verdicts.tallies.entry(seen.client).or_default();
        match (&judgement, &seen.outcome) {
            (Judgement::Right, Outcome::Reached(_)) => tally.reached += 1,
            (Judgement::Right, Outcome::Failed(_)) => tally.failed_rightly += 1,
            (Judgement::Excused, _) => tally.excused += 1,
            (Judgement::Wrong(why), _) => {
                tally.wrong += 1;
                if verdicts.wrong.len() < TOLD {
                    verdicts.wrong.push(why.clone());
                }
            }
        }
        judgement
    }
}
