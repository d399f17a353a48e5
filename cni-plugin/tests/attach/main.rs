//! The real binary, in throw-away network namespaces. Needs root; touches nothing outside those namespaces.
//! Numbers in test names are those of the requirement list, `docs/cni-requirements.md`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod bandwidth;
mod chain;
mod check;
mod crash;
mod delegate;
mod failures;
mod gc;
mod host_port;
mod kit;
mod lifecycle;
mod load;
mod protocol;
mod requirements;
mod runtime;
mod status;
mod traffic;
