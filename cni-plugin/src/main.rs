//! CNI plugin of Weft: one exec, synchronous, netlink only.
//!
//! Standard output carries the result or the error of the specification and nothing else; standard error is for logs.
//! Section numbers such as R1.4 or A1 in comments are those of the requirement list `cni.md`.

mod add;
mod args;
mod config;
mod del;
mod env;
mod error;
mod ipam;
mod plugin;
mod result;
mod sandbox;
mod subnet_env;
mod version;
mod veth;

use std::{io, process::ExitCode};

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    plugin::run(&variable, io::stdin(), &mut io::stdout().lock())
}
