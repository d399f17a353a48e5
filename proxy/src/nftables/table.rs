//! The tables we make.

use std::fmt;

use super::ruleset::TABLE_NAME;

/// Which of our tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Table {
    /// The one that is there all the time.
    #[default]
    Ours,
    /// Has the same content while [`Table::Ours`] is made anew in another layout, and is asked before it.
    ///
    /// It cannot be done by one transaction: the kernel puts the hooks of a new table before those of the old one. A packet that is
    /// between the two while they are exchanged has met the new one when that had no rules yet, and meets the old one when it has
    /// none any more: nothing translates it, and the filter chains refuse it.
    StandIn,
}

impl Table {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => TABLE_NAME,
            Self::StandIn => "weft-proxy-stand-in",
        }
    }

    /// The priority of a hook whose priority in [`Table::Ours`] is `priority`. Of two tables the one that goes must be asked first: then
    /// a packet that it leaves alone meets the other as it is afterwards.
    pub(crate) const fn priority(self, priority: i32) -> i32 {
        match self {
            Self::Ours => priority,
            Self::StandIn => priority - 1,
        }
    }
}

/// With its family, as nft commands want it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inet {}", self.name())
    }
}
