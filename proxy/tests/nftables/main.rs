//! The nftables data plane in a real kernel: a client outside, a node, pods, and real connections.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod balance;
#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
#[path = "../support/killed.rs"]
mod killed;
mod node;
mod rules;
mod scale;
mod sctp;
#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
#[path = "../support/mod.rs"]
mod support;
mod takeover;
