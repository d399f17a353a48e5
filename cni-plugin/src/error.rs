//! Errors as the runtime gets them (CNI specification, section "Error").

use serde_json::{Value, json};

use crate::version::Version;

/// Error codes; below 100 they are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    /// libcni's: the sandbox is the plugin's own network namespace.
    InvalidNetns = 8,
    TryAgainLater = 11,
    /// A command this version does not have.
    NotImplemented = 100,
    /// The kernel refused.
    Network = 101,
    /// No address could be had.
    Ipam = 102,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub(crate) struct Error {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) details: String,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    pub(crate) fn with_details(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    /// The JSON for standard output (R4.1).
    pub(crate) fn to_json(&self, version: Version) -> Value {
        let mut object = json!({
            "cniVersion": version.as_str(),
            "code": self.code as u32,
            "msg": self.message,
        });
        if !self.details.is_empty() {
            object["details"] = Value::from(self.details.as_str());
        }
        object
    }
}

impl From<weft_netlink::Error> for Error {
    fn from(error: weft_netlink::Error) -> Self {
        Self::new(Code::Network, error.to_string())
    }
}
