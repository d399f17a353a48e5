//! Numbers of backend sets (`ROUND_ROBIN`) and of endpoint counters (`CONNECTIONS`).

use std::collections::BTreeSet;

/// Hands out the lowest free number below a limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    capacity: u32,
    /// No number from here on was ever taken.
    fresh: u32,
    /// Free numbers below `fresh`.
    returned: BTreeSet<u32>,
}

impl Ids {
    /// All of `0..capacity` free.
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity, fresh: 0, returned: BTreeSet::new() }
    }

    /// How many are free.
    pub(crate) fn available(&self) -> usize {
        (self.capacity - self.fresh) as usize + self.returned.len()
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> u32 {
        self.fresh - self.returned.len() as u32
    }

    /// Takes one.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        if let Some(id) = self.returned.pop_first() {
            return Some(id);
        }
        (self.fresh < self.capacity).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    /// Takes just this one, as found in the kernel. `false` unless it is in range and free.
    pub(crate) fn reserve(&mut self, id: u32) -> bool {
        if id >= self.capacity {
            return false;
        }
        if id < self.fresh {
            return self.returned.remove(&id);
        }
        self.returned.extend(self.fresh..id);
        self.fresh = id + 1;
        true
    }

    /// Gives one back.
    pub(crate) fn release(&mut self, id: u32) {
        self.returned.insert(id);
        while self.fresh.checked_sub(1).is_some_and(|last| self.returned.remove(&last)) {
            self.fresh -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_one_is_next() {
        let mut ids = Ids::new(4);
        assert!(ids.reserve(2));
        assert!(!ids.reserve(2), "twice");
        assert!(!ids.reserve(4), "out of range");
        assert_eq!((ids.available(), ids.taken()), (3, 1));
        assert_eq!([ids.allocate(), ids.allocate(), ids.allocate(), ids.allocate()], [Some(0), Some(1), Some(3), None]);
        ids.release(1);
        assert_eq!(ids.allocate(), Some(1));
        for id in [3, 0, 2, 1] {
            ids.release(id);
        }
        assert_eq!(ids, Ids::new(4));
    }
}
