//! What can go wrong between the agent and the kernel.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

use crate::{Full, MapSizes};

/// Why the socket programs or their maps could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused for want of privileges. Not worth a retry.
    #[error("{doing}: not permitted; needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the initial user namespace")]
    MissingPrivilege {
        /// What was refused.
        doing: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The pin directory would not be on a BPF filesystem, so that nothing would outlive the agent.
    #[error("{path} is not on a BPF filesystem; mount one there: `mount -t bpf bpf {path}`")]
    NotBpffs {
        /// The path given as `--bpffs`.
        path: PathBuf,
    },
    /// The cgroup is not one of the unified hierarchy, the only one programs of this kind attach to.
    #[error("{path} is not a directory of a cgroup2 filesystem")]
    NotCgroup2 {
        /// The path given as `--cgroup-root`.
        path: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("{doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A pinned map was made by a build with other layouts. Happens only with development builds; releases change the directory.
    #[error("pinned map {pin}: {property} is {found}, this build needs {expected}; `weft cleanup` removes it")]
    Layout {
        /// The pin.
        pin: PathBuf,
        /// What differs.
        property: &'static str,
        /// As pinned.
        found: u32,
        /// As compiled in.
        expected: u32,
    },
    /// The object could not be parsed, or a map not be made.
    #[error("load the socket programs: {}", chain(source))]
    Load {
        /// aya's reason.
        #[source]
        source: Box<EbpfError>,
    },
    /// The kernel's verifier did not accept a program.
    #[error("load program {program}: {}", chain(source))]
    Program {
        /// Its name.
        program: &'static str,
        /// aya's reason, with the verifier's log.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program could not be attached or replaced.
    #[error("{doing} {program} on cgroup {cgroup}")]
    Attach {
        /// What was tried.
        doing: &'static str,
        /// The program.
        program: &'static str,
        /// The cgroup.
        cgroup: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A map size is out of range.
    #[error("{flag} is {size} and must be from {} to {}", MapSizes::MIN, MapSizes::MAX)]
    Size {
        /// The flag that sets it.
        flag: &'static str,
        /// What was asked for.
        size: u32,
    },
    /// A map is full. The element was not written.
    #[error(transparent)]
    Full(#[from] Full),
    /// A map could not be read or written.
    #[error("{doing} map {map}: {}", chain(source))]
    Map {
        /// What was tried.
        doing: &'static str,
        /// Its name.
        map: &'static str,
        /// The reason.
        #[source]
        source: Box<MapError>,
    },
    /// The network namespace of the agent could not be identified.
    #[error("read the cookie of the network namespace")]
    NetnsCookie {
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether more privileges would have helped.
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::MissingPrivilege { .. })
    }

    /// An error of a file operation; EPERM and EACCES become [`Error::MissingPrivilege`].
    pub(crate) fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::MissingPrivilege { doing: format!("{doing} {}", path.display()), source };
        }
        Self::File { doing, path: path.to_owned(), source }
    }
}

/// aya's errors do not repeat their source in their text, and callers of this crate print one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent variants give the same text twice.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
