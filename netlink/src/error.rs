//! What can go wrong, always with the operation and the object it was about.

use std::io;

use netlink_packet_core::DecodeError;
use nix::libc;

/// Of the kernel's errno.h; programs never see it but in answers to such requests.
const ERESTART: i32 = 85;

/// Result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A call did not do its work. Ask the methods, not the text, what it means.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a request, or a system call failed. Whether a retry helps depends on the number.
    #[error("{operation} {object}: {source}{}", explanation.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Kernel {
        /// What was asked for, such as `replace route`.
        operation: &'static str,
        /// What it was asked for: name, index, destination, path.
        object: String,
        /// The kernel's own words, where it had any (extended acknowledgement).
        explanation: Option<String>,
        /// The error number.
        #[source]
        source: io::Error,
    },
    /// The kernel answered what this crate cannot read. Unusual; a retry will not help.
    #[error("{operation} {object}: cannot read the kernel's answer: {reason}")]
    Unreadable {
        /// What was asked for.
        operation: &'static str,
        /// What it was asked for.
        object: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The table kept changing while it was being read. Retry later.
    #[error("{operation} {object}: it kept changing while it was read")]
    Unstable {
        /// What was asked for.
        operation: &'static str,
        /// What it was asked for.
        object: String,
    },
}

impl Error {
    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            Self::Unreadable { .. } | Self::Unstable { .. } => None,
        }
    }

    /// The object, or the interface it would belong to, does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL))
    }

    /// An object of that name or key exists already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// The process lacks CAP_NET_ADMIN (or CAP_SYS_ADMIN, for network namespaces).
    pub fn is_permission_denied(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }

    /// There is no way to that destination ([`Netlink::route_to`](crate::Netlink::route_to)).
    pub fn is_unreachable(&self) -> bool {
        matches!(self.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH))
    }

    /// Someone else changed what the request was made for ([`NftBatch::at_generation`](crate::NftBatch::at_generation)): look
    /// again, and retry.
    pub fn is_outdated(&self) -> bool {
        self.errno() == Some(ERESTART)
    }

    /// The kernel was built without what is needed; no retry will help.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOSYS))
    }

    pub(crate) fn unreadable(operation: &'static str, object: impl ToString, reason: impl ToString) -> Self {
        Self::Unreadable { operation, object: object.to_string(), reason: reason.to_string() }
    }
}

/// A failed exchange, not yet told what it was for.
#[derive(Debug)]
pub(crate) enum Failure {
    System(io::Error),
    Kernel { errno: i32, explanation: Option<String> },
    Unreadable(String),
    Unstable,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<nix::Error> for Failure {
    fn from(error: nix::Error) -> Self {
        Self::System(error.into())
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// Adds what was being done to a failure.
pub(crate) trait During<T> {
    /// `operation` reads as "could not ...", `object` names the victim.
    fn during(self, operation: &'static str, object: impl ToString) -> Result<T>;
}

impl<T, F: Into<Failure>> During<T> for std::result::Result<T, F> {
    fn during(self, operation: &'static str, object: impl ToString) -> Result<T> {
        self.map_err(|failure| {
            let object = object.to_string();
            match failure.into() {
                Failure::System(source) => Error::Kernel { operation, object, explanation: None, source },
                Failure::Kernel { errno, explanation } => {
                    Error::Kernel { operation, object, explanation, source: io::Error::from_raw_os_error(errno) }
                }
                Failure::Unreadable(reason) => Error::Unreadable { operation, object, reason },
                Failure::Unstable => Error::Unstable { operation, object },
            }
        })
    }
}

/// Turns "it is gone already" into success, for deletions.
pub(crate) fn gone_is_success(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
