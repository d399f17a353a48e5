//! The kernel parameters a node needs to pass packets between pods and the rest of the world.

use weft_netlink::sysctl::{self, Changed};

use crate::{family::Family, interface::Underlay, plan::Desired};
use std::collections::BTreeMap;

/// Sets what `desired` needs; returns how many parameters had another value.
///
/// # Errors
/// A parameter cannot be read or written: a read-only `/proc/sys`, or a kernel without the family.
pub(crate) fn ensure(desired: &Desired, underlay: &BTreeMap<Family, Underlay>) -> weft_netlink::Result<u64> {
    let mut changed = 0;
    for (family, state) in &desired.families {
        // An advertised prefix on the VXLAN device would be another node's mistake or an attack; flannel sets it too. A
        // kernel without IPv6 has no such parameter.
        let accept_ra = format!("net/ipv6/conf/{}/accept_ra", state.device.name);
        changed += set_if_present(&accept_ra, "0")?;
        match family {
            Family::V4 => changed += set("net/ipv4/ip_forward", "1")?,
            Family::V6 => {
                if let Some(underlay) = underlay.get(family) {
                    changed += keep_accepting_routers(&underlay.name)?;
                }
                changed += set("net/ipv6/conf/all/forwarding", "1")?;
            }
        }
    }
    Ok(changed)
}

/// With forwarding on, accept_ra=1 means "do not" and the node would lose a default route it learnt that way; 2 means "accept
/// even so" (Documentation/networking/ip-sysctl.rst, accept_ra).
fn keep_accepting_routers(interface: &str) -> weft_netlink::Result<u64> {
    let parameter = format!("net/ipv6/conf/{interface}/accept_ra");
    match sysctl::get(&parameter) {
        Ok(value) if value == "1" => set(&parameter, "2"),
        Ok(_) => Ok(0),
        Err(error) if error.is_not_found() => Ok(0),
        Err(error) => Err(error),
    }
}

fn set_if_present(parameter: &str, value: &str) -> weft_netlink::Result<u64> {
    match set(parameter, value) {
        Err(error) if error.is_not_found() => Ok(0),
        other => other,
    }
}

fn set(parameter: &str, value: &str) -> weft_netlink::Result<u64> {
    Ok(match sysctl::set(parameter, value)? {
        Changed::Yes => 1,
        Changed::No => 0,
    })
}
