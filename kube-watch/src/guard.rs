//! A sudden loss of most objects in one list is held back: an API server that was restored from an old or empty backup
//! answers as if everything had been deleted, and a node that believed it would drop all its traffic.
//!
//! Objects that are deleted one by one, as a watch reports them, are believed always.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// What to do with a full list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is all there is.
    Believed,
    /// Take what is in it, delete nothing: of `known` objects these are missing.
    Held {
        /// Keys of the objects that are not in the list.
        missing: BTreeSet<String>,
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

/// Decides whether the lists of one kind are believed.
#[derive(Debug)]
pub struct ListGuard {
    trusting: bool,
    /// Objects that were delivered and not deleted since; `None` before the first list that was not refused.
    known: Option<BTreeSet<String>>,
    /// Of the known ones those that a held list did not have.
    missing: BTreeSet<String>,
    memory: Memory,
}

impl ListGuard {
    /// `trusting` believes every list. In `file` the number of objects outlives the process; it should be on a file system
    /// that a reboot empties, as the kernel state it stands for is.
    pub fn new(trusting: bool, file: Option<PathBuf>) -> Self {
        Self { trusting, known: None, missing: BTreeSet::new(), memory: Memory::open(file) }
    }

    /// Judges a full list by the keys of its objects.
    pub fn list(&mut self, present: BTreeSet<String>) -> Verdict {
        let is_loss = |now: usize, before: usize| now * 2 < before;
        match &mut self.known {
            None if !self.trusting && is_loss(present.len(), self.memory.number) => {
                return Verdict::Refused { known: self.memory.number };
            }
            Some(known) if !self.trusting => {
                let missing: BTreeSet<String> = known.difference(&present).cloned().collect();
                let loss = is_loss(known.len() - missing.len(), known.len());
                // Half of them coming back says nothing about the others.
                if loss || (!self.missing.is_empty() && !missing.is_empty()) {
                    let count = known.len();
                    known.extend(present);
                    self.missing.clone_from(&missing);
                    return Verdict::Held { missing, known: count };
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
    pub fn applied(&mut self, key: &str) -> bool {
        if let Some(known) = self.known.as_mut().filter(|known| !known.contains(key)) {
            known.insert(key.to_owned());
            self.memory.note(known.len());
        }
        self.missing.remove(key) && self.missing.is_empty()
    }

    /// An object is gone, by its own event. True if it was the last missing one.
    pub fn deleted(&mut self, key: &str) -> bool {
        if let Some(known) = &mut self.known {
            known.remove(key);
            self.memory.note(known.len());
        }
        self.missing.remove(key) && self.missing.is_empty()
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

    fn keys(numbers: std::ops::Range<usize>) -> BTreeSet<String> {
        numbers.map(|number| format!("default/web-{number}")).collect()
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
        assert_eq!(held, Verdict::Held { missing: keys(4..10), known: 10 });
        assert!(matches!(guard_that_knows(1).list(keys(0..0)), Verdict::Held { .. }));
        // Others in their place do not make up for them.
        assert!(matches!(guard_that_knows(10).list(keys(10..20)), Verdict::Held { .. }));
    }

    #[test]
    fn what_is_held_stays_held_until_all_is_back_or_deleted() {
        let mut guard = guard_that_knows(4);
        guard.list(keys(0..1));
        assert_eq!(guard.list(keys(0..3)), Verdict::Held { missing: keys(3..4), known: 4 });
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
            guard.deleted(&key);
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
            second.deleted(&key);
        }
        assert_eq!(ListGuard::new(false, file()).list(keys(0..1)), Verdict::Believed);
        assert_eq!(ListGuard::new(true, file()).list(keys(0..0)), Verdict::Believed);
        Ok(())
    }

    #[test]
    fn a_trusting_guard_believes_everything() {
        let mut guard = ListGuard::new(true, None);
        assert_eq!(guard.list(keys(0..10)), Verdict::Believed);
        assert_eq!(guard.list(keys(0..0)), Verdict::Believed);
    }
}
