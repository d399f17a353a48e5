//! `manifests/`: what an operator applies is what the API takes and the agent wants.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod apply;
mod flags;
mod metrics;
mod paths;
mod render;
mod roles;
mod systemd;
mod types;
