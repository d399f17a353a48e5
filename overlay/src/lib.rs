//! Pod network of one node: subnet leases, VXLAN and masquerading.
//!
//! Compatible with flannel on the wire, in its files and in its lease formats, so that a cluster may run both.

mod allocate;
mod apply;
mod atomic_file;
mod bridge_answers;
mod cleanup;
pub mod diagnose;
mod dir;
mod etcd;
mod events;
mod family;
mod forwarding;
mod interface;
mod join;
mod kube;
mod lease;
mod netconf;
mod network_report;
mod observe;
mod offload;
mod packet_filter;
mod plan;
mod pool;
mod reconcile;
mod retry;
mod start;
mod status;
mod subnet_env;

pub use self::kube::{AnnotationPrefix, AnnotationPrefixError, KubeLeaseConfig, KubeLeases};
pub use cleanup::{CleanupConfig, CleanupError, cleanup};
pub use dir::DirLeases;
pub use etcd::{ClientCertificate, EtcdConfig, EtcdLeases, EtcdUser};
pub use family::Family;
pub use interface::{InterfaceChoice, InterfaceError, InterfacePattern, InterfacePatternError};
pub use lease::{
    Lease, LeaseAttributes, LeaseError, LeaseFuture, LeaseHolder, LeaseKeyError, LeaseManager, LeaseRequest,
    LeaseSnapshot, LeaseValueError, Mac, NetworkState, RejectedLease, StoredSettings, Subnets, VtepData,
};
pub use netconf::{Backend, NetConf, NetConfError, PodNetwork, SubnetSource, Vxlan};
pub use offload::ChecksumOffload;
pub use packet_filter::ConntrackBypass;
pub use plan::ObjectKind;
pub use pool::SubnetPool;
pub use start::{OverlayConfig, OverlayHandle, StartError, start};
pub use status::{FamilyStatus, OverlayStatus, PeerState, PeerStatus, RejectedStatus};
pub use subnet_env::{SubnetEnv, SubnetEnvError, SubnetEnvFamily};
