//! Features of network interfaces, by the generic netlink family `ethtool` (Documentation/networking/ethtool-netlink.rst).

use netlink_sys::protocols::NETLINK_GENERIC;

use crate::{
    IfIndex,
    attributes::{attributes, push, push_nested},
    error::{During, Error, Result},
    raw::RawSocket,
    sysctl::Changed,
};

/// GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID and CTRL_ATTR_FAMILY_NAME (linux/genetlink.h).
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Of linux/ethtool_netlink.h.
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const HEADER_DEV_INDEX: u16 = 1;
const BITSET_BITS: u16 = 3;
const BITSET_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// `struct genlmsghdr`: command, version, reserved.
const GENERIC_BYTES: usize = 4;

/// A connection to ethtool of one network namespace.
#[derive(Debug)]
pub struct Ethtool {
    socket: RawSocket,
    family: u16,
}

impl Ethtool {
    /// Connects to ethtool of the network namespace the calling thread is in now.
    ///
    /// # Errors
    /// [`is_not_found`](Error::is_not_found): the kernel (before 5.6, or built without) has no ethtool netlink.
    pub fn open() -> Result<Self> {
        let mut socket = RawSocket::open(NETLINK_GENERIC).during("open", "a generic netlink socket")?;
        let mut request = vec![GET_FAMILY, 1, 0, 0];
        push(&mut request, FAMILY_NAME, b"ethtool\0");
        let mut family = None;
        let id = |row: &[u8]| find(row, FAMILY_ID).and_then(|id| id.try_into().ok()).map(u16::from_ne_bytes);
        socket.ask(CONTROLLER, &request, |row| family = id(row)).during("look up", "generic netlink family ethtool")?;
        let family =
            family.ok_or_else(|| Error::unreadable("look up", "generic netlink family ethtool", "no number"))?;
        Ok(Self { socket, family })
    }

    /// Whether a feature, by the name `ethtool -k` shows, is in effect.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn feature(&mut self, link: IfIndex, feature: &str) -> Result<bool> {
        let mut active = false;
        let request = header(FEATURES_GET, link);
        self.socket
            .ask(self.family, &request, |row| active |= names(row).any(|name| name == feature.as_bytes()))
            .during("read feature", format_args!("{feature} of link #{link}"))?;
        Ok(active)
    }

    /// Switches a feature on or off.
    ///
    /// # Errors
    /// The interface is gone, or knows no such feature. A feature the kernel keeps as it is is no error; ask again to know.
    pub fn set_feature(&mut self, link: IfIndex, feature: &str, on: bool) -> Result<Changed> {
        if self.feature(link, feature)? == on {
            return Ok(Changed::No);
        }
        let mut request = header(FEATURES_SET, link);
        push_nested(&mut request, FEATURES_WANTED, |wanted| {
            push_nested(wanted, BITSET_BITS, |bits| {
                push_nested(bits, BITSET_BIT, |bit| {
                    push(bit, BIT_NAME, &[feature.as_bytes(), &[0]].concat());
                    if on {
                        push(bit, BIT_VALUE, &[]);
                    }
                });
            });
        });
        self.socket
            .ask(self.family, &request, |_| ())
            .during("set feature", format_args!("{feature} of link #{link}"))
            .map(|()| Changed::Yes)
    }
}

fn header(command: u8, link: IfIndex) -> Vec<u8> {
    let mut request = vec![command, 1, 0, 0];
    push_nested(&mut request, FEATURES_HEADER, |out| push(out, HEADER_DEV_INDEX, &link.get().to_ne_bytes()));
    request
}

fn find(row: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(row.get(GENERIC_BYTES..)?).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The names in the bitset of active features: without a mask, it lists those that are set.
fn names(row: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bitset = find(row, FEATURES_ACTIVE).unwrap_or_default();
    let bits = attributes(bitset).filter(|(kind, _)| *kind == BITSET_BITS).flat_map(|(_, bits)| attributes(bits));
    let names = bits.filter_map(|(_, bit)| attributes(bit).find(|(kind, _)| *kind == BIT_NAME));
    names.map(|(_, name)| name.strip_suffix(&[0]).unwrap_or(name))
}
