//! Versions of the specification (R2.1, R2.3).

use std::{io::Read, os::fd::AsFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::error::{Code, Error};

/// A version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub(crate) const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub(crate) const LATEST: Self = Self::V1_1_0;

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of a configuration; absent or empty is 0.1.0 (R2.1).
    pub(crate) fn of_config(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            Error::with_details(
                Code::IncompatibleVersion,
                "incompatible CNI versions",
                format!("config is {text:?}, plugin supports {:?}", Self::ALL.map(Self::as_str)),
            )
        })
    }
}

/// Answers VERSION: the version of the request is echoed, as the specification says, if it is one of ours.
pub(crate) fn answer(stdin: impl Read + AsFd) -> Value {
    let asked = requested_version(stdin).and_then(|text| Version::of_config(&text).ok()).unwrap_or(Version::LATEST);
    json!({ "cniVersion": asked.as_str(), "supportedVersions": Version::ALL.map(Version::as_str) })
}

/// Some runtimes send no body and keep the pipe open, so this neither waits for the end nor long for a beginning (R1.6).
fn requested_version(stdin: impl Read + AsFd) -> Option<String> {
    let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waiting, PollTimeout::from(100_u8)) != Ok(1) {
        return None;
    }
    let body: Value = serde_json::Deserializer::from_reader(stdin).into_iter().next()?.ok()?;
    Some(body.get("cniVersion")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_1_all_versions_are_read_and_others_refused() {
        for version in Version::ALL {
            assert_eq!(Version::of_config(version.as_str()), Ok(version));
        }
        assert_eq!(Version::of_config(""), Ok(Version::V0_1_0));
        for text in ["1.2.0", "1.0", "latest", "0.5.0"] {
            let error = Version::of_config(text).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::IncompatibleVersion, "incompatible CNI versions"));
            assert!(error.details.contains(text) && error.details.contains("\"1.1.0\""), "{}", error.details);
        }
    }
}
