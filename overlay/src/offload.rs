//! Checksum offload of the VXLAN device. Behind some NATs and network cards the checksums it leaves to others come out wrong,
//! and every TCP connection through the tunnel stalls while ping works (flannel issue 1279).

use weft_netlink::{Ethtool, IfIndex, sysctl::Changed};

use crate::observe::Devices;

/// The feature, as `ethtool -k` calls it: without it the device computes inner checksums itself.
const FEATURE: &str = "tx-checksum-ip-generic";

/// `--vtep-checksum-offload`: who computes the checksums of packets that enter the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumOffload {
    /// Leave the device as it is: the kernel's default is on, and an administrator may have switched it off.
    #[default]
    Auto,
    /// Left to the network card, or whoever needs them.
    On,
    /// Computed before encapsulation: some throughput for safety.
    Off,
}

/// Sets the feature on all `devices`; returns how many had it otherwise.
///
/// # Errors
/// The kernel has no ethtool netlink, or refuses.
pub(crate) fn ensure(wanted: ChecksumOffload, devices: &Devices) -> weft_netlink::Result<u64> {
    let on = match wanted {
        ChecksumOffload::Auto => return Ok(0),
        ChecksumOffload::On => true,
        ChecksumOffload::Off => false,
    };
    let mut ethtool = Ethtool::open()?;
    let mut set = |link: &IfIndex| match ethtool.set_feature(*link, FEATURE, on) {
        Ok(changed) => Ok(u64::from(changed == Changed::Yes)),
        // It is about to be made again.
        Err(error) if error.is_not_found() => Ok(0),
        Err(error) => Err(error),
    };
    devices.values().map(&mut set).sum()
}
