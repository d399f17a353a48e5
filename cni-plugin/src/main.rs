//! The CNI plugin as a runtime calls it; everything is in the library.

use std::{io, process::ExitCode};

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    weft_cni::run(&variable, io::stdin(), &mut io::stdout().lock())
}
