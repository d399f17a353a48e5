//! `weft`: the node agent and the operator's command.
//!
//! Parses and exits; [`entry`] checks the configuration, [`app`] wires the agent, [`commands`] talks to a running one.
//!
//! A Service's way to the kernel: [`app`] connects a source (`source/kube.rs` or `source/dir.rs`), which delivers objects, to
//! the Services thread (`services/mod.rs`). There the planner (`proxy/src/plan/planner.rs`) turns them into Service ports,
//! which `services/planes.rs` hands to the data planes, such as `proxy/src/ebpf/mod.rs`.

mod allocator;
mod app;
mod causes;
mod cgroup;
mod cli;
mod cni_files;
mod commands;
mod config;
mod conntrack_parameters;
mod data_planes;
mod entry;
mod events;
mod health;
mod host_ports;
mod log;
mod metrics;
mod node_addresses;
mod pod_network;
mod port_owners;
mod privileges;
mod removal;
mod server;
mod services;
mod source;
mod status;
mod trace;

use std::process::ExitCode;

use crate::cli::Command;

fn main() -> ExitCode {
    match cli::parse().command {
        Command::Agent(args) => {
            allocator::configure();
            entry::agent(&args)
        }
        Command::Status(args) => commands::status(&args),
        Command::Services(args) => commands::services(&args),
        Command::Trace(args) => commands::trace(&args),
        Command::Peers(args) => commands::peers(&args),
        Command::Pods(args) => commands::pods(&args),
        Command::Doctor(args) => commands::doctor(&args),
        Command::Cleanup(args) if args.legacy.legacy => commands::cleanup_legacy(&args),
        Command::Cleanup(args) => entry::cleanup(&args.agent),
        Command::Version(args) => commands::version(&args),
        Command::Completion { shell } => commands::completion(shell),
    }
}
