//! The elements of the array maps: who has them, and since when nobody has them any more.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use weft_ebpf::{Full, MapSizes};
use weft_ebpf_abi::name;

use super::{
    blocks::{Block, Blocks},
    ids::Ids,
};
use crate::model::IpFamily;

/// How long an element is left alone after the last reference to it was replaced. A program that has read the reference may be about to
/// read the element; that takes microseconds, and a second is long enough even for one that is preempted.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(1);

/// Something in an array map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// A run of `BACKENDS4` or `BACKENDS6`.
    Block(IpFamily, Block),
    /// An element of `ROUND_ROBIN`.
    Set(u32),
    /// An element of `CONNECTIONS`.
    Counter(u32),
}

/// What one Service port asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// Lengths of the blocks.
    pub(crate) blocks: Vec<u32>,
    pub(crate) sets: usize,
    pub(crate) counters: usize,
}

/// What it gets, in the order asked.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    pub(crate) blocks: VecDeque<Block>,
    pub(crate) sets: VecDeque<u32>,
    pub(crate) counters: VecDeque<u32>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Storage {
    sizes: MapSizes,
    blocks4: Blocks,
    blocks6: Blocks,
    sets: Ids,
    counters: Ids,
    /// Oldest first.
    quarantine: VecDeque<(Instant, Item)>,
}

impl Storage {
    pub(crate) fn new(sizes: MapSizes) -> Self {
        Self {
            sizes,
            blocks4: Blocks::new(sizes.of(name::BACKENDS4)),
            blocks6: Blocks::new(sizes.of(name::BACKENDS6)),
            sets: Ids::new(sizes.of(name::ROUND_ROBIN)),
            counters: Ids::new(sizes.of(name::CONNECTIONS)),
            quarantine: VecDeque::new(),
        }
    }

    /// The sizes of the maps.
    pub(crate) fn sizes(&self) -> MapSizes {
        self.sizes
    }

    /// How many elements of each array are not free, in quarantine or in use.
    pub(crate) fn taken(&self) -> [(&'static str, u32); 4] {
        [
            (name::BACKENDS4, self.blocks4.taken()),
            (name::BACKENDS6, self.blocks6.taken()),
            (name::ROUND_ROBIN, self.sets.taken()),
            (name::CONNECTIONS, self.counters.taken()),
        ]
    }

    fn full(&self, map: &'static str) -> Full {
        Full { map, capacity: self.sizes.of(map) }
    }

    /// Takes all that is asked for, or nothing.
    pub(crate) fn allocate(&mut self, family: IpFamily, request: &Request) -> Result<Grant, Full> {
        if self.sets.available() < request.sets {
            return Err(self.full(name::ROUND_ROBIN));
        }
        if self.counters.available() < request.counters {
            return Err(self.full(name::CONNECTIONS));
        }
        let mut grant = Grant::default();
        for &count in &request.blocks {
            let Some(block) = self.blocks(family).allocate(count) else {
                for block in grant.blocks {
                    self.blocks(family).release(block);
                }
                let map = match family {
                    IpFamily::V4 => name::BACKENDS4,
                    IpFamily::V6 => name::BACKENDS6,
                };
                return Err(self.full(map));
            };
            grant.blocks.push_back(block);
        }
        grant.sets.extend((0..request.sets).filter_map(|_| self.sets.allocate()));
        grant.counters.extend((0..request.counters).filter_map(|_| self.counters.allocate()));
        Ok(grant)
    }

    /// Takes what was found in the kernel. `false` if it cannot be, or was taken already.
    pub(crate) fn reserve(&mut self, item: Item) -> bool {
        match item {
            Item::Block(family, block) => self.blocks(family).reserve(block),
            Item::Set(id) => self.sets.reserve(id),
            Item::Counter(id) => self.counters.reserve(id),
        }
    }

    /// Gives back what the kernel is about to lose the last reference to; it is free again after [`QUARANTINE`].
    pub(crate) fn retire(&mut self, item: Item, now: Instant) {
        self.quarantine.push_back((now, item));
    }

    /// Frees what has been in quarantine long enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(since, item)) = self.quarantine.front()
            && now.saturating_duration_since(since) >= QUARANTINE
        {
            self.quarantine.pop_front();
            match item {
                Item::Block(family, block) => self.blocks(family).release(block),
                Item::Set(id) => self.sets.release(id),
                Item::Counter(id) => self.counters.release(id),
            }
        }
    }

    /// What is in quarantine.
    pub(crate) fn quarantined(&self) -> impl Iterator<Item = Item> {
        self.quarantine.iter().map(|&(_, item)| item)
    }

    /// Whether everything is free; `false` while something is in quarantine.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let Self { sizes: _, blocks4, blocks6, sets, counters, quarantine } = self;
        let fresh = Self::new(self.sizes);
        quarantine.is_empty()
            && (blocks4, blocks6) == (&fresh.blocks4, &fresh.blocks6)
            && (sets, counters) == (&fresh.sets, &fresh.counters)
    }

    fn blocks(&mut self, family: IpFamily) -> &mut Blocks {
        match family {
            IpFamily::V4 => &mut self.blocks4,
            IpFamily::V6 => &mut self.blocks6,
        }
    }
}
