//! `manifests/`: what an operator applies is what the API takes and the agent wants.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api_server;
mod apply;
mod flags;
mod guides;
mod metrics;
mod paths;
mod render;
mod roles;
mod systemd;
mod types;
