//! CNI plugin of Weft: one exec, synchronous, netlink only.
//!
//! Standard output carries the result or the error of the specification and nothing else; standard error is for logs.
//! Section numbers such as R1.4 or A1 in comments are those of the requirement list, `docs/cni-requirements.md`.
//!
//! A library only for the sake of the fuzz targets, which need the readers of foreign bytes ([`input`]), and of the agent, which shows
//! the [`pods()`] of its node and restores their host ports.

mod add;
mod args;
mod attachment;
mod bandwidth;
mod check;
mod config;
mod del;
mod delegate;
mod dns;
mod env;
mod error;
mod extras;
mod gc;
mod host_port;
pub mod input;
mod ipam;
mod latency;
mod plugin;
mod pods;
mod result;
mod sandbox;
mod status;
mod subnet_env;
mod teardown;
mod version;
mod veth;

pub use host_port::{HOST_PORTS_TABLE, HostPortsError, restore_host_ports};
pub use plugin::run;
pub use pods::{Pod, PodHostPort, PodsError, pods};
