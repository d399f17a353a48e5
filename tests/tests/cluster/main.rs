//! Clusters with real agents and real packets.

mod fixture;
mod kube;
mod leases;
mod modes;
mod network;
mod operation;
mod resilience;
mod services;
