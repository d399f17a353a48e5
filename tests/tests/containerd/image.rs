//! The images of the tests: that of their pods, one layer with one static program, `weft-testkit`; and the agent's.

use std::{
    collections::BTreeMap,
    env::consts::ARCH,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use weft_oci::{Compression, Image, Layer};
use weft_tests::Binaries;

/// Name of the pods' image.
pub(crate) const POD_IMAGE: &str = "weft.test/pod:1";
/// Name of the agent's image in the tests.
pub(crate) const WEFT_IMAGE: &str = "weft.test/weft:1";
/// Its program.
pub(crate) const TESTKIT: &str = "/weft-testkit";
/// The sandbox's own process answers here with `sandbox`, so a pod can be reached that has no container.
pub(crate) const SANDBOX_PORT: u16 = 9;

/// Writes the archive into `directory`.
pub(crate) fn write(directory: &Path) -> Result<PathBuf> {
    let program = static_program("weft-testkit")?;
    // Symbols are five sixths of it.
    let stripped = directory.join("weft-testkit");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(&program).status().context("start strip")?;
    ensure!(status.success(), "strip {}: {status}", program.display());
    let mut layer = Layer::default();
    layer.file(TESTKIT, fs::read(&stripped)?, 0o755)?;
    let port = SANDBOX_PORT;
    let image = Image {
        name: POD_IMAGE.to_owned(),
        architecture: go_architecture().to_owned(),
        entrypoint: [TESTKIT, "serve", "--name=sandbox", &format!("--tcp={port}"), &format!("--udp={port}")]
            .map(str::to_owned)
            .to_vec(),
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        layer,
        compression: Compression::None,
    };
    let archive = directory.join("pod.tar");
    image.write(File::create(&archive).with_context(|| format!("create {}", archive.display()))?)?;
    Ok(archive)
}

/// The archive of the agent's image, made from a build like that of all tests.
pub(crate) fn weft() -> Result<PathBuf> {
    built("image/weft-test.tar")
}

/// A program of the build for musl, which runs in an image without libraries.
fn static_program(name: &str) -> Result<PathBuf> {
    built(&format!("{ARCH}-unknown-linux-musl/debug/{name}"))
}

fn built(path: &str) -> Result<PathBuf> {
    let build = Binaries::locate()?.agent;
    let target = build.parent().and_then(Path::parent).context("target directory")?;
    let path = target.join(path);
    ensure!(path.is_file(), "missing {}: run `cargo xtask test`, which builds it", path.display());
    Ok(path)
}

/// This machine's architecture, as images name it.
fn go_architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
