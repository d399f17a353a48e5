//! Where the programs under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Directory variable; without it the programs are looked for beside the running executable.
const VARIABLE: &str = "WEFT_BIN_DIR";

/// Paths of the programs that a cluster runs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The agent, `weft`.
    pub agent: PathBuf,
    /// The CNI plugin, `weft-cni`.
    pub cni: PathBuf,
    /// Servers, clients and the janitor, `weft-testkit`.
    pub testkit: PathBuf,
}

impl Binaries {
    /// Finds them in `$WEFT_BIN_DIR`, or in the target directory that the running executable is in.
    ///
    /// # Errors
    /// Names every missing program and the command that builds it.
    pub fn locate() -> Result<Self> {
        let directory = match env::var_os(VARIABLE) {
            Some(path) => PathBuf::from(path),
            None => target_directory(&env::current_exe().context("find the running executable")?),
        };
        let found = Self {
            agent: directory.join("weft"),
            cni: directory.join("weft-cni"),
            testkit: directory.join("weft-testkit"),
        };
        let missing: Vec<_> = [&found.agent, &found.cni, &found.testkit]
            .into_iter()
            .filter(|path| !path.is_file())
            .map(|path| path.display().to_string())
            .collect();
        if missing.is_empty() {
            return Ok(found);
        }
        bail!("missing {}: run `cargo xtask test` (or demo), which build them, or set {VARIABLE}", missing.join(", "))
    }
}

impl Binaries {
    /// Another program of the same build.
    ///
    /// # Errors
    /// It is not there: names the command that builds it.
    pub fn beside(&self, name: &str) -> Result<PathBuf> {
        let path = self.agent.with_file_name(name);
        if path.is_file() {
            return Ok(path);
        }
        bail!("missing {}: run `cargo xtask test`, which builds it, or set {VARIABLE}", path.display())
    }
}

/// `target/debug` for `target/debug/deps/x-1234` (a test) and for `target/debug/x` (a program).
fn target_directory(executable: &Path) -> PathBuf {
    let parent = executable.parent().unwrap_or(Path::new("."));
    match parent.file_name() {
        Some(name) if name == "deps" => parent.parent().unwrap_or(parent).to_owned(),
        _ => parent.to_owned(),
    }
}
