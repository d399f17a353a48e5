//! Errors as the runtime gets them (CNI specification, section "Error").

use serde_json::{Value, json};

use crate::version::Version;

/// Error codes; below 100 they are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    IncompatibleVersion,
    /// A field of the configuration asks for what there is not.
    UnsupportedField,
    InvalidEnvironment,
    Io,
    Decode,
    InvalidConfig,
    /// libcni's: the sandbox is the plugin's own network namespace.
    InvalidNetns,
    TryAgainLater,
    /// STATUS: ADD would fail.
    NotAvailable,
    /// STATUS: ADD would fail, and pods that run are cut off.
    NotAvailableAndImpaired,
    /// The kernel refused.
    Network,
    /// No address could be had.
    Ipam,
    /// A delegated plugin is missing, or failed without giving a reason.
    Delegate,
    /// CHECK found something that is not as ADD made it.
    NotAsMade,
    /// What a delegated plugin reported (R4.2).
    OfDelegate(u32),
}

impl Code {
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::NotAvailableAndImpaired => 51,
            Self::Network => 101,
            Self::Ipam => 102,
            Self::Delegate => 103,
            Self::NotAsMade => 104,
            Self::OfDelegate(code) => code,
        }
    }
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
            "code": self.code.number(),
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
