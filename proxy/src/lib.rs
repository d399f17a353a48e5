//! Kubernetes Services on one node: model, planner and data planes.
//!
//! `model` and `plan` hold all Kubernetes semantics and do no I/O: they import neither aya, netlink, kube nor tokio.
//! `ebpf`, `nftables` and `iptables` carry a plan into the kernel and decide nothing.
//! `conntrack` and `udp_sockets` clean up behind UDP endpoints that went, `health_check` answers for this node,
//! `kube_proxy` finds and removes what a real kube-proxy left. `live` asks the kernel what it would do with a connection.

pub mod conntrack;
pub mod dataplane;
pub mod ebpf;
pub mod health_check;
pub mod iptables;
pub mod kube_proxy;
pub mod live;
pub mod model;
pub mod nftables;
mod packed;
pub mod plan;
mod program;
pub mod udp_sockets;
