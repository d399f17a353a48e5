//! The socket programs of one node: loaded, attached to its cgroup, and taken over by the next agent.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::MapError,
    programs::{CgroupSockAddr, ProgramError},
};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use weft_ebpf_abi::{Config, MAPS, MapKind};

use crate::{
    Error, MapSizes, Maps,
    pins::{Pins, exists, fresh},
    privileges, sys,
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/socket"));

/// A program and its place, `enum bpf_attach_type` of linux/bpf.h.
pub(crate) struct Hook {
    pub(crate) program: &'static str,
    attach_type: u32,
}

const fn hook(program: &'static str, attach_type: u32) -> Hook {
    Hook { program, attach_type }
}

/// In the order they are attached: translating back comes first, so that no client ever sees an endpoint's address.
pub(crate) const HOOKS: [Hook; 8] = [
    hook("getpeername4", 29),
    hook("getpeername6", 30),
    hook("recvmsg4", 19),
    hook("recvmsg6", 20),
    hook("sendmsg4", 14),
    hook("sendmsg6", 15),
    hook("connect4", 10),
    hook("connect6", 11),
];

/// Where the programs live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPlaneConfig {
    /// Directory of the cgroup2 filesystem; sockets made by processes in it or below are translated.
    pub cgroup_root: PathBuf,
    /// Directory on a BPF filesystem; pins are kept in `weft/v<ABI>/` below it.
    pub bpffs: PathBuf,
    /// How many elements the maps have.
    pub sizes: MapSizes,
}

/// The socket programs and their maps.
///
/// Dropping it changes nothing in the kernel: once attached, the programs work on with what the maps hold, until
/// [`remove_pins`](crate::remove_pins).
pub struct SocketPlane {
    programs: Ebpf,
    maps: Maps,
    pins: Pins,
    cgroup: File,
    cgroup_root: PathBuf,
}

impl SocketPlane {
    /// Opens the pinned maps or makes them, and loads the programs, so that whatever this kernel lacks shows here.
    /// What is attached now goes on as it is until [`SocketPlane::attach`].
    ///
    /// Must be called in the node's network namespace: sockets of that one may use NodePorts at loopback addresses.
    ///
    /// # Errors
    /// Any variant but [`Error::Attach`] and [`Error::Full`].
    pub fn open(config: &SocketPlaneConfig) -> Result<Self, Error> {
        config.sizes.check()?;
        privileges::check()?;
        let cgroup = open_cgroup(&config.cgroup_root)?;
        let mut pins = Pins::open(&config.bpffs)?;
        pins.check_maps(&config.sizes)?;

        let mut loader = EbpfLoader::new();
        for spec in &MAPS {
            loader.map_pin_path(spec.name, pins.map(spec.name));
            if spec.kind != MapKind::SocketStorage {
                loader.map_max_entries(spec.name, config.sizes.of(spec.name));
            }
        }
        let mut programs = loader.load(OBJECT).map_err(load_error)?;
        for hook in &HOOKS {
            let program = program(&mut programs, hook);
            patiently(|| program.load(), verifier_was_interrupted)
                .map_err(|source| program_error(hook.program, source))?;
        }

        let mut maps = Maps::take(&mut programs, &config.sizes)?;
        let host_netns_cookie = sys::netns_cookie().map_err(|source| Error::NetnsCookie { source })?;
        let known = maps.config.get(0)?;
        maps.config.set(0, &Config { host_netns_cookie, ..known })?;
        Ok(Self { programs, maps, pins, cgroup, cgroup_root: config.cgroup_root.clone() })
    }

    /// Puts these programs in the place of those that are attached, one by one without a gap, or attaches them.
    /// Then removes the pins of other ABI versions and of maps with other sizes. Calling it again is harmless.
    ///
    /// # Errors
    /// [`Error::Attach`], [`Error::File`] or [`Error::MissingPrivilege`]; programs attached so far stay.
    pub fn attach(&mut self) -> Result<(), Error> {
        let cgroup_id =
            self.cgroup.metadata().map_err(|source| Error::file("look at", &self.cgroup_root, source))?.ino();
        for hook in &HOOKS {
            let pin = self.pins.link(hook.program);
            let program = program(&mut self.programs, hook);
            let program = program.fd().expect("loaded in open()").as_fd();
            let attempt = || -> Result<(), (&'static str, io::Error)> {
                if replace(&pin, cgroup_id, &program)? {
                    return Ok(());
                }
                attach_anew(&pin, &self.cgroup, hook.attach_type, &program)
            };
            attempt().map_err(|(doing, source)| attach_error(doing, hook.program, &self.cgroup_root, source))?;
        }
        self.pins.replace_maps()?;
        self.pins.remove_other_versions()
    }

