//! The kernel parameters a node needs to pass packets between pods and the rest of the world.

use std::collections::BTreeMap;

use weft_netlink::sysctl::{self, Changed};

use crate::{family::Family, interface::Underlay, plan::Desired};

/// The bridge that the CNI plugin `flannel` makes for pods.
pub(crate) const FLANNELS_BRIDGE: &str = "cni0";

/// Parameters that were looked at, with the values they have now.
pub(crate) type Sysctls = BTreeMap<String, String>;

/// Sets what `desired` needs and notes it in `now`; returns how many parameters had another value.
///
/// # Errors
/// A parameter cannot be read or written: a read-only `/proc/sys`, or a kernel without the family. `now` has those before it.
pub(crate) fn ensure(
    desired: &Desired,
    underlay: &BTreeMap<Family, Underlay>,
    now: &mut Sysctls,
) -> weft_netlink::Result<u64> {
    now.clear();
    let mut changed = 0;
    for (family, state) in &desired.families {
        // An advertised prefix on the VXLAN device would be another node's mistake or an attack; flannel sets it too. A
        // kernel without IPv6 has no such parameter.
        let device = state.device.as_ref().map(|device| device.name.as_str());
        if let Some(device) = device {
            changed += set_if(now, &format!("net/ipv6/conf/{device}/accept_ra"), "0", |value| value != "0")?;
        }
        match family {
            Family::V4 => {
                changed += set_if(now, "net/ipv4/ip_forward", "1", |value| value != "1")?;
                changed += answer_on_flannels_bridge("net/ipv4", "proxy_arp", now)?;
                if let Some(device) = device {
                    changed += loosen_reverse_path(device, now)?;
                }
            }
            Family::V6 => {
                if let Some(underlay) = underlay.get(family) {
                    // With forwarding on, 1 means "do not" and the node would lose a default route it learnt that way; 2 means
                    // "accept even so" (Documentation/networking/ip-sysctl.rst, accept_ra).
                    let accept_ra = format!("net/ipv6/conf/{}/accept_ra", underlay.name);
                    changed += set_if(now, &accept_ra, "2", |value| value == "1")?;
                }
                changed += set_if(now, "net/ipv6/conf/all/forwarding", "1", |value| value != "1")?;
                changed += answer_on_flannels_bridge("net/ipv6", "proxy_ndp", now)?;
            }
        }
    }
    Ok(changed)
}

/// Strict reverse path filtering (1) drops what a peer tunnels to us while we send to it directly, which is so for a moment
/// whenever one of the two changes its mind. The larger of the device's value and `all` counts; 2 is loose.
fn loosen_reverse_path(device: &str, now: &mut Sysctls) -> weft_netlink::Result<u64> {
    if sysctl::get("net/ipv4/conf/all/rp_filter")? != "1" {
        return set_if(now, &format!("net/ipv4/conf/{device}/rp_filter"), "2", |value| value == "1");
    }
    set_if(now, &format!("net/ipv4/conf/{device}/rp_filter"), "2", |value| value != "2")
}

/// Pods of flannel's time believe that all pods of the node are on their bridge, and ask there for those that are routed: the
/// node has to answer. At once, not after the random delay that answers for others have by default. For IPv6 it also has to be
/// told for whom: `bridge_answers`.
fn answer_on_flannels_bridge(family: &str, answer: &str, now: &mut Sysctls) -> weft_netlink::Result<u64> {
    let delay = set_if(now, &format!("{family}/neigh/{FLANNELS_BRIDGE}/proxy_delay"), "0", |value| value != "0")?;
    Ok(delay + set_if(now, &format!("{family}/conf/{FLANNELS_BRIDGE}/{answer}"), "1", |value| value != "1")?)
}

/// Sets a parameter whose value is wrong; one that does not exist is as good as right, except for those that do the forwarding.
fn set_if(
    now: &mut Sysctls,
    parameter: &str,
    wanted: &str,
    is_wrong: impl FnOnce(&str) -> bool,
) -> weft_netlink::Result<u64> {
    let value = match sysctl::get(parameter) {
        Ok(value) => value,
        Err(error) if error.is_not_found() && !parameter.contains("/all/") && parameter != "net/ipv4/ip_forward" => {
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    now.insert(parameter.to_owned(), value.clone());
    if !is_wrong(&value) {
        return Ok(0);
    }
    let changed = sysctl::set(parameter, wanted)?;
    now.insert(parameter.to_owned(), wanted.to_owned());
    Ok(u64::from(changed == Changed::Yes))
}
