//! A sudden loss of most objects in one list is held back: an API server that was restored from an old or empty backup
//! answers as if everything had been deleted, and a node that believed it would drop all its traffic.
//!
//! Objects that are deleted one by one, as a watch reports them, are believed always.

use std::{
    collections::HashSet,
    fs,
    hash::{BuildHasher, Hash, RandomState},
    io,
    path::{Path, PathBuf},
};

/// What to do with a full list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is all there is.
    Believed,
    /// Take what is in it, delete nothing: of `known` objects these are missing.
    Held {
        /// How many of the objects before are not in the list.
        missing: usize,
        /// How many there were before.
        known: usize,
    },
    /// Take nothing: it has less than half of what an earlier process on this node knew, whose work still stands in the
    /// kernel.
    Refused {
        /// How many there were.
        known: usize,
    },
}

impl Verdict {
    /// What to tell people about a list of `listed` objects of a kind that is not believed, such as `Nodes`.
    pub fn explain(&self, kind: &str, listed: usize) -> Option<String> {
        let (known, kept) = match self {
            Self::Believed => return None,
            Self::Held { missing, known } => (known, format!("the {missing} it does not have are kept")),
            Self::Refused { known } => (known, "what stands in the kernel stays".to_owned()),
        };
        Some(format!(
            "{kind}: the API server lists {listed} where there were {known}, as after a restored backup: {kept}. \
             If they are really gone, restart the agent with --trust-empty-lists"
        ))
    }
}

/// Decides whether the lists of one kind are believed.
///
/// Of an object's key only the hash is kept: names of ten thousand objects are a megabyte, and only their number is asked
/// for. The seed is of the process, so that nobody can choose names that look like one.
#[derive(Debug)]
pub struct ListGuard {
    trusting: bool,
    /// Objects that were delivered and not deleted since; `None` before the first list that was not refused.
    known: Option<HashSet<u64>>,
    /// Of the known ones those that a held list did not have.
    missing: HashSet<u64>,
    seed: RandomState,
    memory: Memory,
}

impl ListGuard {
    /// `trusting` believes every list. In `file` the number of objects outlives the process; it should be on a file system
    /// that a reboot empties, as the kernel state it stands for is.
    pub fn new(trusting: bool, file: Option<PathBuf>) -> Self {
        let (missing, seed) = (HashSet::new(), RandomState::new());
        Self { trusting, known: None, missing, seed, memory: Memory::open(file) }
    }

    /// Judges a full list by the keys of its objects.
    pub fn list(&mut self, present: impl IntoIterator<Item = impl Hash>) -> Verdict {
        let present: HashSet<u64> = present.into_iter().map(|key| self.seed.hash_one(key)).collect();
        let is_loss = |now: usize, before: usize| now * 2 < before;
        match &mut self.known {
            None if !self.trusting && is_loss(present.len(), self.memory.number) => {
                return Verdict::Refused { known: self.memory.number };
            }
            Some(known) if !self.trusting => {
                let missing: HashSet<u64> = known.difference(&present).copied().collect();
                let loss = is_loss(known.len() - missing.len(), known.len());
                // Half of them coming back says nothing about the others.
                if loss || (!self.missing.is_empty() && !missing.is_empty()) {
                    let count = known.len();
                    known.extend(present);
                    self.missing = missing;
                    return Verdict::Held { missing: self.missing.len(), known: count };
                }
            }
            _ => {}
        }
        self.memory.note(present.len());
        self.known = Some(present);
        self.missing.clear();
        Verdict::Believed
    }

    /// An object is there. True if it was the last missing one.
    pub fn applied(&mut self, key: impl Hash) -> bool {
        let key = self.seed.hash_one(key);
        if let Some(known) = &mut self.known
            && known.insert(key)
        {
            self.memory.note(known.len());
        }
        self.missing.remove(&key) && self.missing.is_empty()
    }

    /// An object is gone, by its own event. True if it was the last missing one.
    pub fn deleted(&mut self, key: impl Hash) -> bool {
        let key = self.seed.hash_one(key);
        if let Some(known) = &mut self.known {
            known.remove(&key);
            self.memory.note(known.len());
        }
        self.missing.remove(&key) && self.missing.is_empty()
    }

    /// How many objects are kept although the API server does not have them.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }
}

