//! Kubernetes Services on one node: model, planner and data planes.
//!
//! `model` and `plan` hold all Kubernetes semantics and do no I/O: they import neither aya, netlink, kube nor tokio.
//! `ebpf`, `nftables` and `iptables` carry a plan into the kernel and decide nothing.

pub mod dataplane;
pub mod ebpf;
pub mod iptables;
pub mod model;
pub mod nftables;
pub mod plan;
mod program;
