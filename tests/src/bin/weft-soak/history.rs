//! Which states a client may have met, and whether what it met was right.
//!
//! A state may be met from the moment its object is written until the agent has said that its successor is in the kernel.

use std::{collections::VecDeque, net::SocketAddr};

use crate::{
    addresses::{Client, Frontend, is_udp},
    truth::{Truth, Verdict},
};

/// One attempt of a client. Times in microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) client: Client,
    pub(crate) service: u32,
    pub(crate) frontend: Frontend,
    pub(crate) v6: bool,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) outcome: Outcome,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This endpoint answered.
    Reached(SocketAddr),
    /// `std::io::ErrorKind` by name.
    Failed(String),
}

/// A time in which a client's failures are no fault of the agent: somebody has just removed its rules.
#[derive(Clone, Debug)]
pub(crate) struct Excuse {
    pub(crate) from: u64,
    /// `None`: until further notice.
    pub(crate) until: Option<u64>,
    pub(crate) kind: Damage,
}

/// What was damaged: who may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Everybody.
    AllPaths,
    /// Who is served by packets and not at the socket: outside.
    FromOutside,
}

/// How an attempt is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Right,
    /// It failed, as it may just then.
    Excused,
    /// Why it is wrong.
    Wrong(String),
}

struct State {
    from: u64,
    /// `None`: it is the last, or its successor is not known to be in the kernel.
    until: Option<u64>,
    truth: Truth,
}

/// States of all Services.
pub(crate) struct History {
    services: Vec<VecDeque<State>>,
    /// Services with a state that is not confirmed.
    unconfirmed: Vec<u32>,
    excuses: Vec<Excuse>,
}

/// States that ended longer ago than any attempt lasts are forgotten.
const KEPT_US: u64 = 60_000_000;

impl History {
    /// A history that begins now.
    pub(crate) fn new(truths: impl Iterator<Item = Truth>) -> Self {
        let services = truths.map(|truth| VecDeque::from([State { from: 0, until: None, truth }])).collect();
        Self { services, unconfirmed: Vec::new(), excuses: Vec::new() }
    }

    /// A Service is about to change: to be called before the object is written.
    pub(crate) fn announce(&mut self, service: u32, truth: Truth, now: u64) {
        self.services[service as usize].push_back(State { from: now, until: None, truth });
        self.unconfirmed.push(service);
    }

    /// All that was announced is in the kernel.
    pub(crate) fn confirm(&mut self, now: u64) {
        for service in self.unconfirmed.drain(..) {
            let states = &mut self.services[service as usize];
            let last = states.len() - 1;
            for state in states.iter_mut().take(last) {
                state.until.get_or_insert(now);
            }
            states.retain(|state| state.until.is_none_or(|until| until + KEPT_US > now));
        }
    }

    pub(crate) fn excuse(&mut self, kind: Damage, from: u64) {
        self.excuses.push(Excuse { from, until: None, kind });
    }

    /// The damage is repaired.
    pub(crate) fn end_excuses(&mut self, now: u64) {
        for excuse in &mut self.excuses {
            excuse.until.get_or_insert(now);
        }
    }

    pub(crate) fn judge(&self, seen: &Observation) -> Judgement {
        let states = self.services[seen.service as usize].iter();
        let met = states.filter(|state| state.from <= seen.end && state.until.is_none_or(|until| until >= seen.start));
        let verdicts: Vec<_> = met.map(|state| state.truth.verdict(seen.client, seen.frontend, seen.v6)).collect();
        if is_right(&seen.outcome, &verdicts, is_udp(seen.service)) {
            return Judgement::Right;
        }
        if matches!(seen.outcome, Outcome::Failed(_)) && self.excuses.iter().any(|excuse| excuse.covers(seen)) {
            return Judgement::Excused;
        }
        Judgement::Wrong(format!("{seen:?}, while it was {verdicts:?}"))
    }
}

impl Excuse {
    fn covers(&self, seen: &Observation) -> bool {
        let concerned = self.kind == Damage::AllPaths || seen.client == Client::Outside;
        concerned && self.from <= seen.end && self.until.is_none_or(|until| until >= seen.start)
    }
}

fn is_right(outcome: &Outcome, verdicts: &[Verdict], udp: bool) -> bool {
    match outcome {
        Outcome::Reached(address) => {
            verdicts.iter().any(|verdict| matches!(verdict, Verdict::Endpoints(list) if list.contains(address)))
        }
        // UDP is refused in several ways (docs/modes.md), TCP in one.
        Outcome::Failed(kind) if verdicts.iter().all(|verdict| *verdict == Verdict::Reject) => {
            udp || kind == "ConnectionRefused"
        }
        Outcome::Failed(_) => verdicts.iter().any(|verdict| !matches!(verdict, Verdict::Endpoints(_))),
    }
}
