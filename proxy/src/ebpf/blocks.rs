//! Which elements of a `BACKENDS` array are taken: a buddy allocator.

use std::collections::BTreeSet;

/// A run of elements with one backend set in it. It occupies the next power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    /// First element; a multiple of the size occupied.
    pub(crate) base: u32,
    /// Elements in use, at least 1.
    pub(crate) count: u32,
}

impl Block {
    /// Binary logarithm of the size occupied.
    fn order(self) -> usize {
        self.count.next_power_of_two().trailing_zeros() as usize
    }
}

/// Free elements, as blocks of powers of two aligned to their size. Two free neighbours that were split from one block are one again
/// at once, so fragments do not add up over the months an agent runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Bases of the free blocks of size `1 << index`.
    free: Vec<BTreeSet<u32>>,
    /// Elements in all blocks handed out, whether the block needs them or not.
    taken: u32,
}

impl Blocks {
    /// All of `capacity` elements free; a power of two.
    pub(crate) fn new(capacity: u32) -> Self {
        assert!(capacity.is_power_of_two(), "{capacity} was rounded by weft_ebpf::MapSizes");
        let mut free = vec![BTreeSet::new(); capacity.trailing_zeros() as usize + 1];
        free.last_mut().expect("there is at least order 0").insert(0);
        Self { free, taken: 0 }
    }

    /// How many elements are not free.
    pub(crate) fn taken(&self) -> u32 {
        self.taken
    }

    /// Takes a block for `count` elements, at least 1; the lowest that needs the least splitting. `None` if there is none.
    pub(crate) fn allocate(&mut self, count: u32) -> Option<Block> {
        let wanted = Block { base: 0, count }.order();
        let order = (wanted..self.free.len()).find(|&order| !self.free[order].is_empty())?;
        let base = self.free[order].pop_first()?;
        for half in wanted..order {
            self.free[half].insert(base + (1 << half));
        }
        self.taken += 1 << wanted;
        Some(Block { base, count })
    }

    /// Takes just this block, as found in the kernel. `false`, and nothing changes, unless it is aligned and wholly free.
    pub(crate) fn reserve(&mut self, block: Block) -> bool {
        let wanted = block.order();
        if block.count == 0 || block.base & ((1 << wanted) - 1) != 0 {
            return false;
        }
        let containing = |order: usize| block.base & !((1_u32 << order) - 1);
        let Some(order) = (wanted..self.free.len()).find(|&order| self.free[order].contains(&containing(order))) else {
            return false;
        };
        self.free[order].remove(&containing(order));
        for half in wanted..order {
            // Of the two halves of a block of `half + 1`, the one without ours stays free.
            self.free[half].insert(containing(half) ^ (1 << half));
        }
        self.taken += 1 << wanted;
        true
    }

    /// Gives a block back that was taken.
    pub(crate) fn release(&mut self, block: Block) {
        let mut base = block.base;
        let mut order = block.order();
        self.taken -= 1 << order;
        while order + 1 < self.free.len() && self.free[order].remove(&(base ^ (1 << order))) {
            base &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(base);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_rounded_up_and_aligned() {
        let mut blocks = Blocks::new(16);
        assert_eq!(blocks.allocate(3), Some(Block { base: 0, count: 3 }));
        assert_eq!(blocks.allocate(1), Some(Block { base: 4, count: 1 }));
        assert_eq!(blocks.allocate(5), Some(Block { base: 8, count: 5 }));
        assert_eq!(blocks.allocate(3), None);
        assert_eq!(blocks.allocate(2), Some(Block { base: 6, count: 2 }));
        assert_eq!(blocks.taken(), 15);
    }

    #[test]
    fn more_than_there_is_does_not_fit() {
        let mut blocks = Blocks::new(8);
        assert_eq!(blocks.allocate(9), None);
        assert_eq!(blocks.allocate(8), Some(Block { base: 0, count: 8 }));
        assert_eq!(blocks.allocate(1), None);
    }

    #[test]
    fn what_is_found_is_taken_out_of_the_middle() {
        let mut blocks = Blocks::new(16);
        let found = Block { base: 6, count: 2 };
        assert!(blocks.reserve(found));
        assert!(!blocks.reserve(found), "twice");
        assert!(!blocks.reserve(Block { base: 4, count: 4 }), "overlapping");
        assert!(!blocks.reserve(Block { base: 9, count: 2 }), "not aligned");
        assert!(!blocks.reserve(Block { base: 16, count: 1 }), "outside");
        assert!(!blocks.reserve(Block { base: 0, count: 0 }), "empty");
        assert_eq!(blocks.allocate(4), Some(Block { base: 0, count: 4 }));
        assert_eq!(blocks.allocate(8), Some(Block { base: 8, count: 8 }));
        blocks.release(found);
        assert_eq!(blocks.allocate(3), Some(Block { base: 4, count: 3 }));
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_all_comes_back(steps in prop::collection::vec((any::<bool>(), 1_u32..40), 1..200)) {
            let mut blocks = Blocks::new(256);
            let mut taken: Vec<Block> = Vec::new();
            for (allocate, number) in steps {
                if allocate {
                    let Some(block) = blocks.allocate(number) else { continue };
                    for other in &taken {
                        let apart = block.base + block.count <= other.base || other.base + other.count <= block.base;
                        prop_assert!(apart, "{block:?} overlaps {other:?}");
                    }
                    taken.push(block);
                } else if !taken.is_empty() {
                    blocks.release(taken.swap_remove(number as usize % taken.len()));
                }
            }
            let mut rebuilt = Blocks::new(256);
            for block in &taken {
                prop_assert!(rebuilt.reserve(*block));
            }
            prop_assert_eq!(&rebuilt, &blocks, "the state is a function of what is taken");
            for block in taken {
                blocks.release(block);
            }
            prop_assert_eq!(blocks, Blocks::new(256));
        }
    }
}
