//! The agent and its plugin, built to need no library.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use weft_oci::Layer;

use super::{BIN, architecture::Architecture};
use crate::{build::Profile, setup, step, workspace};

/// Ours.
const PROGRAMS: &[&str] = &["weft", "weft-cni"];

/// Builds them and returns their directory.
pub(crate) fn build(architecture: Architecture, profile: Profile) -> Result<PathBuf> {
    setup::setup()?;
    let target = architecture.rust_target();
    setup::target(target)?;
    let mut cargo = step::cargo();
    cargo.args(["build", "--target", target]);
    for name in PROGRAMS {
        cargo.args(["-p", name, "--bin", name]);
    }
    if !architecture.is_this_machine() {
        let compiler = format!("{}-gcc", architecture.multiarch());
        setup::packages(&[&cross_compiler(architecture), &cross_headers(architecture)])?;
        // Debian's compiler is for another C library; it builds what C and assembler there is (of ring), which calls
        // none, and links what Rust brings: musl and its start files.
        cargo.env(format!("CC_{}", target.replace('-', "_")), &compiler);
        cargo.env(format!("CARGO_TARGET_{}_LINKER", target.replace('-', "_").to_uppercase()), compiler);
    }
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    step::run(&format!("build the programs for {target} ({directory})"), &mut cargo)?;
    Ok(workspace::target().join(target).join(directory))
}

/// Adds them, without debug information.
pub(crate) fn add_weft(layer: &mut Layer, build: &Path) -> Result<()> {
    for name in PROGRAMS {
        let program = build.join(name);
        let stripped = build.join(format!("{name}.stripped"));
        step::run(
            &format!("strip {name}"),
            // The one of Rust's toolchain takes programs for any processor.
            step::command(rust_objcopy()?).arg("--strip-all").arg(&program).arg(&stripped),
        )?;
        let content = fs::read(&stripped).with_context(|| format!("read {}", stripped.display()))?;
        layer.file(&format!("{BIN}/{name}"), content, 0o755)?;
    }
    Ok(())
}

fn rust_objcopy() -> Result<PathBuf> {
    let libraries = step::output(step::command("rustc").args(["--print", "target-libdir"])).context("rustc")?;
    let path = Path::new(libraries.trim()).parent().context("target directory of rustc")?.join("bin/rust-objcopy");
    Ok(path)
}

fn cross_compiler(architecture: Architecture) -> String {
    format!("gcc-{}", architecture.multiarch().replace('_', "-"))
}

fn cross_headers(architecture: Architecture) -> String {
    format!("libc6-dev-{}-cross", architecture.go_name())
}
