//! Netns clusters on one machine: several nodes, each a network namespace with its own cgroup,
//! bpffs and agent process, pods made by the real `weft-cni`, and real traffic between them.
//!
//! ```no_run
//! use weft_tests::{Cluster, Request};
//!
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::builder().nodes(2).build()?;
//! let web = cluster.node(1).pod("web-1")?;
//! let _server = web.serve()?;
//! let client = cluster.node(2).pod("client")?;
//! let answers = client.request(&Request::tcp(web.socket_v4(8080)?).count(10))?;
//! assert_eq!(answers.by_name["web-1"], 10);
//! cluster.shutdown()
//! # }
//! ```
//!
//! Everything of a run carries the run's name, `weft-<pid>-<n>`: namespaces, cgroup, directory under
//! `/run/weft-tests`. A janitor process waits for its owner to end, however it ends (return, panic,
//! Ctrl-C, `kill -9`), and then removes all of it; see [`Run`].

mod agent;
mod api_server;
mod asker;
mod binaries;
mod cluster;
mod cni;
mod ip;
mod node;
mod objects;
mod place;
mod pod;
mod run;
mod status;
mod traffic;
mod underlay;
mod wait;

pub use agent::Agent;
pub use asker::{Asked, Asker};
pub use binaries::Binaries;
pub use cluster::{Cluster, ClusterBuilder};
pub use node::Node;
pub use objects::{Manifests, SlicePort};
pub use place::{Background, Place};
pub use pod::Pod;
pub use run::{Run, down, leftovers, remove};
pub use status::{
    EndpointStatus, HealthCheckStatus, MapStatus, NodeStatus, OverlayStatus, ParameterStatus, PeerStatus, ProxyStatus,
    RejectedObject, ServiceStatus, SourceStatus, Trace, TracedEndpoint, TracedNext,
};
pub use traffic::{
    Answers, Failure, Followed, Follower, Hold, HoldReport, Load, LoadReport, Protocol, Request, Running, Seen, Server,
};
pub use underlay::{OUTSIDE_V4, OUTSIDE_V6};
pub use wait::{eventually, secs, unix_us};
