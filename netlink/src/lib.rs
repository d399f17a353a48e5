//! Every conversation with rtnetlink, conntrack and sock_diag, synchronous and typed; and the entering of network
//! namespaces.
//!
//! Calls are idempotent: replacing what is already so and deleting what is already gone both succeed.
//! A [`Netlink`] belongs to the network namespace its thread was in at [`Netlink::open`], for good:
//! it may then be used from any thread.
//!
//! This crate decides nothing. What ought to be in the kernel is the planners' business.

mod address;
mod attributes;
mod conntrack;
mod error;
mod ethtool;
mod fdb;
mod link;
mod monitor;
mod neighbour;
mod netns;
mod nft_batch;
mod nft_element;
mod nft_expression;
mod nft_object;
mod nft_query;
mod nftables;
mod proxy;
mod qdisc;
mod raw;
mod route;
mod sock_diag;
mod socket;
pub mod sysctl;
mod types;
mod veth;
mod vxlan;
mod xtables;

pub use address::{Address, AddressOptions};
pub use conntrack::{Conntrack, ConntrackEntry, ConntrackTuple, Deleted};
pub use error::{Error, Result};
pub use ethtool::Ethtool;
pub use fdb::FdbEntry;
pub use link::{Link, LinkKind};
pub use monitor::{Event, Group, Monitor, Stopper};
pub use neighbour::{Neighbour, NeighbourState};
pub use netns::{Netns, NetnsGuard};
pub use nft_batch::{NftBatch, NftWriter};
pub use nft_element::{NftData, NftElement};
pub use nft_expression::NftExpression;
pub use nft_object::{NftHook, NftType};
pub use nft_query::NftQuery;
pub use nftables::{NftChange, NftWatch};
pub use qdisc::TokenBucket;
pub use raw::Listing;
pub use route::{Route, RouteFilter, RouteKind, RouteProtocol, RouteScope, TABLE_LOCAL, TABLE_MAIN};
pub use sock_diag::{ConnectedUdp, SockDiag};
pub use socket::Netlink;
pub use types::{Family, IfIndex, Mac, ParseMacError};
pub use veth::VethSpec;
pub use vxlan::{VxlanAttributes, VxlanSpec};
pub use xtables::xtables_entries;
