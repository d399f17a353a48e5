//! Where things are in the workspace.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a folder of the workspace")
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Reads a TOML file of the repository.
pub(crate) fn read_toml(path: &str) -> Result<toml::Table> {
    let path = root().join(path);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    text.parse().with_context(|| format!("parse {}", path.display()))
}

/// Folders of the members, relative to the top.
pub(crate) fn members() -> Result<Vec<String>> {
    let manifest = read_toml("Cargo.toml")?;
    let members = manifest["workspace"].get("members").and_then(toml::Value::as_array).context("workspace.members")?;
    Ok(members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect())
}
