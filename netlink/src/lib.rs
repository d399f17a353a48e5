//! Synchronous, typed, idempotent netlink.
