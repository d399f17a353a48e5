//! Clusters with real agents and real packets.

mod api_trouble;
mod cni;
mod config;
mod doctor;
mod fixture;
mod flows;
mod guides;
mod health;
mod health_checks;
mod host_port;
mod kube;
mod leases;
mod legacy;
mod limits;
mod modes;
mod network;
mod node_settings;
mod operation;
mod peers;
mod real_api_server;
mod resilience;
mod second_line;
mod services;
mod single;
mod takeover;
mod trace;
