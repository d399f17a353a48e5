//! Clusters with real agents and real packets.

mod fixture;
mod network;
mod operation;
mod resilience;
mod services;
