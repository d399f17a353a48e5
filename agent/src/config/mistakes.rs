//! What is wrong with the configuration, or worth to be said about it.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// One mistake in the configuration: where, which value, what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// `--flag`, or `file: field`.
    pub(crate) origin: String,
    /// The value as given; empty when it is missing.
    pub(crate) value: String,
    /// What is allowed instead.
    pub(crate) problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}: {}", self.origin, self.problem)
        } else {
            write!(f, "{}: {:?}: {}", self.origin, self.value, self.problem)
        }
    }
}

/// Collects mistakes while values are read, so that one does not hide the next.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    list: Vec<Mistake>,
    notices: Vec<String>,
}

impl Mistakes {
    /// Notes a mistake.
    pub(crate) fn add(&mut self, origin: impl Into<String>, value: impl ToString, problem: impl Into<String>) {
        self.list.push(Mistake { origin: origin.into(), value: value.to_string(), problem: problem.into() });
    }

    /// Notes what is no mistake, but worth to be said once.
    pub(crate) fn notice(&mut self, text: impl Into<String>) {
        self.notices.push(text.into());
    }

    /// All mistakes, and all that is none.
    pub(super) fn into_lists(self) -> (Vec<Mistake>, Vec<String>) {
        (self.list, self.notices)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// The number, if it is one of these; else a mistake is noted.
    pub(crate) fn whole<T>(&mut self, origin: &str, text: &str, allowed: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let number = text.parse().ok().filter(|number| allowed.contains(number));
        self.check(origin, text, number.ok_or_else(|| format!("must be {} to {}", allowed.start(), allowed.end())))
    }

    /// The value, or its error noted.
    pub(crate) fn check<T, E: ToString>(&mut self, origin: &str, value: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(origin, value, error.to_string())).ok()
    }
}
