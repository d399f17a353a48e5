//! What the programs remember of a socket.

use crate::peer::Peer;

/// [`SocketState::flags`]: the last connect was to a Service; `service` and `endpoint` are set.
pub const SOCKET_CONNECTED: u32 = 1;
/// [`SocketState::flags`]: datagrams were sent to a Service without connect; `UDP_REPLIES` may have entries of this socket.
pub const SOCKET_FLOWS: u32 = 1 << 1;

/// Value of `SOCKET`, the socket-local storage: freed with the socket, never evicted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// The Service address the client asked for.
    pub service: Peer,
    /// The endpoint it was given instead.
    pub endpoint: Peer,
    /// [`SOCKET_CONNECTED`] and [`SOCKET_FLOWS`].
    pub flags: u32,
}

/// Key of `UDP_FLOWS` (peer = Service address) and of `UDP_REPLIES` (peer = endpoint; the value is the Service address.
/// Or peer = value = a client of the socket whose address looks like a NodePort).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Kernel's number of the socket (`bpf_get_socket_cookie`), never reused while the machine is up.
    pub socket_cookie: u64,
    /// The far end.
    pub peer: Peer,
    /// Always 0.
    pub padding: u32,
}

/// Value of `UDP_FLOWS`: the endpoint an unconnected UDP socket talks to behind one Service address.
///
/// Valid while the endpoint is in the set behind that address; checked on every send.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFlow {
    /// The endpoint.
    pub endpoint: Peer,
    /// Where it was in its set at the last send. A hint: changes of the set move endpoints.
    pub slot: u32,
}

const _: () = assert!(size_of::<SocketState>() == 44 && core::mem::offset_of!(SocketState, flags) == 40);
const _: () = assert!(size_of::<FlowKey>() == 32 && core::mem::offset_of!(FlowKey, padding) == 28);
const _: () = assert!(size_of::<UdpFlow>() == 24 && core::mem::offset_of!(UdpFlow, slot) == 20);