/// The number of objects, roughly, in a file.
#[derive(Debug)]
struct Memory {
    file: Option<PathBuf>,
    number: usize,
}

impl Memory {
    fn open(file: Option<PathBuf>) -> Self {
        let text = file.as_deref().and_then(|file| fs::read_to_string(file).ok());
        Self { number: text.and_then(|text| text.trim().parse().ok()).unwrap_or(0), file }
    }

    /// Written only when it differs by more than a quarter, so that a change does not cost a write.
    fn note(&mut self, number: usize) {
        if self.number.abs_diff(number) * 4 <= self.number && number != 0 {
            return;
        }
        self.number = number;
        if let Some(file) = &self.file
            && let Err(error) = write(file, number)
        {
            tracing::warn!(file = %file.display(), %error, "cannot note how many objects there are");
            self.file = None;
        }
    }
}

fn write(file: &Path, number: usize) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, format!("{number}\n"))?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
        numbers.map(|number| format!("default/web-{number}"))
    }

    fn guard_that_knows(count: usize) -> ListGuard {
        let mut guard = ListGuard::new(false, None);
        assert_eq!(guard.list(keys(0..count)), Verdict::Believed);
        guard
    }

    #[test]
    fn half_may_go_more_is_held() {
        assert_eq!(guard_that_knows(10).list(keys(0..5)), Verdict::Believed);
        let held = guard_that_knows(10).list(keys(0..4));
        assert_eq!(held, Verdict::Held { missing: 6, known: 10 });
        assert!(matches!(guard_that_knows(1).list(keys(0..0)), Verdict::Held { .. }));
        // Others in their place do not make up for them.
        assert!(matches!(guard_that_knows(10).list(keys(10..20)), Verdict::Held { .. }));
    }

    #[test]
    fn what_is_held_stays_held_until_all_is_back_or_deleted() {
        let mut guard = guard_that_knows(4);
        guard.list(keys(0..1));
        assert_eq!(guard.list(keys(0..3)), Verdict::Held { missing: 1, known: 4 });
        assert!(!guard.applied("default/web-0"));
        assert!(guard.applied("default/web-3"));
        assert_eq!(guard.list(keys(0..4)), Verdict::Believed);
        guard.list(keys(0..1));
        assert!(!guard.deleted("default/web-1") && !guard.deleted("default/web-2") && guard.deleted("default/web-3"));
        assert_eq!((guard.missing(), guard.list(keys(0..1))), (0, Verdict::Believed));
    }

    #[test]
    fn deletions_one_by_one_are_believed() {
        let mut guard = guard_that_knows(10);
        for key in keys(1..10) {
            guard.deleted(key);
        }
        assert_eq!(guard.list(keys(0..1)), Verdict::Believed);
    }

    #[test]
    fn a_new_process_refuses_what_has_less_than_half() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = || Some(directory.path().join("services"));
        assert_eq!(ListGuard::new(false, file()).list(keys(0..10)), Verdict::Believed);

        let mut second = ListGuard::new(false, file());
        assert_eq!(second.list(keys(0..4)), Verdict::Refused { known: 10 });
        assert_eq!(second.list(keys(0..10)), Verdict::Believed);
        for key in keys(1..10) {
            second.deleted(key);
        }
        assert_eq!(ListGuard::new(false, file()).list(keys(0..1)), Verdict::Believed);
        assert_eq!(ListGuard::new(true, file()).list(keys(0..0)), Verdict::Believed);
        Ok(())
    }

    #[test]
    fn what_is_not_believed_is_explained() {
        let held = guard_that_knows(10).list(keys(0..4));
        let text = held.explain("Services", 4).unwrap_or_default();
        assert!(text.starts_with("Services: the API server lists 4 where there were 10, as"), "{text}");
        assert!(text.contains("the 6 it does not have are kept") && text.contains("--trust-empty-lists"), "{text}");
        assert_eq!(Verdict::Believed.explain("Services", 4), None);
        assert!(Verdict::Refused { known: 10 }.explain("Nodes", 4).is_some());
    }

    #[test]
    fn a_trusting_guard_believes_everything() {
        let mut guard = ListGuard::new(true, None);
        assert_eq!(guard.list(keys(0..10)), Verdict::Believed);
        assert_eq!(guard.list(keys(0..0)), Verdict::Believed);
    }
}
