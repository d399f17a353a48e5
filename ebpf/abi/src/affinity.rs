//! Which endpoint a client was given last by a Service with `sessionAffinity: ClientIP`.

use crate::peer::Peer;

/// Key of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityKey {
    /// The client: cookie of its network namespace (`bpf_get_netns_cookie`), never reused while the machine is up.
    ///
    /// kube-proxy's key is the source IP. A pod has one in each family, so its namespace says the same, and says it before the kernel
    /// has chosen a source address, alike for bound and unbound sockets, TCP and UDP. All processes of the host's namespace are one
    /// client, whichever of the node's addresses they use.
    pub client: u64,
    /// [`ServiceValue::affinity_id`](crate::ServiceValue::affinity_id).
    pub affinity_id: u32,
    /// Always 0.
    pub padding: u32,
}

/// Value of `AFFINITY`.
///
/// Good while it is younger than the Service's timeout and the endpoint is in the set the client's connection is for; both are checked
/// for every new connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityRecord {
    /// When the client's last connection began: nanoseconds of `CLOCK_MONOTONIC`.
    pub last_used_ns: u64,
    /// Where it went.
    pub endpoint: Peer,
    /// Where the endpoint was in its set then. A hint: changes of the set move endpoints.
    pub slot: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 16 && core::mem::offset_of!(AffinityKey, padding) == 12);
const _: () = assert!(size_of::<AffinityRecord>() == 32 && core::mem::offset_of!(AffinityRecord, slot) == 28);
