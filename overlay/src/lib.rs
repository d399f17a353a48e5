//! Pod network of one node: subnet leases, VXLAN and masquerading.
//!
//! Compatible with flannel on the wire, in its files and in its lease formats, so that a cluster may run both.

mod atomic_file;
mod dir;
mod family;
mod interface;
mod lease;
mod netconf;
mod plan;
mod pool;
mod subnet_env;

pub use dir::DirLeases;
pub use family::Family;
pub use interface::{InterfaceChoice, InterfaceError};
pub use lease::{
    Lease, LeaseAttributes, LeaseError, LeaseFuture, LeaseKeyError, LeaseManager, LeaseRequest, LeaseSnapshot,
    LeaseValueError, Mac, RejectedLease, Subnets, VtepData,
};
pub use netconf::{NetConf, NetConfError, PodNetwork, SubnetSource, Vxlan};
pub use plan::ObjectKind;
pub use pool::SubnetPool;
pub use subnet_env::{SubnetEnv, SubnetEnvError, SubnetEnvFamily};
