//! Connected UDP sockets whose endpoint went away: closed, so that their owners connect anew.
//!
//! At a socket hook the destination is translated once, at connect(). A UDP socket does not notice when that endpoint is gone
//! and sends there for ever. What conntrack's clean-up is to packets (kube-proxy.md section 10), this is to sockets.
//!
//! Such a socket cannot be told from one that was connected to the endpoint's own address on purpose; both are closed.
//! TCP sockets are never touched: a terminating endpoint finishes its connections.

mod namespaces;

use std::{collections::BTreeSet, net::SocketAddr};

use weft_netlink::{ConnectedUdp, Error, Netns, NetnsGuard, SockDiag};

pub use namespaces::{Namespaces, namespaces};

/// What [`close`] did.
#[derive(Debug, Default)]
pub struct Closed {
    /// Sockets that have no peer any more.
    pub sockets: usize,
    /// What went wrong, at most one per namespace or socket. After one that
    /// [`is_unsupported`](weft_netlink::Error::is_unsupported), the rest was not tried.
    pub failed: Vec<Error>,
}

/// Closes the UDP sockets that are connected to one of `gone`, in each of these namespaces. Goes on after a failure.
///
/// The calling thread visits each namespace and is back when this returns.
pub fn close<'a>(namespaces: impl IntoIterator<Item = &'a Netns>, gone: &BTreeSet<SocketAddr>) -> Closed {
    let mut closed = Closed::default();
    for namespace in namespaces {
        if let Err(error) = close_in(namespace, gone, &mut closed) {
            let hopeless = error.is_unsupported();
            closed.failed.push(error);
            // All namespaces have the same kernel.
            if hopeless {
                break;
            }
        }
    }
    closed
}

fn close_in(namespace: &Netns, gone: &BTreeSet<SocketAddr>, closed: &mut Closed) -> Result<(), Error> {
    // The socket stays in the namespace, so the thread need not.
    let mut diag = {
        let _inside = NetnsGuard::enter(namespace)?;
        SockDiag::open()?
    };
    let mut victims = Vec::new();
    diag.for_each_connected_udp(|socket| {
        if is_stranded(socket.peer, gone) {
            victims.push(*socket);
        }
    })?;
    for victim in victims {
        match destroy(&mut diag, &victim) {
            Ok(()) => closed.sockets += 1,
            Err(error) if error.is_unsupported() => return Err(error),
            Err(error) => closed.failed.push(error),
        }
    }
    Ok(())
}

fn destroy(diag: &mut SockDiag, victim: &ConnectedUdp) -> Result<(), Error> {
    tracing::debug!(socket = %victim, "closing: its endpoint is gone");
    diag.destroy(victim)
}

/// Whether a socket with this peer sends to nobody. Port and address count, as for conntrack (10.4).
fn is_stranded(peer: SocketAddr, gone: &BTreeSet<SocketAddr>) -> bool {
    // A scope or flow label is the socket's own business.
    gone.contains(&SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_port_count_in_every_notation() {
        let at = |text: &str| text.parse().expect("an address with port");
        let gone = BTreeSet::from([at("10.1.0.1:5353"), at("[fd01::1]:5353")]);
        for (peer, stranded) in [
            ("10.1.0.1:5353", true),
            ("[::ffff:10.1.0.1]:5353", true),
            ("[fd01::1]:5353", true),
            ("[fd01::1%7]:5353", true),
            ("10.1.0.1:5300", false),
            ("10.1.0.2:5353", false),
            ("[fd01::2]:5353", false),
        ] {
            assert_eq!(is_stranded(at(peer), &gone), stranded, "{peer}");
        }
    }
}
