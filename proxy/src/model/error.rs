//! What is wrong with an object: which one, which field, which value, and what would be right.

use std::fmt;

use super::ObjectRef;

/// An object that cannot be used at all; the last good state of it stays in force.
///
/// Usual with hand-written manifests, very unusual behind an API server. Trying again with the same object fails again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub struct ObjectError {
    /// Which object.
    pub object: ObjectRef,
    /// Path of the field, as `kubectl explain` takes it, with indexes.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// One field or entry of an object that was left out; the rest of the object is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which object.
    pub object: ObjectRef,
    /// Path of the field, with indexes.
    pub field: String,
    /// Why it was left out.
    pub problem: Problem,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; ignored", self.object, self.field, self.problem)
    }
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is absent or empty.
    Missing {
        /// What belongs there.
        allowed: &'static str,
    },
    /// It has a value it cannot have.
    Invalid {
        /// The value, cut to [`VALUE_LIMIT`] characters.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// It repeats a value that must be there only once.
    Duplicate {
        /// The value, cut to [`VALUE_LIMIT`] characters.
        value: String,
    },
    /// It is not of the type the API gives it.
    Malformed {
        /// In the parser's words, cut to [`VALUE_LIMIT`] characters.
        problem: String,
    },
}

/// Characters of a wrong value that are shown; a log line must not grow with the input.
pub const VALUE_LIMIT: usize = 80;

impl Problem {
    pub(super) fn invalid(value: impl fmt::Display, allowed: &'static str) -> Self {
        Self::Invalid { value: shown(value), allowed }
    }

    pub(crate) fn malformed(problem: impl fmt::Display) -> Self {
        Self::Malformed { problem: shown(problem) }
    }

    pub(super) fn duplicate(value: impl fmt::Display) -> Self {
        Self::Duplicate { value: shown(value) }
    }
}

fn shown(value: impl fmt::Display) -> String {
    value.to_string().chars().take(VALUE_LIMIT).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { allowed } => write!(f, "missing, must be {allowed}"),
            Self::Invalid { value, allowed } => write!(f, "{value:?} is not allowed, must be {allowed}"),
            Self::Duplicate { value } => write!(f, "{value:?} appears twice"),
            Self::Malformed { problem } => write!(f, "cannot be read: {problem}"),
        }
    }
}

/// Collects the warnings of one object while it is checked.
pub(crate) struct Check {
    object: ObjectRef,
    warnings: Vec<Warning>,
}

impl Check {
    pub(crate) fn new(object: ObjectRef) -> Self {
        Self { object, warnings: Vec::new() }
    }

    pub(crate) fn object(&self) -> &ObjectRef {
        &self.object
    }

    pub(crate) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }

    /// The whole object is refused.
    pub(crate) fn refuse(&self, field: impl Into<String>, problem: Problem) -> ObjectError {
        ObjectError { object: self.object.clone(), field: field.into(), problem }
    }

    /// One entry is left out.
    pub(super) fn skip(&mut self, field: impl Into<String>, problem: Problem) {
        self.warnings.push(Warning { object: self.object.clone(), field: field.into(), problem });
    }
}
