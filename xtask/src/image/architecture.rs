//! Processors there are images for, by everyone's name for them.

use std::env;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    pub(crate) fn of_this_machine() -> Result<Self> {
        match env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("no image for {other}, the processor of this machine: say --arch=amd64 or --arch=arm64"),
        }
    }

    pub(crate) fn is_this_machine(self) -> bool {
        Self::of_this_machine().is_ok_and(|own| own == self)
    }

    /// Go's name, which images carry, and Debian's, which is the same for these.
    pub(crate) const fn go_name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Directory of libraries on Debian.
    pub(crate) const fn multiarch(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// Rust's target of programs without libraries.
    pub(crate) const fn rust_target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }
}