    /// The maps, to read.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The maps, to write.
    pub fn maps_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// Whether a former agent left attached programs here: then a restart goes unnoticed by clients.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::MissingPrivilege`].
    pub fn is_attached(&self) -> Result<bool, Error> {
        for hook in &HOOKS {
            if !exists(&self.pins.link(hook.program))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Replaces the program of the pinned link, if there is one and it is on our cgroup.
fn replace(pin: &Path, cgroup_id: u64, program: &impl AsFd) -> Result<bool, (&'static str, io::Error)> {
    let link = match sys::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(("open the link of", error)),
    };
    // 0 after the cgroup was removed, another number after `--cgroup-root` was changed.
    if sys::link_cgroup(&link).map_err(|error| ("look at the link of", error))? != cgroup_id {
        return Ok(false);
    }
    match sys::update_link(&link, program) {
        Ok(()) => Ok(true),
        // The cgroup was removed just now.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        Err(error) => Err(("replace", error)),
    }
}

/// Attaches the program and moves the new link's pin over the old one, if any, which detaches that.
fn attach_anew(
    pin: &Path,
    cgroup: &File,
    attach_type: u32,
    program: &impl AsFd,
) -> Result<(), (&'static str, io::Error)> {
    let link: OwnedFd = sys::create_link(program, cgroup, attach_type).map_err(|error| ("attach", error))?;
    let fresh = fresh(pin);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(("remove the unfinished link of", error));
        }
        _ => {}
    }
    sys::pin(&link, &fresh).map_err(|error| ("pin", error))?;
    fs::rename(&fresh, pin).map_err(|error| ("pin", error))
}

fn program<'a>(programs: &'a mut Ebpf, hook: &Hook) -> &'a mut CgroupSockAddr {
    programs
        .program_mut(hook.program)
        .expect("the object has a program for every hook")
        .try_into()
        .expect("every program of the object is a sock_addr program")
}

fn open_cgroup(path: &Path) -> Result<File, Error> {
    let cgroup = File::open(path).map_err(|source| Error::file("open cgroup", path, source))?;
    let found = fstatfs(&cgroup).map_err(|errno| Error::file("look at", path, errno.into()))?;
    if found.filesystem_type() == CGROUP2_SUPER_MAGIC {
        Ok(cgroup)
    } else {
        Err(Error::NotCgroup2 { path: path.to_owned() })
    }
}

fn load_error(source: EbpfError) -> Error {
    let denied = match &source {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => denied(io_error),
        EbpfError::MapError(MapError::SyscallError(error)) => denied(&error.io_error),
        _ => None,
    };
    match denied {
        Some(source) => Error::MissingPrivilege { doing: "make the maps".to_owned(), source },
        None => Error::Load { source: Box::new(source) },
    }
}

/// How often a program is given to the verifier before giving up.
const LOAD_ATTEMPTS: u32 = 20;

/// The verifier stops with EAGAIN when anything wants the thread's attention meanwhile, such as a signal for another one
/// (`do_check` in kernel/bpf/verifier.c); the next try mostly gets through. libbpf does the same.
fn patiently<E>(mut load: impl FnMut() -> Result<(), E>, interrupted: impl Fn(&E) -> bool) -> Result<(), E> {
    for _ in 1..LOAD_ATTEMPTS {
        match load() {
            Err(error) if interrupted(&error) => {}
            done => return done,
        }
    }
    load()
}

fn verifier_was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EAGAIN))
}

fn program_error(program: &'static str, source: ProgramError) -> Error {
    // EACCES is the verifier's "no" and not a matter of privileges.
    match &source {
        ProgramError::LoadError { io_error, .. } if denied(io_error).is_some() => Error::MissingPrivilege {
            doing: format!("load program {program}"),
            source: io::Error::from_raw_os_error(libc::EPERM),
        },
        _ => Error::Program { program, source: Box::new(source) },
    }
}

fn attach_error(doing: &'static str, program: &'static str, cgroup: &Path, source: io::Error) -> Error {
    if denied(&source).is_some() {
        let doing = format!("{doing} {program} on cgroup {}", cgroup.display());
        return Error::MissingPrivilege { doing, source };
    }
    Error::Attach { doing, program, cgroup: cgroup.to_owned(), source }
}

/// EPERM again, if it was that.
fn denied(error: &io::Error) -> Option<io::Error> {
    (error.raw_os_error() == Some(libc::EPERM)).then(|| io::Error::from_raw_os_error(libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::{LOAD_ATTEMPTS, patiently};

    /// Calls made when the first `interruptions` are interrupted and the next one ends with `outcome`.
    fn calls(interruptions: u32, outcome: Result<(), &'static str>) -> u32 {
        let mut calls = 0;
        let load = || {
            calls += 1;
            if calls <= interruptions { Err("interrupted") } else { outcome }
        };
        let expected = if interruptions < LOAD_ATTEMPTS { outcome } else { Err("interrupted") };
        assert_eq!(patiently(load, |error| *error == "interrupted"), expected);
        calls
    }

    #[test]
    fn an_interrupted_verifier_is_asked_again_and_a_refusal_is_not() {
        assert_eq!(calls(3, Ok(())), 4);
        assert_eq!(calls(0, Err("refused")), 1);
        assert_eq!(calls(u32::MAX, Ok(())), LOAD_ATTEMPTS);
    }
}
