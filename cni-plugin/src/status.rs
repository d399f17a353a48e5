//! STATUS: could ADD work now, and do pods that run still have their network (S1, S2)? Asked every few seconds.

use std::path::Path;

use nix::{
    errno::Errno,
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};
use weft_netlink::Netlink;

use crate::{
    add::network_of_node,
    config::{Config, IpamPlugin},
    env::Environment,
    error::{Code, Error},
    extras::EXTRAS,
    ipam::Ipam,
};

/// Success is readiness. What impairs running pods is looked for first, for its code says more.
pub(crate) fn status(environment: &Environment, config: &Config) -> Result<(), Error> {
    data_path(config)?;
    config.check().map_err(not_available)?;
    let sets = network_of_node(config).map_err(not_available)?.sets;
    if config.ipam == IpamPlugin::HostLocal {
        writable(&config.data_dir.join(&config.name))?;
    }
    Ipam::of(environment, config).status(sets).map_err(not_available)?;
    EXTRAS.iter().try_for_each(|extra| extra.status(config))
}

/// Codes a status may have are 50 and 51; that of a delegated plugin is kept if it is one of them.
fn not_available(error: Error) -> Error {
    match error.code {
        Code::OfDelegate(50 | 51) => error,
        _ => Error { code: Code::NotAvailable, ..error },
    }
}

/// The overlay's device, if the configuration names it: without it no other node's pods can be reached.
fn data_path(config: &Config) -> Result<(), Error> {
    let Some(device) = config.overlay_device.as_deref() else { return Ok(()) };
    let state = match Netlink::open()?.link_by_name(device)? {
        Some(link) if link.up => return Ok(()),
        Some(_) => "down",
        None => "gone",
    };
    Err(Error::with_details(
        Code::NotAvailableAndImpaired,
        format!("device {device} of the overlay is {state}: pods of other nodes cannot be reached"),
        "weft agent puts that right within a second; see whether it runs: `weft status`",
    ))
}

/// Whether an address could be written down. The directory may be yet to be made.
fn writable(directory: &Path) -> Result<(), Error> {
    let unusable = |path: &Path, why: &str| {
        Error::new(Code::NotAvailable, format!("no address can be reserved: {} {why}", path.display()))
    };
    let Some(present) = directory.ancestors().find(|path| path.exists()) else { return Ok(()) };
    if !present.is_dir() {
        return Err(unusable(present, "is not a directory"));
    }
    match access(present, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => {}
        Err(Errno::EROFS) => return Err(unusable(present, "is on a file system mounted read-only")),
        Err(error) => return Err(unusable(present, &format!("is not writable: {}", error.desc()))),
    }
    let full =
        statvfs(present).is_ok_and(|fs| fs.blocks_available() == 0 || fs.files() > 0 && fs.files_available() == 0);
    if full { Err(unusable(present, "is on a file system that is full")) } else { Ok(()) }
}
